"""`docs/upgrading.md`: its commands, and what it says of old and new servers side by side."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from lapse.store.operation import Dialect
from lapse.store.schemas import newest_version
from lapse.store.statements import read_migrations
from lapse.testing.server import Server
from page_commands import run_commands

PAGE = (Path(__file__).parents[3] / "docs" / "upgrading.md").read_text("utf-8")


def test_the_commands_of_the_page_run_as_printed(tmp_path):
    (commands,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    done = run_commands(commands, tmp_path)
    assert "CREATE TABLE lapse_lobby" in done.stdout, done.stderr
    assert "the tables were brought up to date" in done.stdout
    assert re.search(r"schema\b.*ok|ok.*schema\b", done.stdout), done.stdout


@pytest.mark.long
async def test_an_old_server_goes_on_while_the_schema_is_upgraded_and_starts_no_more_on_it():
    """Seen to fail with a script that renames a column of the lobby."""
    async with Server() as server:
        await server.start()
        newer = newest_version(Dialect.SQLITE) + 1
        with closing(sqlite3.connect(server.store)) as connection, connection:
            connection.executescript(
                "ALTER TABLE lapse_lobby ADD COLUMN later TEXT; CREATE TABLE lapse_later (x TEXT);"
                f"INSERT INTO lapse_schema (version) VALUES ({newer});"
            )
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            made = await client.post("/apps/concierge/users/ada/sessions", json={})
            assert made.status_code == 200, made.text
            assert (await client.get("/readyz")).status_code == 200
        await server.stop()
        with pytest.raises(RuntimeError, match="newer Lapse"):
            await server.start()


@pytest.mark.parametrize("dialect", list(Dialect), ids=str)
def test_no_script_takes_a_column_or_a_table_away_or_touches_adks_tables(dialect):
    """Seen to fail with `ALTER TABLE lapse_lobby DROP COLUMN site` in the newest script."""
    takes = re.compile(
        r"\b(DROP (TABLE|COLUMN)|RENAME|TRUNCATE TABLE|ALTER COLUMN \w+ TYPE)\b", re.IGNORECASE
    )
    adks = re.compile(r"\b(ALTER|DROP|CREATE) TABLE (?!lapse_)(?!IF)\w", re.IGNORECASE)
    for number, script in read_migrations(dialect).items():
        assert not takes.search(script), number
        assert not adks.search(script), number
