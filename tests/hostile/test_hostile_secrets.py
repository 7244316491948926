"""What nobody may read: not in a log of any format, not in an answer, not in `ps`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import canaries
import pytest
from serving import AGENTS, LAPSE, environment, eventually, serving

from lapse.errors import SettingsError
from lapse.settings import Settings, load_settings
from postgres import own_server

SECRETS = re.compile("canary-of-the-[a-z]+")
FORMATS = ["console", "json"]
BEGINS = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]+Z \[(debug|info|warning|error|critical) *\] "  # a line of ours
    r"|Lapse serves |lapse: "
    r"|  File \"|    |Traceback|[\w.]+(Error|Exception|Disconnect\w*)$|$|During |The above "
)


def agents(folder):
    return str(shutil.copytree(AGENTS, folder / "agents"))


@pytest.fixture(scope="module")
def talked(tmp_path_factory):
    """Return, by format, the whole log of a verbose server and all that it answered."""
    found = {}
    for style in FORMATS:
        folder = tmp_path_factory.mktemp(style)
        settings = canaries.SETTINGS | {"LAPSE_LOG_FORMAT": style}
        with serving(folder, agents(folder), "--verbose", **settings) as server:
            answers = canaries.provoke(server)
            server.stop()
            found[style] = server.log, answers
    return found


@pytest.mark.parametrize("style", FORMATS)
def test_no_line_of_a_log_has_anything_of_what_users_sent(talked, style):
    """Broken on purpose: with the quotations of exceptions left in, the text is there."""
    log, _ = talked[style]
    assert "session" in log
    assert "RuntimeError" in log
    assert set(SECRETS.findall(log)) == set()


def test_a_line_of_the_console_stays_one_line(talked):
    """Broken on purpose: with `visible` taken out of the formatter a forged line is there."""
    log, _ = talked["console"]
    assert "\x1b" not in log
    for line in re.split("[\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]", log):
        assert BEGINS.match(line), line


def test_a_line_of_json_stays_one_object(talked):
    log, _ = talked["json"]
    for line in log.split("\n"):
        if line and "Lapse serves" not in line:
            assert json.loads(line)["level"] in {"debug", "info", "warning", "error"}
    assert not set(log) & set("\x1b\u2028\u2029\x85")


def test_no_answer_has_a_secret_or_a_trace(talked):
    for _, answers in talked.values():
        assert answers
        for told in answers:
            body = told.partition("Headers")[2]
            assert not set(SECRETS.findall(body)) & {
                f"canary-of-the-{name}" for name in ("token", "cookie", "key", "password")
            }
            assert "Traceback" not in body


@pytest.mark.parametrize("style", FORMATS[1:])
def test_no_password_of_a_store_is_seen_while_it_is_there_or_gone(tmp_path, style):
    """Broken on purpose: with the title left alone `ps` shows it to every user of the machine."""
    with own_server() as own:
        url = own.url.replace("postgres@", f"postgres:{canaries.PASSWORD}@")
        settings = {"LAPSE_LOG_FORMAT": style, "LAPSE_STATEMENT_TIMEOUT_SECONDS": "0.5"}
        arguments = (agents(tmp_path), "--verbose", "--store", url)
        with serving(tmp_path, *arguments, **settings) as server:
            shown = Path(f"/proc/{server.process.pid}/cmdline").read_bytes().decode()
            assert canaries.PASSWORD not in shown
            assert "postgres:***@" in shown
            session_id = server.create()
            own.stop("immediate")
            path = server.path(session_id)
            answers = [
                server.client.get(path),
                server.client.post("/run", json={}),
                server.run("x"),
            ]
            assert answers[0].status_code == 503
            answers += [server.client.get(page) for page in ("/readyz", "/metrics", "/livez")]
            eventually(lambda: "error" in server.log or "warning" in server.log)
            server.stop()
            assert canaries.PASSWORD not in server.log + "".join(one.text for one in answers)
            assert "LAPSE_STORE_URL" in server.log


URLS = [
    "mysql://u:PW@127.0.0.1:1/db",
    "postgresql://u:PW@127.0.0.1:1/db",
    "postgresql://u:PW@127.0.0.1:nope/db",
    "postgresql://u:x#PW@127.0.0.1:1/db",
    "postgresql://u:x?PW@127.0.0.1:1/db",
    "postgresql://u:x/PW@127.0.0.1:1/db",
    "postgresql://u:x@PW@127.0.0.1:1/db",
    "postgresql://u:[PW@127.0.0.1:1/db",
    "postgresql:/u:PW@127.0.0.1:1/db",
    "postgresql//u:PW@127.0.0.1:1/db",
    "sqlite://u:PW@127.0.0.1:1/db",
]


@pytest.mark.parametrize("url", URLS)
async def test_no_error_about_a_store_has_its_password(url):
    """Broken on purpose: without the look at the URL the driver quotes the parts it fell over."""
    from lapse.errors import LapseError
    from lapse.stores import store_from_url

    async def opened():
        store = store_from_url(url.replace("PW", canaries.PASSWORD))
        try:
            await store.open()
        finally:
            await store.close()

    with pytest.raises(LapseError) as caught:
        await opened()
    assert canaries.PASSWORD not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("url", [URLS[0], URLS[3], URLS[9]])
def test_no_command_says_a_password(tmp_path, url):
    arguments = [LAPSE, "report", url.replace("PW", canaries.PASSWORD)]
    done = subprocess.run(
        arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert canaries.PASSWORD not in done.stdout + done.stderr


def test_settings_show_no_secret(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    url = f"postgresql://u:{canaries.PASSWORD}@h/db"
    settings = load_settings(store_url=url)
    assert settings.store_url == url
    assert canaries.PASSWORD not in repr(settings) + str(settings)
    for name, field in Settings.model_fields.items():
        if not field.repr:
            with pytest.raises(SettingsError) as caught:
                load_settings(**{name: [canaries.PASSWORD]})
            assert canaries.PASSWORD not in str(caught.value)
