"""Secrets are in no log of any format, in no answer, and not in `ps`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import canaries
import pytest

from lapse.core.errors import SettingsError
from lapse.settings import Settings, load_settings
from postgres import own_server
from serving import copied_agents, lapse, serving

pytestmark = pytest.mark.long

SECRETS = re.compile("canary-of-the-[a-z]+")
FORMATS = ["console", "json"]
BEGINS = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]+Z \[(debug|info|warning|error|critical) *\] "  # a line of ours
    r"|Lapse serves |lapse: "
    r"|  File \"|    |Traceback|[\w.]+(Error|Exception|Disconnect\w*)$|$|During |The above "
)


def agents(folder):
    return str(copied_agents(folder / "agents"))


@dataclass(frozen=True)
class ServerOutput:
    """A server's log, its answers, and its title in the list of processes."""

    log: str
    answers: list[str]
    process_title: str
    """The server's line in the list of processes."""


def process_title(server):
    return Path(f"/proc/{server.process.pid}/cmdline").read_bytes().decode()


def run_server(folder, identity, *arguments, store_ends=None, **settings):
    with serving(folder, agents(folder), "--verbose", *arguments, fresh=True, **settings) as server:
        answers = canaries.provoke(server, identity)
        if store_ends is not None:
            store_ends()
            lost = server.client.get(server.path("s"), headers=identity)
            assert lost.status_code == 503
            answers += [lost.text, server.client.get("/readyz").text]
        title = process_title(server)
        server.stop()
        return ServerOutput(server.log, answers, title)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Return the output of an open server on SQLite and of one with tokens on PostgreSQL.

    The second one loses its store, whose password stood on its command line.
    """
    console, machine = (tmp_path_factory.mktemp(style) for style in FORMATS)
    found = {"console": run_server(console, {})}
    with own_server() as own:
        url = own.url.replace("postgres@", f"postgres:{canaries.PASSWORD}@")
        found["json"] = run_server(
            machine,
            canaries.bearer("service"),
            *("--store", url),
            store_ends=lambda: own.stop("immediate"),
            LAPSE_LOG_FORMAT="json",
            **canaries.SETTINGS,
        )
    return found


@pytest.mark.parametrize("style", FORMATS)
def test_no_log_line_has_anything_that_users_sent(outputs, style):
    """Broken on purpose: with the quotations of exceptions left in, the text is there."""
    log = outputs[style].log
    assert "session" in log
    assert "RuntimeError" in log
    assert set(SECRETS.findall(log)) == set()


def test_text_from_outside_cannot_break_a_console_log_line(outputs):
    """Broken on purpose: with `visible` taken out of the formatter a forged line is there."""
    log = outputs["console"].log
    assert "\x1b" not in log
    for line in re.split("[\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]", log):
        assert BEGINS.match(line), line


def test_text_from_outside_cannot_break_a_json_log_line(outputs):
    log = outputs["json"].log
    for line in log.split("\n"):
        if line and not line.startswith(("Lapse serves", "lapse: ")):
            assert json.loads(line)["level"] in {"debug", "info", "warning", "error"}
    assert not set(log) & set("\x1b\u2028\u2029\x85")


def test_no_answer_has_a_secret_or_a_traceback(outputs):
    secrets = {f"canary-of-the-{name}" for name in ("token", "cookie", "key", "signing")}
    for output in outputs.values():
        for told in output.answers:
            assert not set(SECRETS.findall(told)) & (secrets | {canaries.PASSWORD})
            assert "Traceback" not in told


def test_the_process_list_shows_no_password(outputs):
    """Broken on purpose: with the title left alone `ps` shows it to every user of the machine."""
    assert canaries.PASSWORD not in outputs["json"].process_title
    assert "postgres:***@" in outputs["json"].process_title
    assert "LAPSE_STORE_URL" in outputs["json"].log


def test_a_token_is_in_no_log_and_no_answer(outputs):
    for part in canaries.bearer("service")["Authorization"].split(".")[:2]:
        assert part.removeprefix("Bearer ") not in outputs["json"].log
    assert "issuer.test" not in outputs["json"].log


URLS = [
    "mysql://u:PW@127.0.0.1:1/db",
    "postgresql://u:PW@127.0.0.1:1/db",
    "postgresql://u:PW@127.0.0.1:nope/db",
    "postgresql://u:x#PW@127.0.0.1:1/db",
    "postgresql://u:x?PW@127.0.0.1:1/db",
    "postgresql://u:x/PW@127.0.0.1:1/db",
    "postgresql://u:x@PW@127.0.0.1:1/db",
    "postgresql://u:x@y:PW@127.0.0.1:1/db",
    "postgresql://u:PW",
    "postgresql://u:x@127.0.0.1:1/db?port=PW",
    "postgresql://u:x@127.0.0.1:1/db?sslmode=PW",
    "postgresql://u:x@127.0.0.1:1/db?sslmode=require&sslpassword=PW&sslcert=/no&sslkey=/no",
    "postgresql://u:[PW@127.0.0.1:1/db",
    "postgresql:/u:PW@127.0.0.1:1/db",
    "postgresql//u:PW@127.0.0.1:1/db",
    "sqlite://u:PW@127.0.0.1:1/db",
]


@pytest.mark.parametrize("url", URLS)
async def test_no_error_about_a_store_has_its_password(url):
    """Broken on purpose: without the look at the URL the driver quotes the parts it fell over."""
    from lapse.core.errors import LapseError
    from parts import store_with_parts

    async def opened():
        store = store_with_parts(url.replace("PW", canaries.PASSWORD))
        try:
            await store.open()
        finally:
            await store.close()

    with pytest.raises(LapseError) as caught:
        await opened()
    assert canaries.PASSWORD not in str(caught.value) + repr(caught.value)


def told_by(folder, *arguments, **settings):
    """Return what a command that fails prints."""
    done = lapse(folder, *arguments, **settings)
    assert done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("url", [URLS[0], URLS[3], URLS[7]])
def test_no_command_prints_a_password(tmp_path, url):
    told = told_by(tmp_path, "report", url.replace("PW", canaries.PASSWORD))
    assert canaries.PASSWORD not in told


@pytest.mark.parametrize("command", ["serve", "check", "stats", "migrate"])
def test_no_command_shows_the_password_of_a_store_whose_url_it_cannot_read(tmp_path, command):
    """Seen to fail with a look at the last `@` alone: a traceback of the driver quoted it."""
    url = URLS[7].replace("PW", canaries.PASSWORD)
    told = told_by(tmp_path, command, LAPSE_STORE_URL=url)
    assert "is not a URL" in told
    assert canaries.PASSWORD not in told
    assert "Traceback" not in told


def test_no_command_shows_the_password_in_the_url_of_the_issuers_keys(tmp_path):
    """Seen to fail when the URL is quoted."""
    settings = dict.fromkeys(("LAPSE_JWT_ISSUER", "LAPSE_JWT_AUDIENCE"), "x")
    url = f"http://u:{canaries.PASSWORD}@issuer.test/jwks.json"
    told = told_by(tmp_path, "check", LAPSE_AUTH="jwt", LAPSE_JWT_JWKS_URL=url, **settings)
    assert "LAPSE_JWT_JWKS_URL: must be https://" in told
    assert canaries.PASSWORD not in told


def test_the_repr_of_settings_shows_no_secret(monkeypatch, tmp_path):
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
