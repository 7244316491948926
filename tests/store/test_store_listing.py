"""A user's sessions listed with their records, on every store."""

from datetime import timedelta

from adk_builders import message_event, state_event
from backends import DUE, HOUR, T0, TICK, TTL, create, key, message, note, use
from lapse.core.lifecycle import Status
from lapse.overview import listing
from lapse.overview.listing import ListStore

LATER = T0 + timedelta(minutes=10)
EVERY = tuple(Status)


async def told(store, now, statuses=EVERY, user="ann"):
    """Return ids and statuses, in order; each record is the one that `lifecycle` returns."""
    found = await ListStore(store.at(now)).list_with_records("app", user, statuses)
    for one in found:
        assert one.at == now
        assert one.lifecycle == await store.at(now).lifecycle(one.session.key)
    return [(one.session.key.session_id, str(one.lifecycle.status)) for one in found]


async def one_of_each(store):
    """Make a session of each status that Lapse gives; `gone` is no longer restorable at LATER."""
    await create(store, "gone", now=T0 - timedelta(days=3), ttl=TICK)
    await store.at(T0 - timedelta(days=3) + HOUR).expire_due(10)
    await create(store, "swept", now=T0, ttl=TICK)
    await store.at(T0 + TICK).expire_due(10)
    await create(store, "due", now=T0 + TICK, ttl=TICK)
    await use(store, "used", now=T0 + 2 * TICK)
    revision = await create(store, "held", now=T0 + 3 * TICK, metadata={"page": "/café"})
    await store.at(LATER).append(key("held"), note(at=LATER), revision)
    await create(store, "waits", now=T0 + 4 * TICK, state={"k": 1, "app:a": 2, "user:u": 3})
    await create(store, key("another", user="bob"), now=T0)


async def test_a_list_tells_the_status_of_each_session_in_adks_order(store):
    await one_of_each(store)
    assert await told(store, LATER) == [
        ("swept", "expired"), ("due", "expired"), ("used", "used"), ("waits", "waiting"),
        ("held", "waiting"),
    ]  # fmt: skip
    assert await told(store, LATER, [Status.EXPIRED]) == [("swept", "expired"), ("due", "expired")]
    assert await told(store, LATER, [Status.USED]) == [("used", "used")]
    assert await told(store, LATER, []) == []
    assert await told(store, LATER, user="bob") == [("another", "waiting")]


async def test_without_statuses_it_is_the_list_of_adk_with_records(store):
    await one_of_each(store)
    found = await ListStore(store.at(LATER)).list_with_records("app", "ann")
    assert [one.session for one in found] == list(await store.at(LATER).list("app", "ann"))
    assert [one.session.state for one in found][1] == {"k": 1, "app:a": 2, "user:u": 3}


async def test_a_session_reads_as_expired_from_the_very_instant_of_its_deadline(store):
    """Seen to fail with `<` for `<=` in the statement's status."""
    await create(store)
    assert await told(store, DUE - TICK) == [("s1", "waiting")]
    assert await told(store, DUE, [Status.WAITING]) == []
    assert await told(store, DUE) == [("s1", "expired")]


async def test_an_expired_session_is_listed_until_it_is_no_longer_restorable(store):
    await create(store)
    await store.at(DUE).expire_due(10)
    until = T0 + timedelta(hours=24)
    assert await told(store, until - TICK) == [("s1", "expired")]
    assert await told(store, until) == []


async def test_where_nothing_is_restorable_no_expired_session_is_listed(open_store):
    store = await open_store(horizon=timedelta(0))
    await create(store)
    assert await told(store, DUE - TICK) == [("s1", "waiting")]
    assert await told(store, DUE) == []


async def test_while_clean_up_is_disabled_the_list_has_what_adk_lists(reopen):
    """Seen to fail with statements that leave out what is no longer restorable."""
    await one_of_each(await reopen())
    store = await reopen(enforced=False)
    found = await ListStore(store.at(LATER)).list_with_records("app", "ann")
    assert [one.session for one in found] == list(await store.at(LATER).list("app", "ann"))
    assert ("due", "waiting") in await told(store, LATER, [Status.WAITING])


async def test_expired_sessions_are_bounded_and_the_most_recent_stay(store, monkeypatch):
    """Seen to fail without the bound, and with the oldest ones kept."""
    monkeypatch.setattr(listing, "MOST_EXPIRED", 3)
    for number in range(5):
        await create(store, f"e{number}", now=T0 + number * TICK, ttl=TICK)
        await create(store, f"w{number}", now=T0 + number * TICK)
    found = await told(store, LATER, [Status.EXPIRED, Status.WAITING])
    assert [name for name, status in found if status == "expired"] == ["e2", "e3", "e4"]
    assert len([name for name, status in found if status == "waiting"]) == 5


async def test_sessions_of_stock_adk_are_used_or_orphans_by_their_events(store, stock):
    """Seen to fail with every session of ADK's tables taken for a used one."""
    who = {"app_name": "app", "user_id": "ann"}
    spoken = await stock.create_session(**who, session_id="spoken")
    await stock.append_event(spoken, state_event({"a": 1}, timestamp=1000.0))
    await stock.append_event(spoken, message_event("hi", timestamp=1001.0))
    silent = await stock.create_session(**who, session_id="silent")
    await stock.append_event(silent, state_event({"a": 1}, timestamp=1002.0))
    assert await told(store, LATER) == [("spoken", "used"), ("silent", "orphan")]
    assert await told(store, LATER, [Status.ORPHAN]) == [("silent", "orphan")]


async def test_a_waiting_record_never_hides_the_session_of_the_same_key_in_adks_tables(
    store, stock
):
    await create(store)
    made = await stock.create_session(app_name="app", user_id="ann", session_id="s1")
    assert await told(store, LATER) == [("s1", "orphan")]
    await stock.append_event(made, message_event("hi", timestamp=1001.0))
    assert await told(store, DUE + TTL) == [("s1", "used")]


async def test_the_record_of_a_used_session_that_others_deleted_is_not_listed(store):
    await use(store)
    await store.at(LATER).append(key(), message("m2", at=LATER), (await store.read(key())).revision)
    await store.delete(key())
    assert await told(store, LATER) == []
