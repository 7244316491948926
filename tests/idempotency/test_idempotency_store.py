"""The keys that a store keeps: for a day, each with its request, and purged in batches."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from backends import HOUR, NO_STATE, T0, TICK, TTL, create, key, message, use
from lapse.core.errors import (
    KeyReusedError,
    NoSuchSessionError,
    RunInFlightError,
    SessionExistsError,
    TooManyKeysError,
)
from lapse.idempotency.rules import KEPT, KeyRules
from lapse.idempotency.store import IdempotencyStore
from lapse.runs.repeats import NOTHING_KNOWN
from lapse.runs.store import STALE, RunStatus
from lapse.store.records import LastSeen

RULES = KeyRules(per_user=3)
OLD = T0 + KEPT
"""When a key that was first sent at T0 is not kept any more."""


def asked(name="k-1", session="s1", body=b"{}", user="ann"):
    return RULES.request(name, key(session, user), "run", body)


def creating(name="k-1", body=b"{}", user="ann"):
    return RULES.request(name, key("", user), "create", body)


async def begin(store, request=None, run_id="r1", *, now=T0, session="s1", prepared=None):
    """Begin a run as a request does; return what is known then."""
    at, request = store.at(now), request or asked(session=session)
    known = prepared or await at.known(key(session), request)
    if known.run is not None:
        return known
    return await at.begin_once(key(session), run_id, request, max_per_user=9, prepared=known)


async def make(store, name="s1", request=None, *, now=T0):
    made = await store.at(now).create_once(
        key(name), request or creating(), state=NO_STATE, ttl=TTL, metadata={}
    )
    return made.value


async def say(store, event_id, *, at=T0, invocation="e-m1"):
    """Store a message with an id, in the session `s1`."""
    said = message(event_id, at=at)
    said = replace(said, record=replace(said.record, invocation_id=invocation))
    await store.at(at).append(key(), said, LastSeen(at, None))


async def test_a_key_is_kept_with_the_run_that_it_has_begun(store):
    await create(store)
    begun = await begin(store)
    assert begun.run.run_id == "r1"
    known = await store.at(T0).known(key(), asked())
    assert known.run.run_id == "r1"
    assert known.run.in_flight
    assert known.message_id == begun.message_id != ""
    assert not known.is_stored
    assert (await begin(store, run_id="r2")).run.run_id == "r1"


async def test_the_id_of_the_message_belongs_to_the_key_and_its_session(store):
    ids = set()
    for name, session, user in (("k", "s1", "ann"), ("l", "s2", "ann"), ("k", "s1", "bob")):
        await create(store, key(session, user))
        request = asked(name, session, user=user)
        at = store.at(T0)
        begun = await at.begin_once(
            key(session, user), f"r-{len(ids)}", request, max_per_user=9, prepared=NOTHING_KNOWN
        )
        ids.add(begun.message_id)
    assert len(ids) == 3


async def test_one_key_of_two_requests_is_refused(store):
    """Seen to fail with a key that is kept without a digest of its request."""
    await create(store)
    await begin(store)
    with pytest.raises(KeyReusedError, match="another request"):
        await begin(store, asked(body=b"[]"), "r2")


@pytest.mark.parametrize("cause", ["died", "nothing stored"])
async def test_a_run_in_which_nothing_was_said_gives_way_to_another_one(store, cause):
    """Seen to fail with a first run that answers each repeat."""
    await create(store)
    begun = await begin(store)
    later = T0 + (STALE if cause == "died" else TICK)
    if cause == "died":
        await say(store, begun.message_id)
    else:
        await store.at(T0).end_run("r1", RunStatus.FAILED, error={})
    again = await begin(store, run_id="r2", now=later)
    assert again.run.run_id == "r2"
    assert again.message_id == begun.message_id
    assert again.is_stored is (cause == "died")
    assert again.invocation_id == ("e-m1" if cause == "died" else None)


async def test_a_message_that_joined_an_invocation_does_not_open_it(store):
    await use(store)  # its message m1 has opened the invocation e-m1
    begun = await begin(store)
    await say(store, begun.message_id, at=T0 + HOUR, invocation="e-m1")
    known = await store.at(T0 + HOUR).known(key(), asked())
    assert known.run is None
    assert known.is_stored
    assert known.invocation_id is None


@pytest.mark.parametrize(
    ("status", "kind", "answers"),
    [
        (RunStatus.DONE, None, True),
        (RunStatus.FAILED, "RuntimeError", True),
        (RunStatus.FAILED, "AnswerLostError", False),
        (RunStatus.FAILED, "OutcomeUnknownError", False),
        (RunStatus.FAILED, "StaleSessionError", False),
        (RunStatus.TIMED_OUT, "RunTimedOutError", True),
        (RunStatus.CANCELLED, "RunCancelledError", False),
        (RunStatus.INTERRUPTED, "RunInterruptedError", False),
    ],
)
async def test_a_run_that_ended_without_a_word_after_its_message(store, status, kind, answers):
    """It answers its repeats if that is the agent's doing, and not the store's or a process's."""
    await create(store)
    begun = await begin(store)
    await say(store, begun.message_id)
    error = None if kind is None else {"error_details": {"error_type": kind}}
    await store.at(T0).end_run("r1", status, error=error)
    known = await store.at(T0).known(key(), asked())
    assert (known.run is not None) is answers


async def test_a_run_that_somebody_cancelled_is_not_begun_again(store):
    await create(store)
    await begin(store)
    await store.at(T0).cancel_run(key(), "r1")
    await store.at(T0).end_run("r1", RunStatus.CANCELLED)
    assert (await begin(store, run_id="r2")).run.run_id == "r1"


async def test_of_many_requests_with_one_key_one_begins_a_run(two_stores):
    """Seen to fail without the lock."""
    one, other = two_stores
    await create(one, now=None)
    for number in range(5):
        request = asked(f"k-{number}")
        begun = await asyncio.gather(
            *(
                store.begin_once(
                    key(), f"r-{number}-{n}", request, max_per_user=9, prepared=NOTHING_KNOWN
                )
                for n, store in enumerate((one, other) * 4)
            )
        )
        (run_id,) = {known.run.run_id for known in begun}
        await one.end_run(run_id, RunStatus.DONE)
        assert (await other.known(key(), request)).run.run_id == run_id
        await one.at(T0).forget_keys(99)


async def test_another_run_in_flight_is_named_and_the_key_is_not_kept(store):
    """Seen to fail on PostgreSQL with a key that is kept in a transaction before its run's."""
    await create(store)
    await begin(store)
    with pytest.raises(RunInFlightError) as caught:
        await begin(store, asked("k-2"), "r2")
    assert caught.value.run_id == "r1"
    assert await store.at(T0).known(key(), asked("k-2")) == NOTHING_KNOWN


async def test_after_a_day_a_key_is_a_new_key(store):
    """Seen to fail with an id of the message that is the same for ever."""
    await create(store)
    begun = await begin(store)
    await say(store, begun.message_id)
    await store.at(T0).end_run("r1", RunStatus.DONE)
    assert (await begin(store, run_id="r2", now=OLD - TICK)).run.run_id == "r1"
    again = await begin(store, asked(body=b"[]"), "r2", now=OLD)
    assert again.run.run_id == "r2"
    assert again.message_id != begun.message_id
    assert not again.is_stored
    known = await store.at(OLD + KEPT - TICK).known(key(), asked(body=b"[]"))
    assert known.message_id == again.message_id


async def test_old_keys_are_forgotten_in_batches_and_no_others(store):
    for number in range(3):
        await make(store, f"s{number}", creating(f"k-{number}"), now=T0 + number * HOUR)
    assert await store.at(OLD - TICK).forget_keys(10) == 0
    assert await store.at(OLD + HOUR).forget_keys(1) == 1
    assert await store.at(OLD + HOUR).forget_keys(10) == 1
    assert await store.at(OLD + HOUR).created_before(key(), creating("k-1")) is None
    with pytest.raises(NoSuchSessionError):  # it is kept; its session has expired
        await store.at(OLD + HOUR).created_before(key(), creating("k-2"))
    await IdempotencyStore(store.at(OLD + 2 * HOUR).database).maintain()
    assert await store.at(OLD + 2 * HOUR).forget_keys(10) == 0


async def test_a_user_has_so_many_keys_at_a_time(store):
    for number in range(3):
        await make(store, f"s{number}", creating(f"k-{number}"))
    with pytest.raises(TooManyKeysError, match="3 idempotency keys"):
        await make(store, "s3", creating("k-3"))
    assert (await make(store, "s9", creating("k-0"))).key == key("s0")
    bobs = creating("k-3", user="bob")
    await store.at(T0).create_once(key("s", "bob"), bobs, state=NO_STATE, ttl=TTL, metadata={})
    assert (await make(store, "s3", creating("k-3"), now=OLD)).key == key("s3")


async def test_a_creation_and_its_key_are_kept_together_or_not_at_all(store):
    """Seen to fail with a key that is kept in a transaction of its own."""
    await create(store, "taken")
    with pytest.raises(SessionExistsError):
        await make(store, "taken")
    assert await store.at(T0).created_before(key(), creating()) is None
    made = await make(store, "free")
    assert made.key == key("free")
    assert (await make(store, "other")).key == key("free")
    assert await store.at(T0).read(key("other")) is None


async def test_of_many_creations_with_one_key_one_makes_a_session(two_stores):
    """Seen to fail without the lock."""
    for number in range(5):
        request = creating(f"k-{number}")
        made = await asyncio.gather(
            *(
                store.create_once(
                    key(f"s-{number}-{n}"), request, state=NO_STATE, ttl=TTL, metadata={}
                )
                for n, store in enumerate((*two_stores,) * 4)
            )
        )
        assert len({one.value.key for one in made}) == 1
        assert sum(bool(one.changes) for one in made) == 1
        await two_stores[0].at(T0 + timedelta(days=9000)).forget_keys(9)


async def test_a_deleted_session_is_not_made_again(store):
    await make(store)
    await store.at(T0).delete(key())
    with pytest.raises(NoSuchSessionError):
        await make(store, "s2")
    await begin_and_delete(store)
    with pytest.raises(NoSuchSessionError):
        await store.at(T0).known(key("s3"), asked(session="s3"))


async def begin_and_delete(store):
    await create(store, "s3")
    await begin(store, session="s3")
    await store.at(T0).delete(key("s3"))
