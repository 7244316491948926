"""`--quiet` of the commands on existing databases, on a terminal: only problems are printed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

import postgres
from serving import run
from terminal import run_on_terminal

NOTHING = (0, "", "")

IN_THE_WAY = """
INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
SELECT app_name, user_id, session_id, '{}', '2025-01-01 00:00:00', '2025-01-01 00:00:00'
FROM lapse_lobby"""

BOTH = pytest.mark.parametrize("stock_database_url", ["sqlite", "postgres"], indirect=True)

pytestmark = pytest.mark.long


@BOTH
def test_adopt_undo_and_copy_print_nothing_if_all_went_well(stock_database_url, tmp_path):
    """Seen to fail with a bar, with the run's id, and with the line of each copied table."""
    adopt = ("adopt", stock_database_url, "--yes", "--with-state", "--quiet")
    assert run_on_terminal(tmp_path, *adopt) == NOTHING
    assert run_on_terminal(tmp_path, *adopt) == NOTHING  # where nothing is left to adopt
    (found,) = runs(stock_database_url)
    assert found["sessions"] == found["remaining"] > 0
    undo = ("undo", stock_database_url, "--run", found["run"], "--quiet")
    assert run_on_terminal(tmp_path, *undo) == NOTHING
    assert run_on_terminal(tmp_path, *undo) == NOTHING  # where all were put back before
    (found,) = runs(stock_database_url)
    assert not found["remaining"]
    copy = ("copy", stock_database_url, f"sqlite:///{tmp_path}/copy.db", "--quiet")
    assert run_on_terminal(tmp_path, *copy) == NOTHING


@BOTH
def test_a_quiet_undo_tells_what_stays_in_the_lobby(stock_database_url, tmp_path):
    """Seen to fail with the sentence left out."""
    assert run("adopt", stock_database_url, "--yes", "--app", "zoo", "--quiet").returncode == 0
    do(stock_database_url, IN_THE_WAY)
    (found,) = runs(stock_database_url)
    status, out, shown = run_on_terminal(
        tmp_path, "undo", stock_database_url, "--run", found["run"], "--quiet"
    )
    assert (status, out) == (0, "")
    assert shown.strip() == "1 stay in the lobby: ADK's tables have a session of the same key"


@pytest.mark.parametrize(
    "arguments",
    [
        ["adopt", "--quiet"],
        ["adopt", "--quiet", "--yes", "--json"],
        ["adopt", "--quiet", "--yes", "--dry-run"],
        ["undo", "--quiet"],
        ["undo", "--quiet", "--run", "x", "--json"],
        ["copy", "sqlite:///a.db", "--quiet", "--json"],
    ],
    ids=" ".join,
)
def test_quiet_goes_with_nothing_that_prints_or_asks(arguments):
    refused = run(*arguments)
    assert refused.returncode == 2
    assert "--quiet" in refused.stderr


def do(url, statement):
    if url.startswith("postgres"):
        postgres.run(url, statement)
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)


def runs(url):
    return json.loads(run("undo", url, "--json").stdout)["runs"]
