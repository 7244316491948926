"""A synchronous standby hangs, and takes over: what was acknowledged is there."""

import asyncio
from datetime import timedelta

import pytest

from backends import NO_STATE, create, key, message, note
from lapse.core.errors import OutcomeUnknownError
from lapse.core.lifecycle import Cause, Rules, Status
from lapse.runs.store import RunStatus
from lapse.store.options import ConnectionOptions
from parts import store_with_parts
from postgres import own_server
from standby import standby_of

BRIEF = ConnectionOptions(
    statement_timeout=timedelta(milliseconds=400), patience=timedelta(milliseconds=800)
)
HOUR = timedelta(hours=1)


async def calls_on(store, seen):
    """Return calls by the session that each is about; each can be repeated as it is."""
    return {
        "new": lambda: store.create(key("new"), state=NO_STATE, ttl=HOUR, metadata={}),
        "spoken": lambda: store.append(key("spoken"), message(), seen["spoken"]),
        "noted": lambda: store.append(key("noted"), note(), seen["noted"]),
        "used": lambda: store.append(key("used"), message("m2"), seen["used"]),
        "expired": lambda: store.expire(key("expired")),
        "revived": lambda: store.resurrect(key("revived"), cause=Cause.REQUEST),
        "deleted": lambda: store.delete(key("deleted")),
        "ended": lambda: store.end_run("run", RunStatus.DONE),
    }


async def prepare(store):
    seen = {}
    for name in ("spoken", "noted", "expired", "revived", "deleted"):
        seen[name] = await create(store, name, now=None)
    for name in ("used", "ended"):
        created = await create(store, name, now=None)
        seen[name] = (await store.append(key(name), message(), created)).value.revision
    await store.expire(key("revived"))
    await store.begin_run(key("ended"), "run", max_per_user=3)
    return seen


async def acknowledged(calls):
    """Make all calls at once, and return the names of those that are acknowledged."""
    results = await asyncio.gather(*(call() for call in calls.values()), return_exceptions=True)
    for result in results:
        assert not isinstance(result, BaseException) or isinstance(result, OutcomeUnknownError)
    return [
        name
        for name, result in zip(calls, results, strict=True)
        if not isinstance(result, BaseException)
    ]


async def check(store):
    """Check that all calls were carried out."""
    lives = {}
    for name in ("new", "spoken", "noted", "expired", "revived", "deleted"):
        record = await store.lifecycle(key(name))
        lives[name] = None if record is None else record.status
    assert lives == {
        "new": Status.WAITING,
        "spoken": Status.USED,
        "noted": Status.WAITING,
        "expired": Status.EXPIRED,
        "revived": Status.WAITING,
        "deleted": None,
    }
    assert [event.id for event in (await store.read(key("used"))).events] == ["m1", "m2"]
    assert [event.id for event in (await store.read(key("noted"))).events] == ["n1"]
    assert (await store.find_run(key("ended"), "run")).status is RunStatus.DONE


@pytest.mark.long
async def test_what_a_hung_standby_does_not_have_is_not_acknowledged_by_a_repeat():
    """A call whose commit no longer waits is done, and may be lost; a repeat finds it done.

    Seen to fail with repeats that are answered from a read: at the first calls, which Lapse repeats
    by itself, and at the second ones, which are the caller's.
    """
    with own_server() as primary:
        store = store_with_parts(primary.url)
        seen = await prepare(store)
        with standby_of(primary) as standby:
            brief = store_with_parts(primary.url, Rules(), BRIEF)
            calls = await calls_on(brief, seen)
            await brief.time_to_next()
            standby.hang()
            assert await acknowledged(calls) == []
            del calls["new"]  # its repeat is another create, which is refused
            assert await acknowledged(calls) == []
            await check(store)
            standby.go_on()
            again = await calls_on(store, seen)
            del again["new"]
            assert await acknowledged(again) == list(again)
            standby.hang()
            await brief.close()
            await store.close()
            primary.stop("immediate")
            standby.promote()
            survivor = store_with_parts(standby.url)
            await check(survivor)
            await survivor.close()
