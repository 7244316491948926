"""The records of runs, on every store: begun once, kept alive by heartbeats, ended once."""

import asyncio
from datetime import timedelta

import pytest

from backends import T0, TICK, create, key, message, store_at, use
from lapse.core.documents import StateDelta
from lapse.core.errors import RunInFlightError, TooManyRunsError
from lapse.runs.store import RETENTION, STALE, RunStatus
from lapse.store.records import EventRecord, NewEvent

MANY = 99


def agent_event(event_id, *, at, invocation="e-m1", author="parrot"):
    data = f'{{"author": "{author}", "content": {{"parts": [{{"text": "x"}}]}}}}'
    return NewEvent(EventRecord(event_id, invocation, at, data), StateDelta(), is_message=True)


async def begin(store, run_id="r1", session="s1", *, now=T0, max_per_user=MANY, user="ann"):
    return await store_at(store, now).begin_run(
        key(session, user), run_id, max_per_user=max_per_user
    )


async def test_a_run_begins_and_is_found(store):
    begun = await begin(store)
    assert (begun.run_id, begun.key, begun.status) == ("r1", key(), RunStatus.RUNNING)
    assert begun.started_at == begun.heartbeat_at == T0
    assert await store.at(T0).find_run(key()) == begun
    assert await store.at(T0).find_run(key(), "r1") == begun
    assert await store.at(T0).find_run(key(), "r2") is None
    assert await store.at(T0).find_run(key("s2"), "r1") is None


async def test_a_session_has_one_run_at_a_time(store):
    await begin(store)
    with pytest.raises(RunInFlightError) as caught:
        await begin(store, "r2", now=T0 + STALE - TICK)
    assert caught.value.run_id == "r1"
    await begin(store, "r2", "s2")


async def test_one_of_many_runs_begun_at_once_is_accepted(two_stores):
    """Seen to fail without the unique index of runs in flight."""
    one, other = two_stores
    begun = await asyncio.gather(
        *(begin(store, f"r{n}", now=None) for n, store in enumerate((one, other) * 5)),
        return_exceptions=True,
    )
    refused = [error for error in begun if isinstance(error, RunInFlightError)]
    (won,) = [run for run in begun if run not in refused]
    assert {error.run_id for error in refused} == {won.run_id}


async def test_a_run_without_a_heartbeat_is_interrupted_and_the_next_may_begin(store):
    """Seen to fail when the stale run is not freed."""
    await begin(store)
    assert (await store.at(T0 + STALE - TICK).find_run(key())).in_flight
    dead = await store.at(T0 + STALE).find_run(key())
    assert (dead.status, dead.ended_at) == (RunStatus.INTERRUPTED, T0 + STALE)
    await begin(store, "r2", now=T0 + STALE)
    old = await store.at(T0 + STALE).find_run(key(), "r1")
    assert (old.status, old.ended_at) == (RunStatus.INTERRUPTED, T0 + STALE)
    assert (await store.at(T0 + STALE).find_run(key())).run_id == "r2"


async def test_one_of_many_concurrent_runs_takes_the_place_of_a_dead_run(two_stores):
    one, other = two_stores
    await begin(one, "dead")
    begun = await asyncio.gather(
        *(begin(store, f"r{n}", now=T0 + STALE) for n, store in enumerate((one, other) * 5)),
        return_exceptions=True,
    )
    assert sum(isinstance(error, RunInFlightError) for error in begun) == 9


async def test_a_heartbeat_keeps_runs_alive_and_says_which_are_cancelled(store):
    for n in ("1", "2", "3"):
        await begin(store, f"r{n}", f"s{n}")
    await store.at(T0).end_run("r2", RunStatus.DONE)
    await store.at(T0).cancel_run(key("s3"), "r3")
    almost = T0 + STALE - TICK
    assert await store.at(almost).beat_runs(["r1", "r2", "r3", "r4"]) == {"r1": False, "r3": True}
    assert (await store.at(almost + STALE - TICK).find_run(key("s1"))).in_flight
    # One that was taken for dead stays dead: its session may have gone on without it.
    assert await store.at(almost + STALE).beat_runs(["r1"]) == {}


async def test_a_run_can_be_ended_once(store):
    await begin(store)
    error = {"error": "ValueError: no", "error_details": {"error_type": "ValueError"}}
    until = T0 + timedelta(seconds=3)
    assert await store.at(until).end_run("r1", RunStatus.FAILED, error=error, until=until)
    assert not await store.at(until).end_run("r1", RunStatus.DONE)
    ended = await store.at(until).find_run(key())
    assert (ended.status, ended.error, ended.until) == (RunStatus.FAILED, error, until)
    assert ended.ended_at == until
    await begin(store, "r2", now=until)


async def test_only_a_run_in_flight_of_the_same_session_can_be_cancelled(store):
    await begin(store)
    assert await store.at(T0).cancel_run(key("s2"), "r1") is None
    assert await store.at(T0).cancel_run(key(), "never") is None
    assert await store.at(T0).beat_runs(["r1"]) == {"r1": False}
    await store.at(T0).end_run("r1", RunStatus.DONE)
    assert (await store.at(T0).cancel_run(key(), "r1")).status is RunStatus.DONE


async def test_the_runs_in_flight_of_a_user_are_bounded(store):
    await begin(store, "r1", "s1", max_per_user=2)
    await begin(store, "r2", "s2", max_per_user=2)
    await begin(store, "r0", "s1", max_per_user=2, user="bob")
    with pytest.raises(TooManyRunsError):
        await begin(store, "r3", "s3", max_per_user=2)
    with pytest.raises(RunInFlightError):
        await begin(store, "r3", "s2", max_per_user=2)
    # The dead do not count.
    await begin(store, "r3", "s3", max_per_user=2, now=T0 + STALE)


async def test_the_news_of_a_run_are_its_agents_events_after_a_given_one(store):
    revision = await create(store)
    await begin(store)
    at = [T0 + timedelta(seconds=n) for n in range(6)]
    words = [message(at=at[0]), *(agent_event(f"a{n}", at=at[n]) for n in (1, 2, 3))]
    for event in words:
        revision = (await store.at(T0).append(key(), event, revision)).value.revision
    (none,) = await store.at(T0).run_news({"r1": None}, limit=9)
    assert (none.record.run_id, list(none.events)) == ("r1", [])

    await store.note_run("r1", "e-m1", at[0])
    await store.at(T0).end_run("r1", RunStatus.DONE, until=at[3])
    # A later run that resumes the invocation is another one.
    await store.at(T0).append(key(), agent_event("a4", at=at[4]), revision)
    await begin(store, "r2", now=T0 + TICK)
    await store.note_run("r2", "e-m1", at[4])

    places = {"r1": "a1", "r2": None, "never": None}
    news = {one.record.run_id: one for one in await store.at(T0).run_news(places, limit=9)}
    assert [event.id for event in news["r1"].events] == ["a2", "a3"]
    assert news["r1"].events[0].data == words[2].record.data or '"author"' in (
        news["r1"].events[0].data
    )
    assert [event.id for event in news["r2"].events] == ["a4"]
    assert set(news) == {"r1", "r2"}
    (first,) = await store.at(T0).run_news({"r1": None}, limit=2)
    assert [event.id for event in first.events] == ["a1", "a2"]
    assert first.record.status is RunStatus.DONE

    assert (await store.at(T0).find_run(key(), event_id="a2")).run_id == "r1"
    assert (await store.at(T0).find_run(key(), event_id="a4")).run_id == "r2"
    assert await store.at(T0).find_run(key(), "r1", event_id="a4") is None
    assert await store.at(T0).find_run(key(), event_id="never") is None


async def test_run_records_are_deleted_with_their_session_or_a_day_after_their_end(store):
    await use(store)
    await begin(store, "r1")
    await store.at(T0).delete(key())
    assert await store.at(T0).find_run(key()) is None
    assert await store.at(T0).beat_runs(["r1"]) == {}

    for n in ("2", "3", "4"):
        await begin(store, f"r{n}", f"s{n}")
        await store.at(T0).end_run(f"r{n}", RunStatus.DONE)
    await begin(store, "r5", "s5")
    assert await store.at(T0 + RETENTION - TICK).forget_runs(9) == 0
    assert await store.at(T0 + RETENTION).forget_runs(2) == 2
    assert await store.at(T0 + RETENTION).forget_runs(2) == 1
    assert await store.at(T0).find_run(key("s5")) is not None
