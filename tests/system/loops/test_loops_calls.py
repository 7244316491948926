"""A service lives through any number of event loops and threads, and leaves nothing in them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from ways import (
    APP,
    USER,
    WAYS,
    by_a_loop_that_is_only_closed,
    held,
    none_are_left,
    runner_on,
    says,
)

from adk_builders import message_event
from lapse import LapseSessionService
from lapse.core.lifecycle import Change, ChangeKind
from lapse.store.options import ConnectionOptions
from parts import store_with_parts
from postgres import await_connections, connections

# What a loop leaves that is closed with tasks in it, asyncio itself warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

CALLS = [pytest.param(8, id="a few"), pytest.param(1000, marks=pytest.mark.long, id="many")]
SWEEPS = pytest.mark.parametrize("sweep", [False, True], ids=["", "sweeping"])
POOL = 3


def service_on(url: str, **options: Any) -> LapseSessionService:
    store = store_with_parts(url, options=ConnectionOptions(pool_size=POOL))
    return LapseSessionService(store, **options)


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as an error; that loops were closed with tasks in them is none."""
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    return [error for error in errors if "was destroyed but it is pending" not in error]


def unread(error: str) -> bool:
    """Return whether a loop was closed before a task had its turn to read that it was cut off."""
    return "exception was never retrieved" in error and "ConnectionDoesNotExistError" in error


@SWEEPS
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.timeout(600)
def test_calls_on_loops_of_their_own_leave_nothing(store_url, caplog, way, calls, sweep) -> None:
    """Seen to fail with a pool for each loop that nobody closes.

    With `sweep`, also with an event of the sweeper's that lives as long as the sweeper.
    """
    service = service_on(store_url, sweep=sweep)

    async def speak() -> str:
        session = await service.create_session(app_name=APP, user_id=USER)
        await service.append_event(session, message_event())
        return str(session.id)

    async def heard() -> int:
        found = await service.list_sessions(app_name=APP, user_id=USER)
        return len(found.sessions)

    for _ in range(3):
        way(speak)
    before = held()
    for number in range(calls):
        way(speak)
        if not number % 10:
            assert await_connections(store_url, POOL + sweep)  # the sweeper listens
    after = held()
    assert after.threads == before.threads
    assert after.files <= before.files + 2
    # Those of a loop that was only closed are closed when the next one needs a connection.
    assert way is by_a_loop_that_is_only_closed or none_are_left(store_url)
    assert way(heard) == calls + 3
    way(service.close)
    assert none_are_left(store_url)
    is_closed_early = way is by_a_loop_that_is_only_closed
    assert not [error for error in faults(caplog) if not (is_closed_early and unread(error))]


@SWEEPS
@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.timeout(600)
def test_a_synchronous_runner_leaves_nothing(store_url, calls, sweep) -> None:
    """Seen to fail with a pool for each loop that nobody closes."""
    service = service_on(store_url, sweep=sweep)
    runner = runner_on(service)
    session = asyncio.run(service.create_session(app_name=APP, user_id=USER))
    for number in range(3):
        assert says(runner, session.id, f"hi {number}") == [f"hi {number}"]
    before = held()
    for number in range(calls):
        if not number % 50:  # a long conversation takes long to read
            session = asyncio.run(service.create_session(app_name=APP, user_id=USER))
        assert says(runner, session.id, f"hi {number}") == [f"hi {number}"]
    after = held()
    assert none_are_left(store_url)
    assert after.threads == before.threads
    assert after.files <= before.files + 2
    asyncio.run(service.close())


def test_all_loops_together_keep_to_the_pool(store_url) -> None:
    """Seen to fail with a pool for each loop: 24 connections."""
    service = service_on(store_url)

    async def create_some() -> int:
        made = [service.create_session(app_name=APP, user_id=USER) for _ in range(4)]
        return len(await asyncio.gather(*made))

    most, over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, connections(store_url))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with ThreadPoolExecutor(8) as threads:
            done = list(threads.map(lambda _: asyncio.run(create_some()), range(24)))
    finally:
        over.set()
        watching.join()
    assert done == [4] * 24
    assert most <= POOL
    assert none_are_left(store_url)
    asyncio.run(service.close())


def test_a_loop_that_waits_for_a_thread_lends_it_its_idle_connections(store_url) -> None:
    """An `async` function that calls synchronous code blocks its loop.

    Seen to fail with connections that only their own loop can close.
    """
    service = service_on(store_url)

    async def create() -> str:
        return str((await service.create_session(app_name=APP, user_id=USER)).id)

    async def block() -> list[str]:
        made = await asyncio.gather(*(create() for _ in range(POOL)))
        with ThreadPoolExecutor(1) as thread:
            made.append(thread.submit(asyncio.run, create()).result(timeout=30))
        return [*made, await create()]

    assert len(asyncio.run(block())) == POOL + 2
    asyncio.run(service.close())


async def create_and_see_it_expire(service: LapseSessionService) -> None:
    """Create a session, and return once the sweeper says that it has expired."""
    expired, created = asyncio.Event(), ""
    loop = asyncio.get_running_loop()

    def hear(change: Change) -> None:
        if change.kind is ChangeKind.EXPIRED and change.record.key.session_id == created:
            loop.call_soon_threadsafe(expired.set)

    unsubscribe = service.feed.subscribe(hear)
    try:
        created = (await service.create_session(app_name=APP, user_id=USER)).id
        async with asyncio.timeout(30):
            await expired.wait()
    finally:
        unsubscribe()


def test_the_sweeper_moves_on_to_the_next_loop(store_url, caplog) -> None:
    """Seen to fail with a sweeper that stays with the loop on which it was started first."""
    service = service_on(store_url, sweep=True, ttl=timedelta(milliseconds=300))
    for _ in range(3):
        asyncio.run(create_and_see_it_expire(service))
    asyncio.run(service.close())
    assert not faults(caplog)


def test_a_loop_that_stands_still_does_not_keep_the_sweeper(store_url) -> None:
    """Seen to fail with work that is taken to run for as long as its loop is open."""
    service = service_on(store_url, sweep=True, ttl=timedelta(milliseconds=300))
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(create_and_see_it_expire(service))
        asyncio.run(create_and_see_it_expire(service))
        loop.run_until_complete(create_and_see_it_expire(service))
        loop.run_until_complete(service.close())
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_service_is_closed_on_any_loop_and_opens_again(store_url, backend, way, sweep) -> None:
    """Seen to fail with a `closed` that is for good."""
    service = service_on(store_url, sweep=sweep)

    async def live() -> int:
        async with service:
            await service.create_session(app_name=APP, user_id=USER)
            return len((await service.list_sessions(app_name=APP)).sessions)

    found = [way(live) for _ in range(3)]
    assert found == ([1, 1, 1] if backend.name == "memory" else [1, 2, 3])
    assert none_are_left(store_url)
    for _ in range(2):
        way(service.close)
    with pytest.raises(Exception, match="the store is closed; open it"):
        way(lambda: service.create_session(app_name=APP, user_id=USER))
