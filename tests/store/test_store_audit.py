"""The records of acts: written with what was done, never without, and never changed."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import asyncpg
import pytest

import postgres
from backends import T0, TTL, create, key, note, use
from lapse.audit import Act
from lapse.errors import NoSuchSessionError, StoreUnavailableError, WrongStatusError
from lapse.lifecycle import Cause

LATER = T0 + timedelta(minutes=10)
LONG = "01234567-89ab-cdef"


async def acts(store):
    return [(act.by, act.action, dict(act.detail)) for act in await store.acts(newest=99)][::-1]


async def test_what_somebody_does_to_a_session_is_recorded_in_order(store):
    where = key(LONG)
    await create(store, where)
    await store.extend(where, by="op", now=LATER)
    await store.amend(where, metadata={"secret": "x"}, ttl=TTL, by="ann", now=LATER)
    await store.expire(where, by="op", now=LATER)
    await store.resurrect(where, cause=Cause.REQUEST, by="ann", now=LATER)
    await store.delete(where, by="bob", now=LATER)
    assert await acts(store) == [
        ("op", "extended", {}),
        ("ann", "amended", {"metadata": True, "ttl_minutes": 30}),
        ("op", "expired", {}),
        ("ann", "resurrected", {"cause": "request"}),
        ("bob", "deleted", {"status": "waiting"}),
    ]
    for act in await store.acts(newest=99):
        assert (act.at, act.app_name, act.session) == (LATER, "app", LONG[:8])


async def test_the_delete_of_a_used_session_is_recorded_once(store):
    await use(store)
    await store.delete(key(), by="ann", now=LATER)
    await store.delete(key(), by="ann", now=LATER)
    assert await acts(store) == [("ann", "deleted", {"status": "used"})]


async def test_the_delete_of_a_session_that_stock_adk_made_is_recorded(store, stock):
    await stock.create_session(app_name="app", user_id="ann", session_id="s1")
    await store.delete(key(), by="ann", now=LATER)
    assert await acts(store) == [("ann", "deleted", {"status": "orphan"})]


async def test_what_changes_nothing_leaves_no_record(store):
    await create(store, "living")
    await store.resurrect(key("living"), cause=Cause.REQUEST, by="ann", now=LATER)
    await create(store, "gone")
    await store.expire(key("gone"), now=LATER)
    await store.expire(key("gone"), by="op", now=LATER)
    with pytest.raises(WrongStatusError):
        await store.extend(key("gone"), by="op", now=LATER)
    with pytest.raises(NoSuchSessionError):
        await store.expire(key("never"), by="op", now=LATER)
    assert await store.delete(key("never"), by="op", now=LATER) is None
    # Nobody in particular, so nobody to record.
    await store.extend(key("living"), now=LATER)
    await store.delete(key("living"), now=LATER)
    assert await acts(store) == []


async def test_an_act_about_no_session_is_recorded(store):
    await store.record_act("cli:root@host", "swept", {"expired": 3}, now=LATER)
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
    await store.append(key(), note(), revision, now=T0)
    before = await store.lifecycle(key(), now=LATER)
    for ask in (store.expire, store.extend, store.delete):
        with pytest.raises((sqlite3.Error, StoreUnavailableError, asyncpg.DataError)):
            await ask(key(), by=object(), now=LATER)
    assert await store.lifecycle(key(), now=LATER) == before
    assert await acts(store) == []


async def test_the_store_refuses_to_change_a_record(store, reopen, place):
    await store.record_act("op", "swept", {})
    for statement in ("UPDATE lapse_audit SET principal = 'x'", "DELETE FROM lapse_audit"):
        with pytest.raises((sqlite3.IntegrityError, asyncpg.RaiseError), match="append-only"):
            _run(place, statement)
    assert await acts(store) == [("op", "swept", {})]


def _run(place, statement):
    scheme, _, path = place.partition(":///")
    if scheme != "sqlite":
        postgres.run(place, statement)
        return
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
