"""The scenarios of `lapse verify`: what each does, and what must hold then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from lapse.core.documents import StateDelta
from lapse.core.keys import SessionKey
from lapse.store import store_from_url
from lapse.store.operation import Dialect
from lapse.store.sessions import Sessions
from lapse.store.statements import read_script
from lapse.testing.client import (
    DEMO_APP,
    PATIENCE,
    TTL,
    Client,
    CreatedSession,
    check,
    moment,
    sleep_until,
)
from lapse.testing.server import Server

_RACES: Final = 1000
"""The number of sessions that get a message at the instant of their deadline."""

_LATE: Final = timedelta(seconds=1)
"""The lateness that no session reaches while a sweeper runs."""

_RACE_GAP: Final = timedelta(milliseconds=12)
"""The time from one such deadline to the next."""

_HEAD_START: Final = timedelta(seconds=5)
"""The time to create these sessions before the first of their deadlines."""

_CROWD: Final = 5000
"""The number of sessions that are due at the same instant."""

_PENDING: Final = 10_000
"""The number of waiting sessions of a server that is told to stop."""

_STOP_WITHIN: Final = timedelta(seconds=2)
"""A server that is told to stop must exit within this time."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The server on which a scenario is played.

    Attributes:
        client: a client of the server to verify.
        server: that server, if `lapse verify` started it; None: it is somebody else's.
    """

    client: Client
    server: Server | None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario of the table.

    Attributes:
        name: what happens in it.
        outcome: what must hold then.
        play: plays it, and raises Broken if it does not hold.
        owns_server: whether it starts a server or a store of its own.
        needs_demo: whether it sends messages to the demo agent.
        is_load: whether it keeps the server so busy that other scenarios would be late.
    """

    name: str
    outcome: str
    play: Callable[[Stage], Awaitable[None]]
    owns_server: bool = False
    needs_demo: bool = True
    is_load: bool = False


async def message_in_time(stage: Stage) -> None:
    client = stage.client
    session = await client.create()
    await client.say(session, "hello")
    first = await client.wait_for_status(session, "used")
    check(first["hasMessages"] and first["firstMessageAt"], "no first message on record")
    for number in range(5):
        await client.say(session, f"and {number}")
    await _after_deadline(first["createdAt"])
    check(await client.read(session), "it is gone after its TTL")
    check(await _unchanged(stage, session, first), "its record changed after the first message")


async def page_abandoned(stage: Stage) -> None:
    client = stage.client
    session = await client.create(state={"theme": "dark"})
    expired = await client.wait_for_status(session, "expired")
    late = moment(expired["expiredAt"]) - moment(expired["expiresAt"])
    check(timedelta(0) <= late < _LATE, f"it expired {late} after its deadline")
    check(await client.read(session) is None, "ADK still shows it")
    check(session.id not in await client.listed(), "ADK still lists it")
    restorable = moment(expired["restorableUntil"]) - moment(expired["expiredAt"])
    check(restorable > timedelta(0), "it is not restorable")


async def several_messages(stage: Stage) -> None:
    client = stage.client
    session = await client.create()
    before = await client.record(session)
    await client.say(session, "one")
    first = await client.wait_for_status(session, "used")
    check(before and before["metadata"] == first["metadata"], "a message changed the metadata")
    for text in ("two", "three", "four"):
        await client.say(session, text)
        check(await _unchanged(stage, session, first), f"message {text} changed the record")
    shown = await client.read(session)
    check(shown and len(shown["events"]) >= 8, "events are missing")  # noqa: PLR2004 - 4 + 4


async def clean_up_disabled(_stage: Stage) -> None:
    async with Server(SESSION_CLEANUP_ENABLED="false") as server:
        await server.start()
        async with Client(server.url) as client:
            session = await client.create()
            record = await client.wait_for_status(session, "waiting")
            await _after_deadline(record["createdAt"])
            check(await client.read(session), "it is gone")
            await client.wait_for_status(session, "waiting")


async def message_at_once(stage: Stage) -> None:
    session = await stage.client.create()
    await stage.client.say(session, "hello at once")
    record = await stage.client.wait_for_status(session, "used")
    await _after_deadline(record["createdAt"])
    check(await stage.client.read(session), "it is gone")


async def already_deleted(_stage: Stage) -> None:
    async with _own_server() as (server, client):
        session = await client.create()
        record = await client.wait_for_status(session, "waiting")
        await client.delete(session)
        await _after_deadline(record["createdAt"])
        check(await client.record(session) is None, "it came back")
        check(not await client.count("lapse_sessions_expired_total", DEMO_APP), "it expired")
        check("error" not in server.log.lower(), "an error was logged")


async def due_at_once(_stage: Stage) -> None:
    async with _own_server() as (_, client):
        expired = 0
        for crowd in (5, _CROWD):
            # Late enough that all sessions exist by then and are due at the same instant.
            deadline = datetime.now(UTC) + TTL + timedelta(seconds=crowd / 500)

            async def create(deadline: datetime = deadline) -> None:
                await client.create(ttl=_left(deadline))

            await _many(crowd, create)
            await sleep_until(deadline)
            expired += crowd
            await _counted(client, "lapse_sessions_expired_total", DEMO_APP, expired)
            check(not await client.listed(), "some are still listed")


async def message_at_the_deadline(stage: Stage) -> None:
    first = datetime.now(UTC) + _HEAD_START
    deadlines = iter(first + number * _RACE_GAP for number in range(_RACES))

    async def race() -> None:
        deadline = next(deadlines)
        session = await stage.client.create(ttl=_left(deadline))
        await sleep_until(deadline)
        await stage.client.say(session, "just in time?")
        shown = await stage.client.read(session)
        check(shown and "just in time?" in json.dumps(shown), "an acknowledged message is lost")

    await _many(_RACES, race, together=_RACES)


async def made_before_lapse(_stage: Stage) -> None:
    async with Server() as server:
        session, user = CreatedSession(DEMO_APP, "made-before-lapse"), "early-bird"
        _write_as_adk(server.store, SessionKey(session.app, user, session.id))
        await server.start()
        async with Client(server.url, user=user) as client:
            await asyncio.sleep(TTL.total_seconds())
            shown = await client.read(session)
            check(shown and shown["state"] == {"from": "before"}, "ADK shows another state")
            record = await client.record(session)
            check(record and record["metadata"] == {}, "its metadata is not {}")
            check(record and record["expiresAt"] is None, "it was given a deadline")


async def killed_and_restarted(_stage: Stage) -> None:
    async with Server() as server:
        await server.start()
        async with Client(server.url) as client:
            kept = await client.create()
            await client.say(kept, "keep this")  # a first answer may take longer than a TTL
            session = await client.create()
            record = await client.wait_for_status(session, "waiting")
        await server.kill()
        await sleep_until(moment(record["expiresAt"]))
        await server.start()
        async with Client(server.url, user=client.user) as again:
            await again.wait_for_status(session, "expired")
            await _counted(again, "lapse_sessions_expired_total", DEMO_APP, 1)
            check(await again.read(kept), "a session with a message is lost")


async def stopped_with_many_pending(_stage: Stage) -> None:
    async with Server() as server:
        store = store_from_url(f"sqlite:///{server.store}")
        creations = (
            Sessions(store).create(
                SessionKey(DEMO_APP, "u", f"pending-{number}"),
                state=StateDelta(),
                ttl=timedelta(minutes=30),
                metadata={},
            )
            for number in range(_PENDING)
        )
        await asyncio.gather(*creations)
        await store.close()
        await server.start()
        took = await server.stop()
        check(took < _STOP_WITHIN, f"it took {took.total_seconds():.2f} s")


async def expired_then_a_message(stage: Stage) -> None:
    client = stage.client
    session = await client.create(state={"theme": "dark"})
    await client.wait_for_status(session, "expired")
    await client.say(session, "I am back")
    record = await client.wait_for_status(session, "used")
    check(record["resurrections"] == 1, "no resurrection on record")
    shown = await client.read(session)
    check(shown and shown["state"].get("theme") == "dark", "its state is lost")


async def _after_deadline(created_at: str) -> None:
    """Wait until the deadline of a session with TTL is past, and a sweep has had time to follow."""
    await sleep_until(moment(created_at) + TTL + timedelta(seconds=1))


def _left(deadline: datetime) -> timedelta:
    """Return the TTL that ends at `deadline`; a short one if that has passed."""
    return max(deadline - datetime.now(UTC), timedelta(milliseconds=50))


async def _unchanged(stage: Stage, session: CreatedSession, record: Mapping[str, Any]) -> bool:
    now = await stage.client.record(session)
    return now is not None and {**now, "serverTime": ""} == {**record, "serverTime": ""}


async def _counted(client: Client, metric: str, app: str, expected: int) -> None:
    """Wait until a counter has reached a value, and check that it is not above it."""
    counted = 0.0
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while counted < expected:
                counted = await client.count(metric, app)
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    check(counted == expected, f"{counted:.0f} expiries of {expected} sessions")


async def _many(times: int, act: Callable[[], Awaitable[None]], *, together: int = 32) -> None:
    """Run `act` a number of times, at most `together` of them at the same time."""
    slots = asyncio.Semaphore(together)

    async def one() -> None:
        async with slots:
            await act()

    await asyncio.gather(*(one() for _ in range(times)))


@asynccontextmanager
async def _own_server() -> AsyncIterator[tuple[Server, Client]]:
    """Start a server whose metrics count this scenario alone."""
    async with Server() as server:
        await server.start()
        async with Client(server.url) as client:
            yield server, client


def _write_as_adk(path: Path, key: SessionKey) -> None:
    """Create ADK's tables and an empty session in a new SQLite file, as stock ADK does."""
    long_ago = "2026-01-01 00:00:00.000000"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(read_script(Dialect.SQLITE, "adk_v1.sql"))
        connection.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)",
            (*key, json.dumps({"from": "before"}), long_ago, long_ago),
        )


SCENARIOS: Final = (
    Scenario(
        "message in time",
        "kept; has_messages true, first_message_at set once, also after many messages",
        message_in_time,
    ),
    Scenario(
        "page abandoned",
        "expired at the TTL, 404 for ADK's GET, absent from the list, restorable",
        page_abandoned,
    ),
    Scenario("several messages", "kept; metadata changed only by the first", several_messages),
    Scenario("clean-up disabled", "kept", clean_up_disabled, owns_server=True),
    Scenario("message within a second of creation", "kept", message_at_once),
    Scenario(
        "already deleted when its deadline comes",
        "nothing happens, nothing is logged as an error",
        already_deleted,
        needs_demo=False,
    ),
    Scenario(
        "five and five thousand sessions due at once",
        "each expired exactly once",
        due_at_once,
        needs_demo=False,
        is_load=True,
    ),
    Scenario(
        f"message and deadline at the same instant, {_RACES:,} times",
        "no message lost, none refused",
        message_at_the_deadline,
        is_load=True,
    ),
    Scenario(
        "created before Lapse, no lobby row",
        "readable, metadata {}, untouched",
        made_before_lapse,
        owns_server=True,
    ),
    Scenario(
        "kill -9 and restart, deadline passed meanwhile",
        "expired by the first sweep",
        killed_and_restarted,
        owns_server=True,
    ),
    Scenario(
        f"SIGTERM with {_PENDING:,} deadlines pending",
        "exits within 2 s",
        stopped_with_many_pending,
        owns_server=True,
        is_load=True,
    ),
    Scenario("expired, then a message", "resurrected, answered, kept", expired_then_a_message),
)
