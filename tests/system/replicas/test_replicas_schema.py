"""Many replicas on one empty database, and roles that may not create tables."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from roles import GRANT, clerk_of

from backends import key, message
from lapse.core.documents import StateDelta
from lapse.core.errors import StoreRefusedError
from parts import store_with_parts
from postgres import blank, prepare, rows, run
from serving import run as lapse

pytestmark = pytest.mark.long

OPENER = Path(__file__).parents[1] / "faults" / "opener.py"
DATABASES = 8


async def test_eight_replicas_can_open_one_empty_database_at_once():
    """The schema is made once.

    Seen to fail without the advisory lock.
    """
    openers = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            OPENER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(8)
    ]
    try:
        for opener in openers:
            assert await opener.stdout.readline() == b"ready\n"
        for _ in range(DATABASES):
            with blank() as url:
                for opener in openers:
                    opener.stdin.write(f"{url}\n".encode())
                said = [await opener.stdout.readline() for opener in openers]
                assert said == [b"came up\n"] * 8
                assert rows(url, "SELECT count(*) FROM lapse_lobby") == [(8,)]
    finally:
        for opener in openers:
            await opener.communicate(b"")
    assert [opener.returncode for opener in openers] == [0] * 8


async def test_a_role_that_may_create_no_tables_works_on_a_prepared_schema(empty_database_url):
    """Nothing is written where nothing is missing.

    Seen to fail with a store that says CREATE TABLE IF NOT EXISTS each time it opens.
    """
    prepare(empty_database_url)
    with clerk_of(empty_database_url) as (url, name):
        run(empty_database_url, GRANT.format(name))
        store = store_with_parts(url)
        await store.open()
        state = StateDelta(app={"a": 1}, user={"b": 2}, session={"c": 3})
        for session in ("s1", "s2"):
            await store.create(key(session), state=state, ttl=timedelta(0), metadata={})
        seen = (await store.expire_due(10)).changes
        assert len(seen) == 2
        created = await store.create(key("s2"), state=state, ttl=timedelta(hours=1), metadata={})
        revision = created.value.revision
        await store.append(key("s2"), message(at=created.changes[0].at), revision)
        assert (await store.delete(key("s2"))).changes
        assert (await store.delete(key("s1"))).changes
        await store.close()


@pytest.mark.parametrize("prepared", ["empty", "half"])
async def test_a_role_that_may_create_no_tables_is_told_to_migrate_an_unprepared_schema(
    empty_database_url, prepared
):
    if prepared == "half":
        prepare(empty_database_url)
        run(empty_database_url, "DROP TABLE lapse_lobby, lapse_schema CASCADE")
    with clerk_of(empty_database_url) as (url, name):
        run(empty_database_url, GRANT.format(name))
        before = rows(empty_database_url, "SELECT relname FROM pg_class ORDER BY 1")
        store = store_with_parts(url)
        with pytest.raises(StoreRefusedError, match=r"may not create them.*`lapse migrate"):
            await store.open()
        await store.close()
        assert rows(empty_database_url, "SELECT relname FROM pg_class ORDER BY 1") == before


def test_migrate_prints_its_statements_or_runs_them(empty_database_url):
    with clerk_of(empty_database_url) as (url, name):
        refused = lapse("migrate", "--store", url)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.count("\n") == 1
        assert "may not create them" in refused.stderr

        printed = lapse("migrate", "--print", "--store", url)
        assert (printed.returncode, printed.stderr) == (0, "")
        assert rows(empty_database_url, "SELECT to_regclass('lapse_lobby')") == [(None,)]

        done = lapse("migrate", "--store", empty_database_url)
        assert (done.returncode, done.stderr) == (0, "")
        assert "brought up to date" in done.stdout
        run(empty_database_url, GRANT.format(name))
        for store_url in (empty_database_url, url):
            assert lapse("migrate", "--store", store_url).stdout == "nothing to do\n"
        assert lapse("migrate", "--print", "--store", url).stdout == ""

    with blank() as other:
        run(other, printed.stdout)
        assert lapse("migrate", "--store", other).stdout == "nothing to do\n"
