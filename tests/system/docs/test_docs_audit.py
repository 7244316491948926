"""The statements that prune the audit's records, run as printed."""

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

import postgres
from backends import BACKENDS
from parts import store_with_parts

PAGE = (Path(__file__).parents[3] / "docs" / "audit.md").read_text("utf-8")


def run(url, script):
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite":
        postgres.run(url, script)
        return
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


@pytest.mark.parametrize(("name", "title"), [("sqlite", "SQLite"), ("postgres", "PostgreSQL")])
async def test_records_of_more_than_a_year_ago_can_be_pruned_and_no_others(name, title, tmp_path):
    (backend,) = (backend for backend in BACKENDS if backend.name == name)
    (script,) = re.findall(rf"```sql\n(-- {title}.*?)```", PAGE, re.DOTALL)
    with backend.empty(tmp_path) as url:
        store = store_with_parts(url)
        await store.at(datetime.now(UTC) - timedelta(days=366)).record_act("op", "old", {})
        await store.at(datetime.now(UTC) - timedelta(days=364)).record_act("op", "young", {})
        run(url, script)
        assert [act.action for act in await store.acts(newest=9)] == ["young"]
        await store.close()
        with pytest.raises((sqlite3.IntegrityError, asyncpg.RaiseError), match="append-only"):
            run(url, "DELETE FROM lapse_audit")
