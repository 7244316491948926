"""What a hand-over asks of the other session service, and how the service may answer."""

from __future__ import annotations

from typing import Any, Protocol

from lapse.core.errors import LapseError
from lapse.core.keys import SessionKey
from lapse.store.records import EventRecord


class RefusedError(Exception):
    """The service will never do what it was asked for; `error` is what it says."""

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class ChangedError(Exception):
    """Somebody else has appended to the session, or deleted it, since it was read."""


class LostError(LapseError):
    """Somebody else has taken over what this process was at work on."""


class ServiceSession(Protocol):
    """A session as the service returns it."""

    @property
    def id(self) -> str:
        """Return its id in the service."""
        ...

    @property
    def state(self) -> dict[str, Any]:
        """Return its state."""
        ...

    @property
    def events(self) -> list[Any]:
        """Return its events, each with an `id`."""
        ...


class ConversationService(Protocol):
    """Another session service. Each call ends within the time-out of `Bounds`.

    Every method may raise RefusedError, or StoreUnavailableError: the service does not answer, and
    what was asked for may be done all the same.
    """

    async def find(
        self, key: SessionKey, service_id: str | None, *, events: bool = True
    ) -> ServiceSession | None:
        """Return a session, by its id in the service if that is another one; None without one."""
        ...

    async def find_marked(self, key: SessionKey, mark: str) -> ServiceSession | None:
        """Return the session of the key's user that a hand-over has made, whatever its id."""
        ...

    async def create(
        self, key: SessionKey, state: dict[str, Any], *, named: bool
    ) -> ServiceSession:
        """Create a session, with the key's id or (`named` False) one that the service chooses."""
        ...

    async def append(self, session: ServiceSession, event: EventRecord) -> None:
        """Append an event to a session and to its object.

        Raises:
            ChangedError: the session has changed since it was read.
        """
        ...

    async def remove(self, key: SessionKey, service_id: str | None) -> None:
        """Delete a session; a no-op if there is none."""
        ...
