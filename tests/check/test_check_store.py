"""An inspection of a store before it is opened."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

import postgres
from backends import T0, create
from lapse.core.errors import StoreRefusedError
from lapse.store.operation import Dialect
from lapse.store.statements import read_statements
from parts import store_with_parts

MOMENT = timedelta(microseconds=1)


def spoil(store_url, *commands):
    """Change a store behind Lapse's back."""
    if store_url.startswith("postgresql"):
        postgres.run(store_url, *commands)
        return
    with closing(sqlite3.connect(store_url.removeprefix("sqlite:///"))) as connection, connection:
        for command in commands:
            connection.execute(command)


async def test_a_healthy_store_has_no_faults(store):
    await create(store, now=None)
    found = await store.inspect()
    assert found.version == found.newest > 0
    assert (found.missing_indexes, found.used_but_expired) == ([], 0)
    assert (found.expire, found.purge) == (0, 0)


async def test_an_inspection_counts_what_the_next_sweep_would_take(store):
    await create(store, "old", now=T0 - timedelta(days=9999))
    await store.at(T0 - timedelta(days=9998)).expire_due(10)
    await create(store, "due", ttl=MOMENT, now=None)
    found = await store.inspect(most=9)
    assert (found.expire, found.purge) == (1, 1)
    assert (await store.inspect(most=9)).expire == 1, "to look changes nothing"


async def test_a_missing_index_is_named(reopen, store_url):
    store = await reopen()
    if store_url.startswith("postgresql"):
        with postgres.blank() as own:
            postgres.prepare(own)
            spoil(own, "DROP INDEX lapse_lobby_deadline")
            other = store_with_parts(own)
            assert (await other.inspect()).missing_indexes == ["lapse_lobby_deadline"]
            await other.close()
        return
    spoil(store_url, "DROP INDEX lapse_lobby_deadline")
    assert (await store.inspect()).missing_indexes == ["lapse_lobby_deadline"]


async def test_a_used_session_that_counts_as_expired_is_found(reopen, store_url):
    store = await reopen()
    await create(store, ttl=MOMENT, now=None)
    await store.expire_due(10)
    spoil(store_url, "UPDATE lapse_lobby SET first_message_at = created_at")
    assert (await store.inspect(most=9)).used_but_expired == 1
    assert (await store.overview(since=timedelta(hours=1))).used_but_expired == 1
    assert (await store.overview(since=timedelta(hours=1), by_app=False)).used_but_expired == 1


async def test_used_sessions_that_count_as_expired_are_found_by_an_index(reopen, store_url):
    """So the operators' overview does not read the expired sessions. Seen to fail without it.

    Nor does it read the waiting ones for those in which only the agent spoke: seen to fail on
    SQLite with the choice left to it.
    """
    store = await reopen()
    await create(store, ttl=MOMENT, now=None)
    await store.expire_due(10)
    dialect = Dialect.SQLITE if store_url.startswith("sqlite") else Dialect.POSTGRES
    if dialect is Dialect.SQLITE:
        statements = read_statements(dialect)
        names = ("moments", "agent_only", "agent_only_of_all")
        with closing(sqlite3.connect(store_url.partition(":///")[2])) as connection:
            plan = str(
                [
                    connection.execute(f"EXPLAIN QUERY PLAN {statements[name]}").fetchall()
                    for name in names
                ]
            )
        assert plan.count("lapse_lobby_agent_spoke") == 2
    else:
        statement = read_statements(dialect)["overview"]
        statement = statement.replace(":now", "NULL::timestamptz")
        statement = statement.replace(":max_age", "'1 hour'::interval")
        postgres.run(store_url, "ANALYZE lapse_lobby")  # it may have been, and the table is small
        plan = str(postgres.rows(f"{store_url}&enable_seqscan=off", f"EXPLAIN {statement}"))
    assert "lapse_lobby_used_expired" in plan


def in_folder(folder):
    return list(folder.iterdir())


async def test_inspecting_a_missing_file_does_not_create_it(tmp_path):
    assert (await store_with_parts(f"sqlite:///{tmp_path}/none.db").inspect()).version == 0
    assert in_folder(tmp_path) == []
    with pytest.raises(StoreRefusedError, match="its directory does not exist"):
        await store_with_parts(f"sqlite:///{tmp_path}/no/such.db").inspect()


async def test_inspecting_an_empty_database_creates_no_table():
    with postgres.blank() as url:
        store = store_with_parts(url)
        assert (await store.inspect()).version == 0
        assert postgres.rows(url, "SELECT to_regclass('lapse_lobby')") == [(None,)]
        await store.close()
