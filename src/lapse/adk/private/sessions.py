"""Session objects as ADK's services keep them up to date, and the error for an outdated one."""

# ruff: noqa: SLF001 - this module exists to use private names

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from google.adk import errors as _errors
from google.adk.events.event import Event
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.session import Session

STALE: Final = (
    "The session has been modified in storage since it was loaded. "
    "Please reload the session before appending more events."
)
"""What ADK's DatabaseSessionService says with a StaleSessionError."""

if TYPE_CHECKING or hasattr(_errors, "StaleSessionError"):
    from google.adk.errors import StaleSessionError as StaleSessionError  # noqa: PLC0414

    _HAS_STALE_ERROR: Final = True
else:  # before 2.7

    class StaleSessionError(ValueError):
        """A session object is older than the stored session."""

    _HAS_STALE_ERROR: Final = False


@contextmanager
def stale_as_such() -> Iterator[None]:
    """Raise StaleSessionError for a session that one of ADK's services finds outdated.

    Since 2.7 ADK does that by itself; before, it raises a ValueError that says the same.
    """
    if _HAS_STALE_ERROR:
        yield
        return
    try:
        yield
    except ValueError as error:
        if str(error) != STALE:
            raise
        raise StaleSessionError(STALE) from error


def marker_of(session: Session) -> str | None:
    """Return the marker of the version at which a session object was read, or None without one.

    ADK's DatabaseSessionService keeps its own markers in the same attribute.
    """
    return session._storage_update_marker


def marked(marker: str | None) -> dict[str, str | None]:
    """Return the private attributes of a session object with this marker."""
    return {"_storage_update_marker": marker}


def set_marker(session: Session, marker: str | None) -> None:
    """Set the marker of a session object to its present version."""
    session._storage_update_marker = marker


def apply_temporary_state(service: BaseSessionService, session: Session, event: Event) -> None:
    """Apply an event's `temp:` state to a session object, for the rest of the invocation."""
    service._apply_temp_state(session, event)


def without_temporary_state(service: BaseSessionService, event: Event) -> Event:
    """Return an event without its `temp:` state, which is never stored."""
    return service._trim_temp_delta_state(event)


def add_to_session(service: BaseSessionService, session: Session, event: Event) -> Event:
    """Add a stored event, and the state it changes, to the session object; return the event."""
    return service._commit_event_to_session(session, event)


if not hasattr(BaseSessionService, "_commit_event_to_session"):  # before 2.10

    def add_to_session(service: BaseSessionService, session: Session, event: Event) -> Event:
        """Add a stored event as 2.10 and newer do."""
        service._update_session_state(session, event)
        session.events.append(event)
        return event
