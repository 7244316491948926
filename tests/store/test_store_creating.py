"""Creating, reading and listing sessions; the state of all three scopes; opening and closing."""

from datetime import timedelta

import pytest

from backends import DUE, GONE, HOUR, T0, TICK, TTL, create, ids, key, listed, message, note, use
from lapse.core.documents import split_state
from lapse.core.errors import SessionExistsError, StoreUnavailableError
from lapse.core.lifecycle import Cause, Change, ChangeKind, Lifecycle, Status
from lapse.store.records import EventWindow, Revision
from parts import store_with_parts


async def test_create_returns_the_session_and_the_change_exactly(store):
    created = await store.at(T0).create(
        key(),
        state=split_state({"topic": "tea", "app:tone": "dry", "user:name": "Ann", "temp:x": 1}),
        ttl=TTL,
        metadata={"kind": "canonical-session"},
    )
    assert created.value.key == key()
    assert created.value.state == {"topic": "tea", "app:tone": "dry", "user:name": "Ann"}
    assert created.value.revision == Revision(T0, 0)
    assert created.value.events == ()
    record = Lifecycle(
        key=key(),
        status=Status.WAITING,
        created_at=T0,
        ttl=TTL,
        expires_at=DUE,
        restorable_until=T0 + timedelta(hours=24),
        metadata={"kind": "canonical-session"},
    )
    assert created.changes[0] == Change(ChangeKind.CREATED, T0, record)
    assert await store.at(T0).lifecycle(key()) == record
    assert await store.at(T0).read(key()) == created.value


async def test_create_returns_the_app_and_user_state_that_others_set(store):
    await create(store, "s1", state={"app:tone": "dry", "user:name": "Ann"})
    created = await store.at(T0).create(
        key("s2"), state=split_state({"app:tone": "wry"}), ttl=TTL, metadata={}
    )
    assert created.value.state == {"app:tone": "wry", "user:name": "Ann"}


async def test_app_and_user_state_reach_the_right_sessions_at_once_and_no_others(store):
    await create(store, "s1", state={"app:tone": "dry", "user:name": "Ann", "own": 1})
    await create(store, "s2")
    await create(store, key("s3", user="bob"))
    await create(store, key("s4", app="other"))

    async def state(where):
        return (await store.at(T0).read(where)).state

    assert await state(key("s2")) == {"app:tone": "dry", "user:name": "Ann"}
    assert await state(key("s3", user="bob")) == {"app:tone": "dry"}
    assert await state(key("s4", app="other")) == {}
    assert await store.user_state("app", "ann") == {"name": "Ann"}
    assert await store.user_state("app", "bob") == {}


async def test_app_and_user_state_outlive_the_session_that_set_them(store):
    await create(store, state={"app:tone": "dry", "user:name": "Ann"})
    await store.at(DUE).expire_due(10)
    await store.at(T0 + timedelta(days=2)).purge_due(10)
    await create(store, "later", now=T0 + timedelta(days=3))
    found = await store.at(T0 + timedelta(days=3)).read(key("later"))
    assert found.state == {"app:tone": "dry", "user:name": "Ann"}


async def test_a_value_of_app_or_user_state_is_replaced_whole_and_null_is_kept(store):
    await create(store, "s1", state={"user:box": {"a": 1}, "app:flag": True})
    await create(store, "s2", state={"user:box": {"b": 2}, "app:flag": None})
    assert await store.user_state("app", "ann") == {"box": {"b": 2}}
    assert (await store.at(T0).read(key("s1"))).state["app:flag"] is None


@pytest.mark.parametrize("status", ["waiting", "used"])
async def test_create_is_refused_while_a_session_of_the_key_lives(store, status):
    await (create(store) if status == "waiting" else use(store))
    with pytest.raises(SessionExistsError):
        await create(store, state={"app:leaked": 1}, now=T0 + TICK)
    assert "app:leaked" not in (await store.at(T0).read(key())).state


async def test_the_same_id_of_another_user_or_app_is_another_session(store):
    for where in (key(), key(user="bob"), key(app="other")):
        await create(store, where)
    assert await ids(store, T0, None) == ["s1", "s1"]


@pytest.mark.parametrize("swept", [True, False], ids=["swept", "unswept"])
async def test_a_new_session_replaces_an_expired_one_and_keeps_nothing_of_it(store, swept):
    revision = await create(store, state={"old": 1}, metadata={"old": 1})
    await store.at(T0).append(key(), note(), revision)
    if swept:
        await store.at(DUE).expire_due(10)
    await create(store, state={"new": 1}, ttl=HOUR, now=DUE)
    record = await store.at(DUE).lifecycle(key())
    assert (record.status, record.created_at, record.ttl) == (Status.WAITING, DUE, HOUR)
    assert (record.expired_at, record.resurrections, record.metadata) == (None, 0, {})
    found = await store.at(DUE).read(key())
    assert (found.state, found.events) == ({"new": 1}, ())
    assert (await store.at(T0 + timedelta(days=2)).purge_due(10)).value == 0


async def test_the_count_of_resurrections_does_not_pass_to_the_next_session_of_the_key(store):
    await create(store)
    await store.at(DUE).resurrect(key(), cause=Cause.REQUEST)
    await create(store, now=DUE + TTL)
    assert (await store.at(DUE + TTL).lifecycle(key())).resurrections == 0


async def test_unknown_sessions_and_users_read_as_nothing(store):
    assert await store.at(T0).read(key()) is None
    assert await store.at(T0).lifecycle(key()) is None
    assert await store.at(T0).list("app", "ann") == []
    assert await store.user_state("app", "ann") == {}
    assert await store.at(T0).delete(key()) == GONE


async def test_sessions_are_listed_by_update_time_then_user_then_id(store):
    for name, user, at in (("b", "ann", 2), ("a", "bob", 2), ("z", "bob", 1), ("a", "ann", 2)):
        await create(store, key(name, user=user), now=T0 + at * TICK)
    found = await store.at(T0 + HOUR / 4).list_of_all_users("app")
    assert [(one.key.user_id, one.key.session_id) for one in found] == [
        ("bob", "z"),
        ("ann", "a"),
        ("ann", "b"),
        ("bob", "a"),
    ]
    assert await ids(store, T0 + HOUR / 4, "bob") == ["z", "a"]


async def test_a_list_holds_waiting_and_used_sessions_with_their_state_and_no_events(store):
    await create(store, "waiting", state={"own": 1, "app:tone": "dry", "user:name": "Ann"})
    await use(store, "used", now=T0 + TICK)
    for user in ("ann", None):
        found = {one.key.session_id: one for one in await listed(store, user, T0 + TICK)}
        assert found["waiting"].state == {"own": 1, "app:tone": "dry", "user:name": "Ann"}
        assert found["used"].state == {"app:tone": "dry", "user:name": "Ann"}
        assert all(one.events == () for one in found.values())
        for name, one in found.items():
            assert one.revision == (await store.at(T0 + TICK).read(key(name))).revision


@pytest.mark.parametrize("kind", [note, message], ids=["held", "stored"])
@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (EventWindow(), ["e0", "e1", "e2", "e3"]),
        (EventWindow(newest=0), []),
        (EventWindow(newest=2), ["e2", "e3"]),
        (EventWindow(newest=9), ["e0", "e1", "e2", "e3"]),
        (EventWindow(after=T0 + 2 * TICK), ["e2", "e3"]),
        (EventWindow(newest=1, after=T0 + TICK), ["e3"]),
        (EventWindow(after=T0 + HOUR), []),
    ],
    ids=["all", "none", "newest", "more than there are", "from a time", "both", "too late"],
)
async def test_a_window_selects_events_from_a_time_on_and_then_the_newest_of_them(
    store, kind, window, expected
):
    revision = await create(store)
    for number in (1, 0, 3, 2):
        event = kind(f"e{number}", at=T0 + number * TICK)
        revision = (await store.at(T0).append(key(), event, revision)).value.revision
    found = await store.at(T0).read(key(), window)
    assert [event.id for event in found.events] == expected
    assert found.revision == revision


@pytest.mark.parametrize("kind", [note, message], ids=["held", "stored"])
async def test_events_of_one_timestamp_are_read_in_the_order_of_their_ids(store, kind):
    revision = await create(store)
    for name in ("b", "c", "a"):
        revision = (await store.at(T0).append(key(), kind(name, at=T0), revision)).value.revision
    found = await store.at(T0).read(key())
    assert [event.id for event in found.events] == ["a", "b", "c"]
    found = await store.at(T0).read(key(), EventWindow(newest=2))
    assert [event.id for event in found.events] == ["b", "c"]


async def test_a_key_may_hold_any_characters(store):
    strange = key("s'1\"%_\\ é 😀", user="ann; --", app="a|b")
    await create(store, strange)
    assert (await store.at(T0).read(strange)).key == strange
    assert [found.key for found in await store.at(T0).list_of_all_users("a|b")] == [strange]


async def test_sessions_of_a_user_cannot_be_listed_without_naming_the_user(store):
    with pytest.raises(TypeError):
        await store.list("app")


async def test_a_store_pings_while_open_and_is_unavailable_once_closed(store):
    await store.open()
    await store.ping()
    await store.close()
    await store.close()
    for call in (store.ping(), store.read(key()), store.expire_due(1)):
        with pytest.raises(StoreUnavailableError):
            await call


async def test_a_store_at_another_time_shares_and_closes_with_the_original(store_url):
    """Seen to fail with a view that had lanes, or connections, of its own."""
    store = store_with_parts(store_url)
    later = store.at(DUE)
    await create(later.at(T0))
    assert (await store.at(T0).lifecycle(key())).status is Status.WAITING
    assert (await later.lifecycle(key())).status is Status.EXPIRED
    await later.close()
    for call in (store.ping(), store.at(T0).read(key()), later.read(key())):
        with pytest.raises(StoreUnavailableError):
            await call


async def test_two_stores_on_the_same_url_see_the_same_sessions(store, reopen):
    revision = await use(store, "used")
    await create(store, "waiting")
    other = await reopen()
    assert (await other.at(T0).read(key("used"))).revision == revision
    assert await ids(other, T0) == ["used", "waiting"]
    assert (await other.at(T0).lifecycle(key("waiting"))).expires_at == DUE
