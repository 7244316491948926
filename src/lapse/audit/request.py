"""One record for all events that one request appends to a session."""

from __future__ import annotations

from contextvars import ContextVar

from lapse.core.contexts import Having
from lapse.core.keys import SessionKey

_recorded: ContextVar[set[SessionKey] | None] = ContextVar("lapse_recorded", default=None)


def one_request() -> Having[set[SessionKey] | None]:
    """Take all appends inside the block for one request: the first to each session is recorded.

    Tasks that are created inside the block, such as that of a run, belong to the request.
    """
    return Having(_recorded, set())


def is_recorded(key: SessionKey) -> bool:
    """Return whether this request has a record for a session; never outside a request."""
    recorded = _recorded.get()
    return recorded is not None and key in recorded


def note_recorded(key: SessionKey) -> None:
    """Note that this request has a record for a session."""
    recorded = _recorded.get()
    if recorded is not None:
        recorded.add(key)
