"""Replicas on a server without LISTEN, advisory locks and unlogged tables (`postgres.LACKING`)."""

import asyncio
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from roles import GRANT, clerk_of

from lapse.core.errors import StoreRefusedError
from lapse.store.options import PostgresFeature
from parts import store_with_parts
from postgres import blank, log, rows, run
from serving import AGENTS, Server, eventually, lapse

OPENER = Path(__file__).parents[1] / "faults" / "opener.py"
REPLICAS = 5
DATABASES = 3
WITHOUT = ",".join(PostgresFeature)
USES = {"LISTEN", "pg_notify", "pg_advisory", "CREATE UNLOGGED"}
LOG_ALL = """
DO $$ BEGIN
  EXECUTE format('ALTER DATABASE %I SET log_statement = ''all''', current_database());
END $$
"""


@pytest.fixture
def plain_url():
    """The URL of a database with nothing in it, which lacks all that a setting makes optional."""
    with blank(kind="plain") as url:
        yield url


async def _opener():
    return await asyncio.create_subprocess_exec(
        sys.executable, OPENER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


async def test_five_processes_can_open_one_empty_database_at_once():
    """Seen to fail with a row that is not locked, and if its table may be created once only."""
    openers = [await _opener() for _ in range(REPLICAS)]
    async with AsyncExitStack() as stack:
        for opener in openers:
            stack.push_async_callback(opener.communicate, b"")
        for opener in openers:
            assert await opener.stdout.readline() == b"ready\n"
        for _ in range(DATABASES):
            with blank(kind="plain") as url:
                for opener in openers:
                    opener.stdin.write(f"{url}\n".encode())
                said = [await opener.stdout.readline() for opener in openers]
                assert said == [b"came up\n"] * REPLICAS
                assert rows(url, "SELECT count(*) FROM lapse_lobby") == [(REPLICAS,)]


async def test_a_role_that_may_create_no_tables_is_told_to_migrate(plain_url):
    with clerk_of(plain_url) as (url, _):
        store = store_with_parts(url)
        with pytest.raises(StoreRefusedError, match=r"may not create them.*`lapse migrate"):
            await store.open()
        await store.close()
    assert rows(plain_url, "SELECT count(*) FROM pg_class WHERE relname ~ '^lapse'") == [(0,)]


async def test_a_role_that_may_create_no_tables_works_on_a_prepared_schema(plain_url, tmp_path):
    migrated = lapse(tmp_path, "migrate", "--store", plain_url, LAPSE_POSTGRES_WITHOUT=WITHOUT)
    assert migrated.returncode == 0, migrated.stderr
    with clerk_of(plain_url) as (url, name):
        run(plain_url, GRANT.format(name))
        store = store_with_parts(url)
        await store.open()
        await store.close()


@pytest.mark.parametrize("without", ["", WITHOUT], ids=["with all", "without"])
def test_two_servers_use_of_postgresql_what_the_setting_leaves(without, tmp_path):
    """The server's log has every statement.

    Seen to fail with a store that listens all the same, and with statements that notify.
    """
    with blank(kind="plain" if without else "test") as url, ExitStack() as stack:
        run(url, LOG_ALL)
        start = log().stat().st_size
        for _ in range(2):
            server = Server(tmp_path, str(AGENTS), "--store", url, LAPSE_POSTGRES_WITHOUT=without)
            stack.callback(server.stop)
            _use(server)
            if not without:
                eventually(lambda: log().read_text()[start:].count("LISTEN") >= 2)
        written = log().read_text()[start:]
    assert "INSERT INTO lapse_lobby" in written
    assert {use for use in USES if use in written} == (set() if without else USES)


def _use(server):
    """Create, speak, read notices, and let a session expire, as clients do."""
    session = server.create(options={"ttl_minutes": 0.01})
    with server.client.stream("GET", f"{server.path(session)}/lifecycle/events") as stream:
        lines = stream.iter_lines()
        assert any("expired" in line for line in lines)
    key = {"Idempotency-Key": "k-1"}
    made = [server.client.post(server.path(), headers=key, json={}).json()["id"] for _ in (1, 2)]
    assert made[0] == made[1]
    assert server.run(made[0]).status_code == 200
