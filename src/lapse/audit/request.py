"""One record for all events that one request appends to a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from lapse.core.keys import SessionKey

_recorded: ContextVar[set[SessionKey] | None] = ContextVar("lapse_recorded", default=None)


@contextmanager
def one_request() -> Iterator[None]:
    """Take all appends inside the block for one request: the first to each session is recorded.

    Tasks that are created inside the block, such as that of a run, belong to the request.
    """
    token = _recorded.set(set())
    try:
        yield
    finally:
        _recorded.reset(token)


def is_recorded(key: SessionKey) -> bool:
    """Return whether this request has a record for a session; never outside a request."""
    recorded = _recorded.get()
    return recorded is not None and key in recorded


def note_recorded(key: SessionKey) -> None:
    """Note that this request has a record for a session."""
    recorded = _recorded.get()
    if recorded is not None:
        recorded.add(key)
