"""The stores under test, and short functions for what tests often ask of them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lapse.core.documents import StateDelta, split_state
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Status
from lapse.core.messages import UsedBy, is_message, is_of_agent
from lapse.store.records import EventRecord, NewEvent, Result, Revision
from parts import Store
from postgres import database
from sqlite_files import empty_store

T0 = datetime(2030, 1, 1, 12, tzinfo=UTC)
TTL = timedelta(minutes=30)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
DUE = T0 + TTL
"""When a session that was created at T0 falls due: the first moment at which it is not live."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A kind of store: where an empty one is had, and what sets it apart.

    `shared` tells that several stores, and stock ADK, can open one database; `exact` that the text
    of an event is kept to the letter rather than as the same JSON value. `examples` is how
    many histories a test makes up.
    """

    name: str
    shared: bool
    exact: bool = True
    examples: int = 30

    @contextmanager
    def empty(self, folder: Path) -> Iterator[str]:
        """Yield the URL of an empty database."""
        match self.name:
            case "sqlite":
                folder.mkdir(parents=True, exist_ok=True)
                yield empty_store(folder / "lapse.db")
            case "memory":
                yield "sqlite:///:memory:"
            case "postgres":
                with database() as url:
                    yield url
            case "plain":
                with database("plain") as url:
                    yield url


BACKENDS = (
    Backend("sqlite", shared=True),
    Backend("memory", shared=False),
    Backend("postgres", shared=True, exact=False, examples=8),
)

PLAIN = Backend("plain", shared=True, exact=False, examples=8)
"""A server that is compatible with PostgreSQL and lacks what `PostgresFeature` names."""


def key(session: str = "s1", user: str = "ann", app: str = "app") -> SessionKey:
    return SessionKey(app, user, session)


def message(
    event_id: str = "m1", text: str = "hello", *, at: datetime = T0, state: dict | None = None
) -> NewEvent:
    """Return an event with the user's words, as ADK stores it."""
    return _event(event_id, at, state, content={"parts": [{"text": text}], "role": "user"})


def note(event_id: str = "n1", *, at: datetime = T0, state: dict | None = None) -> NewEvent:
    """Return an event that changes state and is not a message."""
    return _event(event_id, at, {"noted": event_id} if state is None else state)


def words(
    event_id: str = "w1", text: str = "hello", *, at: datetime = T0, state: dict | None = None
) -> NewEvent:
    """Return an event with the agent's words, as ADK stores it."""
    content = {"parts": [{"text": text}], "role": "model"}
    return _event(event_id, at, state, author="bot", content=content)


def step(event_id: str = "c1", *, at: datetime = T0, state: dict | None = None) -> NewEvent:
    """Return an event with which the agent changes state, and that is not a message."""
    return _event(event_id, at, {"step": event_id} if state is None else state, author="bot")


def _event(
    event_id: str, at: datetime, state: dict | None, *, author: str = "user", **content: Any
) -> NewEvent:
    document = content | {
        "invocation_id": f"e-{event_id}",
        "author": author,
        "actions": {"state_delta": state or {}, "artifact_delta": {}},
        "id": event_id,
        "timestamp": at.timestamp(),
    }
    record = EventRecord(event_id, f"e-{event_id}", at, json.dumps(document))
    delta = split_state(state or {})
    return NewEvent(record, delta, is_message(document), by_agent=is_of_agent(document))


def store_at(store: Store, now: datetime | None) -> Store:
    """Return the store at a moment; None leaves it its own clock."""
    return store if now is None else store.at(now)


class Clocked:
    """A store whose clock a test moves while other objects use the store.

    `clock` returns what the time is now; None for the store's own.
    """

    def __init__(self, store: Store, clock: Callable[[], datetime | None]) -> None:
        self._store, self._clock = store, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(store_at(self._store, self._clock()), name)


async def create(
    store: Store,
    name: str | SessionKey = "s1",
    *,
    now: datetime | None = T0,
    ttl: timedelta = TTL,
    state: dict | None = None,
    metadata: dict | None = None,
    used_by: UsedBy = UsedBy.ANYONE,
) -> Revision:
    """Create a session and return its revision."""
    created = await store_at(store, now).create(
        key(name) if isinstance(name, str) else name,
        state=split_state(state or {}),
        ttl=ttl,
        metadata=metadata or {},
        used_by=used_by,
    )
    return created.value.revision


def used_by(kind: Callable[..., NewEvent]) -> UsedBy:
    """Return the `used_by` of a session that holds the agent's words, or the default for others."""
    return UsedBy.USER if kind is words else UsedBy.ANYONE


async def use(store: Store, name: str = "s1", *, now: datetime = T0) -> Revision:
    """Create a session with one message and return its revision."""
    revision = await create(store, name, now=now)
    appended = await store.at(now).append(key(name), message(at=now), revision)
    assert appended.value.revision is not None
    return appended.value.revision


async def ids(store: Store, now: datetime, user: str | None = "ann") -> list[str]:
    """Return the ids of the sessions that are listed."""
    return [found.key.session_id for found in await listed(store, user, now)]


async def listed(store: Store, user: str | None, now: datetime, app: str = "app"):
    """Return the sessions of a user, or of all where it is None."""
    if user is None:
        return await store.at(now).list_of_all_users(app)
    return await store.at(now).list(app, user)


async def levels(store: Store) -> dict[tuple[str, Status], int]:
    """Return how many sessions each app has with which status."""
    tallies = (await store.overview(since=timedelta(0))).tallies
    return {(one.app_name, one.status): one.sessions for one in tallies}


NO_STATE = StateDelta()

GONE = Result(None)
"""What deleting a session returns that there is not."""
