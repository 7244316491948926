"""Retried events, and writers that have not read the newest version of a session."""

import pytest

from backends import DUE, T0, TICK, create, key, message, note, use, used_by, words
from lapse.core.errors import InvalidValueError, OutdatedSessionError
from lapse.store.records import LastSeen, Revision

KINDS = pytest.mark.parametrize(
    "kind", [note, words, message], ids=["held", "the agent's, held", "stored"]
)


@KINDS
async def test_the_same_event_is_stored_once_also_when_retried_with_the_old_revision(store, kind):
    old = await create(store, used_by=used_by(kind))
    first = await store.at(T0).append(key(), kind("e"), old)
    assert not first.value.repeated
    for seen in (old, first.value.revision):
        again = await store.at(T0).append(key(), kind("e"), seen)
        assert (again.value.repeated, again.changes, again.value.revision) == (
            True,
            (),
            first.value.revision,
        )
    assert [event.id for event in (await store.at(T0).read(key())).events] == ["e"]


@KINDS
async def test_a_retried_event_does_not_change_state_again(store, kind):
    old = await create(store, used_by=used_by(kind))
    event = kind("e", state={"a": 1, "app:tone": "dry"})
    first = await store.at(T0).append(key(), event, old)
    later = kind("f", at=T0 + TICK, state={"a": 2, "app:tone": "wry"})
    await store.at(T0).append(key(), later, first.value.revision)
    await store.at(T0).append(key(), event, old)
    assert (await store.at(T0).read(key())).state == {"a": 2, "app:tone": "wry"}


@KINDS
@pytest.mark.parametrize("apart", [TICK, 0 * TICK], ids=["later", "of the same time"])
async def test_a_retry_after_another_append_returns_no_revision(store, kind, apart):
    old = await create(store, used_by=used_by(kind))
    first = await store.at(T0).append(key(), kind("e"), old)
    await store.at(T0).append(key(), kind("f", at=T0 + apart), first.value.revision)
    again = await store.at(T0).append(key(), kind("e"), old)
    assert (again.value.repeated, again.value.revision) == (True, None)


async def test_a_retry_of_a_held_event_is_recognized_after_it_moved(store):
    old = await create(store)
    held = await store.at(T0).append(key(), note("n"), old)
    await store.at(T0).append(key(), message(at=T0 + TICK), held.value.revision)
    assert (await store.at(T0).append(key(), note("n"), old)).value.repeated


async def test_a_retry_of_a_message_is_recognized_past_the_deadline(store):
    old = await create(store)
    await store.at(T0).append(key(), message(), old)
    again = await store.at(DUE).append(key(), message(), old)
    assert (again.value.repeated, again.changes) == (True, ())


@KINDS
async def test_a_different_event_of_the_same_id_is_refused(store, kind):
    revision = await create(store, used_by=used_by(kind))
    first = await store.at(T0).append(key(), kind("e", state={"a": 1}), revision)
    before = await store.at(T0).read(key())
    for seen in (revision, first.value.revision):
        with pytest.raises(InvalidValueError):
            await store.at(T0).append(key(), kind("e", state={"a": 2}), seen)
    assert await store.at(T0).read(key()) == before


async def test_several_sessions_may_have_an_event_of_the_same_id(store):
    for name in ("s1", "s2"):
        await use(store, name)
    for name in ("s1", "s2"):
        assert len((await store.at(T0).read(key(name))).events) == 1


@KINDS
@pytest.mark.parametrize("apart", [TICK, 0 * TICK, -TICK], ids=["later", "the same", "earlier"])
async def test_a_writer_that_missed_an_event_is_refused_whatever_its_timestamp(store, kind, apart):
    revision = await create(store, used_by=used_by(kind))
    first = await store.at(T0).append(key(), kind("e"), revision)
    second = await store.at(T0).append(key(), kind("f", at=T0 + apart), first.value.revision)
    for seen in (revision, first.value.revision):
        with pytest.raises(OutdatedSessionError):
            await store.at(T0).append(key(), kind("g", at=T0 + apart), seen)
    await store.at(T0).append(key(), kind("g", at=T0 + apart), second.value.revision)


async def test_a_writer_that_missed_a_held_event_cannot_send_the_first_message(store):
    old = await create(store)
    held = await store.at(T0).append(key(), note(), old)
    with pytest.raises(OutdatedSessionError):
        await store.at(T0).append(key(), message(), old)
    assert (await store.at(T0).lifecycle(key())).expires_at == DUE
    await store.at(T0).append(key(), message(), held.value.revision)


async def test_a_writer_of_an_earlier_session_of_the_same_key_is_stale(store):
    old = await create(store)
    await store.at(DUE).expire_due(10)
    await create(store, now=DUE)
    with pytest.raises(OutdatedSessionError):
        await store.at(DUE).append(key(), message(), old)


async def test_a_revision_stays_valid_over_changes_that_are_not_appends(store):
    revision = await create(store)
    await store.at(T0).amend(key(), metadata={"a": 1})
    await store.at(T0 + TICK).extend(key())
    await store.at(DUE + TICK).expire_due(10)
    await store.at(DUE + TICK).append(key(), message(), revision)


@KINDS
async def test_a_revision_without_a_number_is_compared_by_its_time(store, kind):
    revision = await create(store, used_by=used_by(kind))
    first = await store.at(T0).append(key(), kind("e", at=T0 + TICK), revision)
    with pytest.raises(OutdatedSessionError):
        await store.at(T0).append(key(), kind("f"), Revision(T0, None))
    await store.at(T0).append(
        key(), kind("f", at=T0 + TICK), Revision(first.value.revision.update_time, None)
    )


@KINDS
async def test_last_seen_will_do_if_its_time_or_its_newest_event_is_the_stored_one(store, kind):
    """Seen to fail on PostgreSQL where what was refused counted: the next writer was outdated."""
    revision = await create(store, used_by=used_by(kind))
    await store.at(T0).append(key(), kind("e", at=T0 + 2 * TICK), revision)
    before = await store.at(T0).read(key())
    for seen in (LastSeen(T0, None), LastSeen(T0 + TICK, "other")):
        with pytest.raises(OutdatedSessionError):
            await store.at(T0).append(key(), kind("f"), seen)
    assert (await store.at(T0).read(key())).revision == before.revision
    await store.at(T0).append(key(), kind("f", at=T0 + 3 * TICK), LastSeen(T0, "e"))
    await store.at(T0).append(key(), kind("g", at=T0), LastSeen(T0 + 3 * TICK, None))


async def test_last_seen_without_events_will_do_for_a_session_without_events(store):
    await create(store)
    await store.at(T0).append(key(), message(), LastSeen(T0 - TICK, None))


async def test_a_revision_is_read_back_from_its_marker():
    for revision in (Revision(T0 + TICK, 7), Revision(T0, None)):
        assert Revision.parse(revision.marker) == revision
    assert Revision(T0, None).marker == "2030-01-01T12:00:00.000000"
    with pytest.raises(ValueError, match=r"."):
        Revision.parse("rev-7")
