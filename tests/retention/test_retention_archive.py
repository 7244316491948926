"""A used session leaves ADK's tables for the archive, and comes back, on every store."""

from datetime import timedelta

import pytest
from archiving import DAY, LATER, archive, whole

from backends import HOUR, NO_STATE, T0, TICK, TTL, create, key, levels, message, note, use, words
from lapse.core.errors import (
    EventIdTakenError,
    NoSuchSessionError,
    OutdatedSessionError,
    SessionExistsError,
    SharedStateFullError,
    StoreRefusedError,
    WrongStatusError,
)
from lapse.core.lifecycle import Cause, ChangeKind, Status
from lapse.retention import rules
from lapse.retention.archive import Looked
from lapse.retention.policy import parse_policy
from lapse.runs import store as runs
from lapse.store import archiving
from lapse.store.records import LastSeen, Revision

PURGE = LATER + 100 * DAY


async def test_an_idle_session_is_archived_at_the_first_moment_at_which_it_is_due(store):
    """Seen to fail with `>=` in place of `>` in `_due_of`."""
    await use(store)
    assert (await archive(store, key(), now=LATER - TICK)).value == Looked(later=1)
    assert await store.at(LATER).read(key())
    done = await archive(store, key())
    assert done.value == Looked(archived=1)
    (change,) = done.changes
    assert (change.kind, change.at, change.record.key) == (ChangeKind.ARCHIVED, LATER, key())


async def test_an_archived_session_does_not_exist_for_adk_and_its_owner_finds_it(store):
    await use(store)
    await archive(store, key())
    assert await store.at(LATER).read(key()) is None
    assert await store.at(LATER).list("app", "ann") == []
    record = await store.at(LATER).lifecycle(key())
    assert (record.status, record.archived_at) == (Status.ARCHIVED, LATER)
    assert record.restorable_until == PURGE
    assert record.has_messages
    assert await levels(store) == {("app", Status.ARCHIVED): 1}


async def test_nothing_of_the_session_stays_in_adks_tables(store, stock):
    await use(store)
    await archive(store, key())
    for table in ("sessions", "events"):
        assert await stock.rows(f"SELECT * FROM {table}") == []
    assert len(await stock.rows("SELECT * FROM app_states")) == 1
    assert await stock.get_session(app_name="app", user_id="ann", session_id="s1") is None


async def test_what_a_newer_lapse_has_archived_is_refused_and_stays(store, monkeypatch):
    """Seen to fail with an assertion, which no caller expects."""
    await use(store)
    await archive(store, key())
    with monkeypatch.context() as older:
        older.setattr(archiving, "_FORM", archiving._FORM - 1)
        with pytest.raises(StoreRefusedError, match="upgrade Lapse"):
            await store.at(LATER).resurrect(key(), cause=Cause.REQUEST)
    assert (await store.at(LATER).lifecycle(key())).status is Status.ARCHIVED
    await store.at(LATER).resurrect(key(), cause=Cause.REQUEST)


async def test_a_request_brings_back_exactly_what_was_archived(store):
    revision = await use(store)
    revision = (
        await store.at(T0).append(key(), words(state={"x": [1.5, None]}), revision)
    ).value.revision
    await store.at(T0).append(key(), note(state={"app:a": 1, "user:u": 2}), revision)
    before = await whole(store, key())
    await archive(store, key())
    restored = await store.at(LATER + HOUR).resurrect(key(), cause=Cause.REQUEST, by="ann")
    assert await whole(store, key()) == before
    (change,) = restored.changes
    assert (change.kind, change.cause) == (ChangeKind.RESTORED, Cause.REQUEST)
    record = await store.lifecycle(key())
    assert (record.status, record.archived_at, record.restorable_until) == (Status.USED, None, None)
    assert await levels(store) == {("app", Status.USED): 1}
    (act,) = await store.acts_on(key(), newest=5)
    assert (act.by, act.action) == ("ann", "restored")


async def test_a_restore_counts_as_activity(store):
    await use(store)
    await archive(store, key())
    await store.at(LATER).resurrect(key(), cause=Cause.RUN)
    assert (await archive(store, key(), now=LATER + 30 * DAY - TICK)).value == Looked(later=1)
    assert (await archive(store, key(), now=LATER + 30 * DAY)).value == Looked(archived=1)


@pytest.mark.parametrize("seen", ["revision", "last event"])
async def test_a_message_restores_the_session_in_its_own_transaction(store, seen):
    """Seen to fail with an append that does not look into the archive."""
    revision = await use(store)
    await archive(store, key())
    known = revision if seen == "revision" else LastSeen(T0, "m1")
    done = await store.at(LATER).append(key(), message("m2", at=LATER), known)
    assert [change.kind for change in done.changes] == [ChangeKind.RESTORED]
    assert done.changes[0].cause is Cause.MESSAGE
    found = await store.at(LATER).read(key())
    assert [event.id for event in found.events] == ["m1", "m2"]
    assert done.value.revision == found.revision


async def test_an_event_that_is_refused_restores_nothing(store):
    """Seen to fail with a restore that does not ask whether the writer's session is stale."""
    revision = await use(store)
    await archive(store, key())
    stale = Revision(T0, revision.number + 1)
    with pytest.raises(OutdatedSessionError):
        await store.at(LATER).append(key(), message("m2", at=LATER), stale)
    with pytest.raises(EventIdTakenError):
        await store.at(LATER).append(key(), message("m1", "other"), revision)
    large = message("m3", at=LATER, state={"app:x": "x" * 2 * 1024 * 1024})
    with pytest.raises(SharedStateFullError):
        await store.at(LATER).append(key(), large, revision)
    again = await store.at(LATER).append(key(), message("m1"), revision)
    assert again.value.repeated
    assert (await store.lifecycle(key())).status is Status.ARCHIVED


async def test_an_archived_id_is_taken(store):
    await use(store)
    await archive(store, key())
    with pytest.raises(SessionExistsError):
        await create(store, now=LATER)
    with pytest.raises(WrongStatusError):
        await store.at(LATER).expire(key())
    with pytest.raises(WrongStatusError):
        await store.at(LATER).extend(key())


async def test_its_owner_deletes_an_archived_session_for_good(store):
    await use(store)
    await archive(store, key())
    done = await store.at(LATER).delete(key(), by="ann")
    assert [change.kind for change in done.changes] == [ChangeKind.DELETED]
    assert await store.at(LATER).lifecycle(key()) is None
    with pytest.raises(NoSuchSessionError):
        await store.at(LATER).resurrect(key(), cause=Cause.REQUEST)
    assert await levels(store) == {}
    revision = await create(store, now=LATER)
    await store.at(LATER).append(key(), message(at=LATER), revision)
    assert (await archive(store, key(), now=LATER + 30 * DAY)).value.archived == 1


async def test_it_is_purged_at_its_time_and_restorable_until_it_is_purged(store):
    await use(store)
    await archive(store, key())
    assert (await store.at(PURGE - TICK).purge_archived(10)).value == 0
    await store.at(PURGE).resurrect(key(), cause=Cause.REQUEST)
    assert (await store.at(PURGE).purge_archived(10)).value == 0
    await archive(store, key(), now=PURGE + 30 * DAY)
    done = await store.at(PURGE + 130 * DAY).purge_archived(10)
    assert [change.kind for change in done.changes] == [ChangeKind.PURGED]
    assert await store.at(PURGE).lifecycle(key()) is None
    assert await levels(store) == {}


async def test_without_a_limit_the_archive_is_for_ever(store):
    await use(store)
    await archive(store, key(), policy=parse_policy('[default]\nidle = "1s"\n'))
    assert (await store.lifecycle(key())).restorable_until is None
    assert (await store.at(T0 + 36_000 * DAY).purge_archived(10)).value == 0


async def test_the_age_counts_whatever_happens_since(store):
    policy = parse_policy('[default]\nage = "1d"\n')
    revision = await use(store)
    last = T0 + DAY - TICK
    await store.at(last).append(key(), message("m2", at=last), revision)
    assert (await archive(store, key(), now=last, policy=policy)).value == Looked(later=1)
    assert (await archive(store, key(), now=T0 + DAY, policy=policy)).value == Looked(archived=1)


async def test_waiting_and_expired_sessions_are_no_business_of_it(store):
    await create(store, "waits", now=LATER)
    await create(store, "expired", now=LATER - TTL)
    await store.at(LATER).expire_due(10)
    late = LATER + 300 * DAY
    assert (await archive(store, key("waits"), key("expired"), now=late)).value == Looked()


async def test_nothing_is_taken_while_clean_up_is_switched_off(open_store):
    store = await open_store(enforced=False)
    await use(store)
    assert (await archive(store, key())).value == Looked()
    assert (await store.at(PURGE).purge_archived(10)).value == 0
    assert await store.at(PURGE).read(key())


async def test_what_stock_adk_makes_anew_of_an_archived_id_stays_and_the_archive_is_kept(
    store, stock
):
    await use(store)
    await archive(store, key())
    await stock.create_session(app_name="app", user_id="ann", session_id="s1", state={"new": 1})
    found = await store.read(key())
    assert (found.state, list(found.events)) == ({"new": 1}, [])
    back = await store.resurrect(key(), cause=Cause.REQUEST)
    assert (back.changes, back.value.status) == ((), Status.ORPHAN)
    done = await store.append(key(), message("m2"), found.revision)
    assert done.value.revision is not None
    assert [event.id for event in (await store.read(key())).events] == ["m2"]
    await stock.delete_session(app_name="app", user_id="ann", session_id="s1")
    await store.resurrect(key(), cause=Cause.REQUEST)
    assert [event.id for event in (await store.read(key())).events] == ["m1"]


async def test_a_writer_of_an_archived_session_does_not_write_to_what_stock_adk_made_anew(
    store, stock
):
    """Its session is not the living one, and the archive is kept.

    Seen to fail with a `lock_archived` that looks for no living session, on PostgreSQL with a
    `restore_archived` that takes the conflict, too.
    """
    revision = await use(store)
    await archive(store, key())
    await stock.create_session(app_name="app", user_id="ann", session_id="s1", state={"new": 1})
    with pytest.raises(OutdatedSessionError):
        await store.at(LATER).append(key(), message("m2", at=LATER), revision)
    found = await store.read(key())
    assert (found.state, list(found.events)) == ({"new": 1}, [])
    await stock.delete_session(app_name="app", user_id="ann", session_id="s1")
    await store.resurrect(key(), cause=Cause.REQUEST)
    assert [event.id for event in (await store.read(key())).events] == ["m1"]


async def test_a_message_of_stock_adk_comes_before_the_archive_or_is_refused(store, stock):
    from google.adk.events.event import Event
    from google.genai.types import Content, Part

    def said():
        return Event(author="user", content=Content(role="user", parts=[Part(text="hello")]))

    await use(store)
    session = await stock.get_session(app_name="app", user_id="ann", session_id="s1")
    event = await stock.append_event(session, said())
    assert event.timestamp < LATER.timestamp()
    policy = parse_policy('[default]\nidle = "4s"\n')
    assert (await archive(store, key(), now=T0 + HOUR, policy=policy)).value.archived == 1
    with pytest.raises(ValueError, match="not found"):
        await stock.append_event(session, said())
    await store.resurrect(key(), cause=Cause.REQUEST)
    assert len((await store.read(key())).events) == 2


def test_a_run_is_in_flight_for_as_long_as_the_runs_say():
    assert rules.STALE == runs.STALE


async def test_a_session_larger_than_a_batch_is_archived_alone(store, monkeypatch):
    monkeypatch.setattr("lapse.retention.archive.BATCH_BYTES", 300)
    for name in ("s1", "s2", "s3"):
        await use(store, name)
    assert (await archive(store, key("s1"), key("s2"), key("s3"))).value.archived < 3
    assert (await archive(store, key("s1"), key("s2"), key("s3"))).value.archived >= 1
    monkeypatch.setattr("lapse.retention.archive.LARGEST", 10)
    await use(store, "s4")
    assert (await archive(store, key("s4"))).value == Looked(later=1)


async def test_many_sessions_are_archived_at_once(store):
    for number in range(20):
        await use(store, f"s{number}", now=T0 + timedelta(seconds=number))
    keys = [key(f"s{number}") for number in range(20)]
    done = await archive(store, *keys, now=LATER + timedelta(seconds=9))
    assert done.value == Looked(archived=10, later=10)
    assert await store.at(LATER).create(key("new"), state=NO_STATE, ttl=TTL, metadata={})
