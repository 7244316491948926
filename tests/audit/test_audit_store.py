"""Records of acts are written in the transaction of the act, and never changed."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import asyncpg
import pytest

import postgres
from backends import GONE, T0, TTL, create, key, note, use
from lapse.audit.store import Act
from lapse.core.errors import NoSuchSessionError, StoreUnavailableError, WrongStatusError
from lapse.core.lifecycle import Cause

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
        ("ann", "amended", {"metadata": True, "ttl_minutes": 30}),
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


async def test_the_store_refuses_to_change_a_record(store, reopen, store_url):
    await store.record_act("op", "swept", {})
    for statement in ("UPDATE lapse_audit SET principal = 'x'", "DELETE FROM lapse_audit"):
        with pytest.raises((sqlite3.IntegrityError, asyncpg.RaiseError), match="append-only"):
            _run(store_url, statement)
    assert await acts(store) == [("op", "swept", {})]


def _run(store_url, statement):
    scheme, _, path = store_url.partition(":///")
    if scheme != "sqlite":
        postgres.run(store_url, statement)
        return
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
