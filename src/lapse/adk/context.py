"""What holds for a session while something runs an agent in it: around the run, and only there.

A runner reads its session before the message that would resurrect it, and appends by itself;
these blocks reach the session service through it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from lapse.core.keys import SessionKey

if TYPE_CHECKING:
    from google.adk.events.event import Event

_revived: ContextVar[SessionKey | None] = ContextVar("lapse_revived", default=None)


class AppendWatcher(Protocol):
    """Somebody who is told of the events that are appended to one session."""

    async def before_append(self, event: Event) -> None:
        """Hear of an event that is about to be stored, in its turn; may set its timestamp."""
        ...

    def after_append(self, event: Event) -> None:
        """Hear that it is stored."""
        ...


_watched: ContextVar[tuple[SessionKey, AppendWatcher] | None] = ContextVar(
    "lapse_watched", default=None
)


@contextmanager
def reviving(key: SessionKey) -> Iterator[None]:
    """Let the service resurrect this session, if need be, when it is read inside the block."""
    token = _revived.set(key)
    try:
        yield
    finally:
        _revived.reset(token)


def is_revived(key: SessionKey) -> bool:
    """Return whether a session may be resurrected by a read."""
    return _revived.get() == key


@contextmanager
def watching(key: SessionKey, watcher: AppendWatcher) -> Iterator[None]:
    """Tell `watcher` of what is appended to this session by the work inside the block."""
    token = _watched.set((key, watcher))
    try:
        yield
    finally:
        _watched.reset(token)


@asynccontextmanager
async def announced(key: SessionKey, event: Event) -> AsyncIterator[None]:
    """Tell the watcher of this work, if it has one, that the block stores an event."""
    watched = _watched.get()
    if watched is None or watched[0] != key:
        yield
        return
    await watched[1].before_append(event)
    yield
    watched[1].after_append(event)
