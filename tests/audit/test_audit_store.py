"""Records of acts are written in the transaction of the act, and never changed."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import asyncpg
import pytest

import postgres
from backends import GONE, T0, TTL, create, key, message, note, use
from lapse.audit.store import Act
from lapse.core.errors import (
    NoSuchSessionError,
    OutdatedSessionError,
    StoreUnavailableError,
    WrongStatusError,
)
from lapse.core.lifecycle import Cause, ChangeKind
from lapse.store.operation import Dialect
from lapse.store.statements import read_statements

LATER = T0 + timedelta(minutes=10)
LONG = "01234567-89ab-cdef"


async def acts(store):
    return [(act.by, act.action, dict(act.detail)) for act in await store.acts(newest=99)][::-1]


async def test_acts_on_a_session_are_recorded_in_order(store):
    where = key(LONG)
    await create(store, where)
    await store.at(LATER).extend(where, by="op")
    await store.at(LATER).amend(where, metadata={"secret": "x"}, ttl=TTL, by="ann")
    await store.at(LATER).expire(where, by="op")
    await store.at(LATER).resurrect(where, cause=Cause.REQUEST, by="ann")
    await store.at(LATER).delete(where, by="bob")
    assert await acts(store) == [
        ("op", "extended", {}),
        ("ann", "amended", {"metadata": True, "ttlMinutes": 30}),
        ("op", "expired", {}),
        ("ann", "resurrected", {"cause": "request"}),
        ("bob", "deleted", {"status": "waiting"}),
    ]
    for act in await store.acts(newest=99):
        assert (act.at, act.app_name, act.session) == (LATER, "app", LONG[:8])


async def test_the_delete_of_a_used_session_is_recorded_once(store):
    await use(store)
    await store.at(LATER).delete(key(), by="ann")
    await store.at(LATER).delete(key(), by="ann")
    assert await acts(store) == [("ann", "deleted", {"status": "used"})]


async def test_the_delete_of_a_session_that_stock_adk_made_is_recorded(store, stock):
    await stock.create_session(app_name="app", user_id="ann", session_id="s1")
    await store.at(LATER).delete(key(), by="ann")
    assert await acts(store) == [("ann", "deleted", {"status": "orphan"})]


async def test_a_call_that_changes_nothing_is_not_recorded(store):
    await create(store, "living")
    await store.at(LATER).resurrect(key("living"), cause=Cause.REQUEST, by="ann")
    await create(store, "gone")
    await store.at(LATER).expire(key("gone"))
    await store.at(LATER).expire(key("gone"), by="op")
    with pytest.raises(WrongStatusError):
        await store.at(LATER).extend(key("gone"), by="op")
    with pytest.raises(NoSuchSessionError):
        await store.at(LATER).expire(key("never"), by="op")
    assert await store.at(LATER).delete(key("never"), by="op") == GONE
    # Nobody in particular, so nobody to record.
    await store.at(LATER).extend(key("living"))
    await store.at(LATER).delete(key("living"))
    assert await acts(store) == []


async def test_an_act_on_no_particular_session_is_recorded(store):
    await store.at(LATER).record_act("cli:root@host", "swept", {"expired": 3})
    (act,) = await store.acts(newest=9)
    assert act == Act(act.number, LATER, "cli:root@host", "swept", detail={"expired": 3})


async def test_acts_are_read_by_page_the_newest_first(store):
    for number in range(5):
        await store.record_act("op", f"a{number}", {})
    first = await store.acts(newest=2)
    assert [act.action for act in first] == ["a4", "a3"]
    rest = await store.acts(newest=9, before=first[-1].number)
    assert [act.action for act in rest] == ["a2", "a1", "a0"]
    assert await store.acts(newest=9, before=rest[-1].number) == []


async def test_a_change_whose_record_cannot_be_written_is_not_made(store):
    """Seen to fail with a record that is written by a transaction of its own."""
    revision = await create(store)
    await store.at(T0).append(key(), note(), revision)
    before = await store.at(LATER).lifecycle(key())
    later = store.at(LATER)
    for ask in (later.expire, later.extend, later.delete):
        with pytest.raises((sqlite3.Error, StoreUnavailableError, asyncpg.DataError)):
            await ask(key(), by=object())
    assert await store.at(LATER).lifecycle(key()) == before
    assert await acts(store) == []


COLUMNS = "lapse_audit (number, at, principal, action, detail)"
ROW = "(1, now(), 'x', 'x', '{}')"
UPSERT = "ON CONFLICT (number) DO UPDATE SET principal = 'x'"
CHANGES = {
    "sqlite": (
        f"INSERT OR REPLACE INTO {COLUMNS} VALUES (1, 0, 'x', 'x', '{{}}')",
        f"REPLACE INTO {COLUMNS} VALUES (1, 0, 'x', 'x', '{{}}')",
        f"INSERT INTO {COLUMNS} VALUES (1, 0, 'x', 'x', '{{}}') {UPSERT}",
        "UPDATE OR REPLACE lapse_audit SET number = 2",
    ),
    "postgresql": (
        "TRUNCATE lapse_audit",
        "TRUNCATE lapse_audit RESTART IDENTITY CASCADE",
        f"INSERT INTO {COLUMNS} OVERRIDING SYSTEM VALUE VALUES {ROW} {UPSERT}",
    ),
}
"""The ways to lose a record that each dialect has beside UPDATE and DELETE."""


async def test_the_store_refuses_to_change_a_record(store, reopen, store_url):
    """Seen to fail without `lapse_audit_no_replace`, and with no trigger on TRUNCATE."""
    await store.record_act("op", "swept", {})
    dialect = store_url.partition(":")[0]
    for statement in (
        "UPDATE lapse_audit SET principal = 'x'",
        "DELETE FROM lapse_audit",
        *CHANGES[dialect],
    ):
        with pytest.raises((sqlite3.IntegrityError, asyncpg.RaiseError), match="append-only"):
            _run(store_url, statement)
    assert await acts(store) == [("op", "swept", {})]
    await store.record_act("op", "confirmed", {})
    assert len(await acts(store)) == 2


async def test_acts_on_a_session_are_found_by_its_whole_key_also_after_its_end(store):
    """Seen to fail with a digest of the session's id alone."""
    await create(store, key(LONG))
    await create(store, key(LONG + "-2"))
    await create(store, key(LONG, "bob"))
    for by, name in (("op", key(LONG)), ("ep", key(LONG + "-2")), ("ap", key(LONG, "bob"))):
        await store.at(LATER).expire(name, by=by)
    for _ in range(30):
        await store.record_act("op", "swept", {})
    await store.at(LATER).delete(key(LONG), by="op")
    found = await store.acts_on(key(LONG), newest=9)
    assert [(act.by, act.action) for act in found] == [("op", "deleted"), ("op", "expired")]
    assert {act.digest for act in found} == {key(LONG).digest}
    assert await store.acts_on(key(LONG), newest=1) == found[:1]
    assert await store.acts_on(key("never"), newest=9) == []


async def test_acts_on_a_session_are_found_by_the_index(store, reopen, store_url):
    """Seen to fail without the index."""
    await store.record_act("op", "swept", {})
    dialect = Dialect.SQLITE if store_url.startswith("sqlite") else Dialect.POSTGRES
    statement = read_statements(dialect)["acts_on"]
    statement = statement.replace(":digest", "'0123456789abcdef'").replace(":newest", "9")
    if dialect is Dialect.SQLITE:
        with closing(sqlite3.connect(store_url.partition(":///")[2])) as connection:
            plan = str(connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall())
        assert "SCAN" not in plan
    else:
        connection = await asyncpg.connect(store_url)
        await connection.execute("SET enable_seqscan = off")
        plan = str(await connection.fetch(f"EXPLAIN {statement}"))
        await connection.close()
    assert "lapse_audit_session" in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan


# Appends.

RECORDED = {"by": "op", "action": "appended", "detail": {"message": True}}


async def test_an_append_is_recorded_with_the_event_and_only_once(store):
    revision = await create(store)
    later = store.at(LATER)
    done = await later.append_recorded(key(), message(at=LATER), revision, **RECORDED)
    assert [change.kind for change in done.changes] == [ChangeKind.USED]
    again = await later.append_recorded(key(), message(at=LATER), done.value.revision, **RECORDED)
    assert again.value.repeated
    with pytest.raises(NoSuchSessionError):
        await later.append_recorded(key("never"), message(at=LATER), revision, **RECORDED)
    with pytest.raises(OutdatedSessionError):
        await later.append_recorded(key(), message("m2", at=LATER), revision, **RECORDED)
    assert await acts(store) == [("op", "appended", {"message": True})]


async def test_an_event_whose_record_cannot_be_written_is_not_stored(store):
    """Seen to fail with a record that is written by a transaction of its own."""
    waiting, used = await create(store), await use(store, "used")
    broken = RECORDED | {"by": object()}
    for name, event, seen in (
        ("s1", message("m2", at=LATER), waiting),
        ("s1", note("n2", at=LATER), waiting),
        ("used", message("m2", at=LATER), used),
    ):
        before = await store.at(LATER).read(key(name))
        with pytest.raises((sqlite3.Error, StoreUnavailableError, asyncpg.DataError)):
            await store.at(LATER).append_recorded(key(name), event, seen, **broken)
        assert await store.at(LATER).read(key(name)) == before
    assert await acts(store) == []


async def test_a_recorded_message_that_meets_a_session_of_stock_adk_is_refused(store, stock):
    """Seen to fail on PostgreSQL without the savepoint: the transaction is broken then."""
    revision = await create(store)
    await stock.create_session(app_name="app", user_id="ann", session_id="s1")
    with pytest.raises(OutdatedSessionError):
        await store.at(LATER).append_recorded(key(), message(at=LATER), revision, **RECORDED)
    assert await acts(store) == []


def _run(store_url, statement):
    scheme, _, path = store_url.partition(":///")
    if scheme != "sqlite":
        postgres.run(store_url, statement)
        return
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
