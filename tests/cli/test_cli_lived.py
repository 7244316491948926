"""Every command on sessions as users make them: none fails, and each prints what there is."""

from __future__ import annotations

import json
import re

import pytest
import typer

from backends import BACKENDS
from calling import Caller
from json_style import faults
from lapse.cli.main import app as commands
from lapse.core.keys import SessionKey
from lived_sessions import METADATA, STATUSES, USER, key_of, lived
from serving import AGENTS, serving

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # what ADK calls itself
]

WIDTH = 80
LONG_WORD = re.compile(r"\S{41,}")
"""A key, a URL, a path, a checksum."""

BROKEN_TIME = re.compile(r"\d{4}-\d\d-\d\d(?! \d\d:\d\d)")


@pytest.fixture(
    scope="module",
    params=[backend for backend in BACKENDS if backend.shared],
    ids=lambda one: one.name,
)
def life(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lived")
    with request.param.empty(folder) as url, lived(url, folder) as found:
        yield found


@pytest.fixture
def lapse(life, monkeypatch, capsys, tmp_path):
    """The command line beside the server, on a terminal of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    (tmp_path / "policy.toml").write_text('[default]\nidle = "9000d"\n', "utf-8")
    monkeypatch.setenv("LAPSE_RETENTION_FILE", "policy.toml")
    return Caller(monkeypatch, capsys, life.url)


def done(caller, *arguments):
    """Run a command that must succeed without a word on a fault; return what it printed."""
    found = caller(*arguments)
    assert found.status == 0, found.err
    assert "Traceback" not in found.out + found.err
    return found.out


@pytest.mark.parametrize(("name", "status"), STATUSES.items())
def test_each_session_is_shown_whatever_its_status_and_its_metadata(lapse, life, name, status):
    """Seen to fail with `json.dumps(record.metadata)`: metadata that is read is no plain dict."""
    key = lapse_key(name)
    told = json.loads(done(lapse, "show", key, "--json"))
    assert told["status"] == status
    assert told | {"serverTime": ""} == life.record(name) | {"serverTime": ""}
    said = done(lapse, "show", key)
    assert f": {status}\n" in said
    assert "created" in said
    if told["metadata"]:
        printed = "".join(line.strip() for line in said.partition("  metadata ")[2].splitlines())
        assert printed.replace(" ", "") == json.dumps(told["metadata"]).replace(" ", "")
    assert not [line for line in said.splitlines()[1:] if len(line) > WIDTH]


def lapse_key(name):
    """Return a session's key as `lapse show` takes it."""
    return "/".join(key_of(name))


@pytest.mark.parametrize("name", ["was-deleted", "was-purged"])
def test_a_session_that_is_no_more_is_told_to_be_gone(lapse, name):
    assert lapse("show", lapse_key(name)).status == 4


def test_what_only_the_agent_said_is_told(lapse):
    assert "only the agent spoke" in done(lapse, "show", lapse_key("greeted"))
    assert "in 1 of the waiting sessions only the agent spoke" in done(lapse, "stats")


def test_the_list_has_every_session_that_lapse_has_a_record_of(lapse):
    expected = {name: status for name, status in STATUSES.items() if "stock-adk" not in name}
    found = [
        one
        for one in json.loads(done(lapse, "sessions", "--limit", "500", "--json"))["sessions"]
        if one["appName"] != "shop" and not one["sessionId"].startswith("crowd")
    ]
    crowd = [name for name in expected if name.startswith("crowd")]
    for name in crowd:
        del expected[name]
    assert {one["sessionId"]: one["status"] for one in found} == expected
    lines = done(lapse, "sessions", "--app", "worker").splitlines()
    lines += done(lapse, "sessions", "--app", "greeter").splitlines()
    assert len(lines) >= len(expected)
    for line in lines:
        assert lapse("show", line.split("\t")[-1]).status == 0, line


@pytest.mark.parametrize("command", ["stats", "audit", "report", "ttl show"])
def test_a_table_fits_80_columns_with_its_times_and_numbers_in_one_piece(lapse, life, command):
    """Seen to fail with tables that let every column shrink."""
    said = done(lapse, *command.split(), *([life.url] if command == "report" else []))
    rows = [line for line in said.splitlines() if "  " in line.strip()]
    assert rows
    assert max(map(len, rows)) <= WIDTH
    assert not any(BROKEN_TIME.search(line) for line in rows)


def test_the_numbers_of_stats_stay_whole_however_large(lapse, monkeypatch):
    counts = {"waiting": 123_456, "used": 1_234_567, "expired": 123_456}
    changes = {"created": 1_234_567, "used": 123_456, "resurrected": 12_345}
    of_one = {"sessions": counts, "changes": changes, "agentOnly": 0, "unrecorded": 0}
    document = {"apps": [{"appName": "customer-support-agent-of-the-shop", **of_one}], **of_one}
    monkeypatch.setattr("lapse.overview.json.overview_json", lambda *_, **__: document)
    said = done(lapse, "stats")
    assert said.count("1,234,567") == 4, said
    assert max(len(line) for line in said.splitlines() if "123,456" in line) <= WIDTH


def json_calls(life, folder):
    """Return a call of each command that prints JSON, in the order in which they are run."""
    url, copied = life.url, f"sqlite:///{folder}/copied.db"
    gone, waits = lapse_key("gone"), lapse_key("gone")
    return {
        "stats": [["stats"]],
        "sessions": [["sessions"]],
        "show": [["show", lapse_key(name)] for name in STATUSES],
        "resurrect": [["resurrect", gone]],
        "expire": [["expire", waits]],
        "sweep": [["sweep", "--dry-run"], ["sweep"]],
        "audit": [["audit"]],
        "check": [["check"]],
        "report": [["report", url]],
        "adopt": [
            ["adopt", url, "--dry-run"],
            ["adopt", url, "--yes", "--with-events", "--with-state", "--run", "mine"],
        ],
        "undo": [["undo", url], ["undo", url, "--run", "mine"]],
        "copy": [["copy", url, copied]],
        "migrate": [["migrate", "--from-v0", "--dry-run"], ["migrate", "--from-v0"]],
        "simulate": [
            ["simulate", "--generator", "mixture", "--days", "3", "--per-day", "50", "--fixed", "5"]
        ],
        "export": [["export", "--user", USER, "--out", f"{folder}/exported"]],
        "import": [["import", f"{folder}/exported", "--store", f"sqlite:///{folder}/imported.db"]],
        "erase": [["erase", "--user", USER]],
        "retention check": [["retention", "check"]],
        "hold list": [["hold", "list"]],
    }


def test_every_command_prints_its_json_in_one_style(lapse, life, tmp_path):
    """Seen to fail with `began_at`, `put_back`, `soft_miss_rate` and times with `+00:00`."""
    calls = json_calls(life, tmp_path)
    group = typer.main.get_command(commands)
    with_json = {
        name for name, command in named_commands(group) if any(
            "--json" in option.opts for option in command.params
        )
    }  # fmt: skip
    assert with_json == set(calls), "a call of each"
    for name, of_one in calls.items():
        for arguments in of_one:
            found = lapse(*arguments, "--json")
            assert found.status in {0, 3}, found.err
            documents = found.out.splitlines() if name == "audit" else [found.out]
            for document in map(json.loads, documents):
                assert list(faults(document)) == [], arguments


def other_calls(life, folder):
    """Return a call of each command that prints no JSON, with a word that it prints."""
    return {
        "migrate": (["migrate"], "nothing to do"),
        "ttl show": (["ttl", "show", "--png", f"{folder}/curves.png"], "shop"),
        "ttl explain": (["ttl", "explain"], "first messages"),
        "ttl reset-window": (["ttl", "reset-window", "--app", "shop"], "shop/trial: days before"),
        "retention confirm": (["retention", "confirm", "--yes"], "confirmed"),
        "hold set": (["hold", "set", lapse_key("waits"), "--reason", "a dispute"], "on hold"),
        "hold release": (["hold", "release", lapse_key("waits")], "released"),
    }


def test_every_other_command_prints_what_there_is(lapse, life, tmp_path):
    calls = other_calls(life, tmp_path)
    names = {name for name, _ in named_commands(typer.main.get_command(commands))}
    # `lapse serve` is tried below; `lapse verify` makes sessions of its own, by the routes.
    assert names == {*json_calls(life, tmp_path), *calls, "serve", "verify"}, "a call of each"
    for arguments, word in calls.values():
        assert word in done(lapse, *arguments)


def test_nothing_that_a_command_prints_is_wider_than_80_columns_but_keys(
    lapse, life, tmp_path, request
):
    """A key, or a URL, is never cut: it is what the next command is given; sentences may be long.

    Seen to fail with `ttl show` and `report` as they were, which cut an app's name and titles.
    """
    key = SessionKey("worker", "u" * 60, "s" * 60)
    long = f"/apps/{key.app_name}/users/{key.user_id}/sessions"
    life.client.post(long, json={"sessionId": key.session_id}).raise_for_status()
    request.addfinalizer(lambda: life.client.delete(f"{long}/{key.session_id}").raise_for_status())
    calls = [arguments for of_one in json_calls(life, tmp_path).values() for arguments in of_one]
    calls += [arguments for arguments, _ in other_calls(life, tmp_path).values()]
    calls += [
        ["show", "/".join(key)],
        ["sessions", "--user", key.user_id],
        ["erase", "--user", key.user_id],
    ]
    wide = []
    for arguments in calls:
        found = lapse(*arguments)
        assert found.status in {0, 3}, (arguments, found.err)
        if arguments[0] == "check":
            continue  # it prints sentences
        wide += [
            (arguments[0], line)
            for line in found.out.splitlines()
            if "  " in line.strip() and ("…" in line or len(LONG_WORD.sub("", line)) > WIDTH)
        ]
    assert not wide, "\n".join(map(str, wide))


def test_a_server_that_starts_on_the_store_tells_the_same(life, tmp_path):
    with serving(tmp_path, str(AGENTS), LAPSE_STORE_URL=life.url) as server:
        for name in STATUSES:
            told = server.client.get(f"{life.path(name)}/lifecycle")
            assert told.status_code in {200, 404}, "the apps of this server are others"
        assert server.metric('lapse_sessions{app="worker",status="used"}') > 0


def named_commands(group):
    """Yield every command with its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", one) for inner, one in named_commands(command))
        else:
            yield name, command


def test_an_adoption_takes_what_stock_adk_left_and_the_undo_puts_it_back(lapse, life):
    before = life.client.get(life.path("empty-of-stock-adk")).json()
    taken = json.loads(
        done(lapse, "adopt", life.url, "--yes", "--with-events", "--with-state", "--json")
    )
    assert taken["adopted"] == 1
    assert json.loads(done(lapse, "show", lapse_key("empty-of-stock-adk"), "--json"))["ttlMinutes"]
    back = json.loads(done(lapse, "undo", life.url, "--run", taken["run"], "--json"))
    assert (back["putBack"], back["remaining"]) == (1, 0)
    assert life.client.get(life.path("empty-of-stock-adk")).json() == before


def test_a_copy_has_everything_that_was_there(lapse, life, tmp_path):
    copied = f"sqlite:///{tmp_path}/copied.db"
    assert "on both sides" in done(lapse, "copy", life.url, copied)
    for name in STATUSES:
        told = [
            json.loads(done(lapse, "show", lapse_key(name), "--store", url, "--json"))
            for url in (life.url, copied)
        ]
        assert told[0] | {"serverTime": ""} == told[1] | {"serverTime": ""}, name
        if name == "waits":
            told_of_waits = told[1]
    assert METADATA.items() <= told_of_waits["metadata"].items()


def test_acts_by_hand_are_in_the_audit_in_every_format(lapse):
    waits = lapse_key("has-a-file")
    assert "expired" in done(lapse, "expire", waits)
    assert "waiting" in done(lapse, "resurrect", waits)
    for option in ([], ["--json"], ["--csv"]):
        said = done(lapse, "audit", *option)
        assert said.count("has-a-fi") >= 2
        assert "has-a-file" not in said
