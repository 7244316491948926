"""`lapse audit`, run as an operator runs it."""

from __future__ import annotations

import csv
import json
import re

import pytest

from lapse.core.keys import SessionKey
from lived_sessions import created
from parts import store_with_parts
from serving import lapse

pytestmark = pytest.mark.long

KEY = SessionKey("app", "ada", "0123456789abcdef")


def audit(folder, *arguments):
    return lapse(folder, "audit", *arguments, COLUMNS="160")


@pytest.fixture
async def folder_with_acts(tmp_path):
    """A folder whose store has two acts of an operator, and one of a user with a hostile name."""
    store = store_with_parts(f"sqlite:///{tmp_path}/lapse.db")
    await created(store, KEY)
    await store.expire(KEY, by="op")
    await store.delete(KEY, by="=cmd()\x1b[2J\n")
    await store.record_act("cli:root@host", "swept", {"expired": 3})
    await store.close()
    return tmp_path


def test_the_table_says_who_did_what_and_has_no_whole_session_id(folder_with_acts):
    done = audit(folder_with_acts)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if re.match(r" *\d{4}-", line)]
    assert [
        action in line for action, line in zip(("swept", "deleted", "expired"), lines, strict=True)
    ] == [True] * 3
    assert "01234567" in lines[2]
    assert "op" in lines[2]
    assert KEY.session_id not in done.stdout
    assert "\x1b[2J" not in done.stdout


def test_json_output_has_a_line_for_each_record_the_latest_first(folder_with_acts):
    records = [json.loads(line) for line in audit(folder_with_acts, "--json").stdout.splitlines()]
    assert [record["action"] for record in records] == ["swept", "deleted", "expired"]
    assert records[0]["detail"] == {"expired": 3}
    assert (records[0]["appName"], records[0]["session"]) == (None, None)
    assert (records[2]["by"], records[2]["session"]) == ("op", "01234567")
    rest = audit(folder_with_acts, "--json", "--newest", "1", "--before", str(records[0]["number"]))
    assert [json.loads(line) for line in rest.stdout.splitlines()] == [records[1]]


def test_the_csv_has_no_formula_that_a_spreadsheet_would_run(folder_with_acts):
    """Seen to fail with the cells as they are."""
    printed = audit(folder_with_acts, "--csv").stdout
    assert printed.startswith('"number","at","by"')
    rows = list(csv.DictReader(printed.splitlines()))
    assert [row["action"] for row in rows] == ["swept", "deleted", "expired"]
    assert rows[1]["by"] == r"'=cmd()\x1b[2J\n"
    assert rows[0]["detail"] == '{"expired": 3}'


def test_an_empty_record_is_reported_and_wrong_options_are_refused(tmp_path):
    assert "is empty or of an older version" in audit(tmp_path).stderr
    assert lapse(tmp_path, "migrate").returncode == 0
    assert "nothing is recorded" in audit(tmp_path).stdout
    assert audit(tmp_path, "--json", "--csv").returncode == 2
