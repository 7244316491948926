"""Memories of sessions that go for good, in a memory service. Nothing here imports ADK."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Final, Protocol, TypeVar

from lapse.adk.private.services import can_delete_memory
from lapse.core.errors import StoreUnavailableError
from lapse.core.keys import SessionKey

T = TypeVar("T")

_TIMEOUT: Final = timedelta(minutes=1)
"""How long a service may take for one call."""


class MemoryService(Protocol):
    """What is needed of ADK's BaseMemoryService."""

    async def delete_memory(
        self, *, app_name: str, user_id: str, memory_id: str | None = None
    ) -> None:
        """Delete what is remembered of one event."""
        ...


class Memory:
    """The memories that a memory service has of events.

    ADK's services delete an item by its id, which is the event's, and list none: what they made of
    several events cannot be found.
    """

    def __init__(self, service: MemoryService) -> None:
        self._service = service
        self.can_delete = can_delete_memory(service)
        """False if the service cannot, or once it has said so."""

    async def forget(self, key: SessionKey, event_ids: Sequence[str]) -> None:
        """Delete what is remembered of some events of a session, if the service can."""
        for event_id in event_ids if self.can_delete else ():
            call = self._service.delete_memory(
                app_name=key.app_name, user_id=key.user_id, memory_id=event_id
            )
            try:
                await answer_of("memory", call)
            except NotImplementedError:
                self.can_delete = False
                return


async def answer_of(what: str, call: Awaitable[T]) -> T:
    """Return what a service of ADK's answers.

    Raises:
        StoreUnavailableError: it does not answer.
    """
    try:
        async with asyncio.timeout(_TIMEOUT.total_seconds()):
            return await call
    except (TimeoutError, OSError) as error:
        told = type(error).__name__
        raise StoreUnavailableError(
            f"the {what} service does not answer ({told}); try again in a moment"
        ) from error
