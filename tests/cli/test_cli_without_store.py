"""Commands where there is no store yet, and what they print on a terminal."""

from __future__ import annotations

import subprocess
from datetime import timedelta

import pytest
from test_cli_commands import imported

from calling import Caller
from serving import LAPSE, environment
from terminal import run_on_terminal

MOMENT = timedelta(milliseconds=1)


@pytest.fixture
def lapse_without_store(monkeypatch, capsys, tmp_path):
    """The command line in an empty folder, without a store."""
    monkeypatch.chdir(tmp_path)
    return Caller(monkeypatch, capsys, "sqlite:///none.db")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["stats"], ["sessions"], ["show", "x"], ["expire", "x"], ["sweep", "--dry-run"]),
        *(["audit"], ["ttl", "show"], ["ttl", "explain"], ["ttl", "reset-window"]),
        *(["undo"], ["undo", "--run", "x"], ["simulate", "--from-store", "sqlite:///none.db"]),
    ],
)
def test_commands_that_only_read_create_no_store(lapse_without_store, tmp_path, arguments):
    """Seen to fail with `lapse undo` and `lapse ttl show` as they were: they made a store."""
    refused = lapse_without_store(*arguments)
    assert refused.status == 1
    assert f"sqlite:///{tmp_path}/none.db: this store is empty" in refused.err
    assert "is it the right one" in refused.err
    assert list(tmp_path.iterdir()) == []


def test_a_check_before_the_first_start_is_no_problem(lapse_without_store, tmp_path):
    found = lapse_without_store("check")
    assert found.status == 0
    assert "the next start creates the tables" in found.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://nobody@127.0.0.1:1/none", "PostgreSQL (postgresql://127.0.0.1:1/none): "),
        ("oracle://x", "must be sqlite:///FILE or"),
        ("sqlite:///no/such/folder/lapse.db", "its directory does not exist"),
    ],
)
def test_a_check_of_a_store_that_cannot_be_reached_says_why(lapse_without_store, url, says):
    found = lapse_without_store("check", "--store", url)
    assert found.status == 3
    assert says in found.out
    assert "→" in found.out


def test_the_help_loads_neither_settings_nor_a_store(tmp_path):
    """What `lapse --help` costs is what it imports."""
    modules = imported(tmp_path, "--help")
    heavy = {
        "asyncio",
        "pydantic",
        "sqlite3",
        "asyncpg",
        "prometheus_client",
        "opentelemetry",
    }
    ours = {
        "lapse.settings",
        "lapse.store.sessions",
        "lapse.store",
        "lapse.telemetry.logs",
        "lapse.sweep.sweeper",
    }
    assert not modules & (heavy | ours)


def test_a_shell_completes_commands(tmp_path):
    asked = {"_LAPSE_COMPLETE": "complete_bash", "COMP_WORDS": "lapse res", "COMP_CWORD": "1"}
    done = subprocess.run(
        [LAPSE], env=environment(**asked), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["resurrect"]


def test_a_long_sweep_shows_how_far_it_has_come_on_a_terminal(lapse_without_store, tmp_path):
    lapse_without_store.url = f"sqlite:///{tmp_path}/lapse.db"
    lapse_without_store.create(*(f"s{number}" for number in range(1200)), ttl=MOMENT)
    status, out, shown = run_on_terminal(tmp_path, "sweep")
    assert (status, out) == (0, "expired 1200, purged 0, kept 0\n")
    assert "sweeping" in shown
    assert "1200/1200" in shown
    assert "session expired" not in shown
