"""The steps before an archived session is purged: ADK's side of retention's hooks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.adk.memory.base_memory_service import BaseMemoryService
from google.adk.sessions.session import Session

from lapse.adk.private.services import deletes_memory
from lapse.adk.remembered import Memory
from lapse.adk.translation import session_read
from lapse.core.arguments import check
from lapse.core.errors import InvalidValueError
from lapse.retention.purging import ArchivedSession, Step
from lapse.retention.settings import PurgedMemory
from lapse.store.records import EventRecord, Revision, SessionRecord

if TYPE_CHECKING:
    from lapse.retention.hooks import RetentionHooks


class SaveToMemory:
    """The ready hook `before_purge`: it adds the session to a memory service, which then keeps it.

    Args:
        service: ADK's memory service.
    """

    def __init__(self, service: BaseMemoryService) -> None:
        check(service=(service, BaseMemoryService))
        self._service = service

    async def __call__(self, session: Session) -> None:
        """Add a session as it was when it was archived."""
        await self._service.add_session_to_memory(session)


def steps_before(
    hooks: RetentionHooks, choice: PurgedMemory, service: BaseMemoryService | None
) -> Sequence[Step]:
    """Return the steps that must succeed before a purge, in order.

    Args:
        hooks: the operator's.
        choice: what becomes of the session's memories.
        service: the memory service; None: it is not known.
    """
    steps, hook = list[Step](), hooks.before_purge
    if hook is not None:
        steps.append(_step("before_purge", hook))
    if choice is PurgedMemory.SAVE:
        steps.append(
            _step("save_to_memory", _unknown if service is None else SaveToMemory(service))
        )
    return steps


def memory_that_forgets(choice: PurgedMemory, service: BaseMemoryService | None) -> Memory | None:
    """Return the memory that can be deleted after purges; None if it cannot, or is left alone."""
    if choice is PurgedMemory.KEEP or service is None or not deletes_memory(service):
        return None
    return Memory(service)


def forgets_purged(hooks: RetentionHooks, choice: PurgedMemory, memory: Memory) -> bool:
    """Return whether a session's memories are to be deleted once the session is purged.

    They stay if there is a hook `before_purge`, which may have saved the session to memory.
    """
    return choice is PurgedMemory.FORGET and hooks.before_purge is None and memory.can_delete


def _step(name: str, hook: Callable[[Any], Awaitable[object]]) -> Step:
    async def do(archived: ArchivedSession) -> None:
        await hook(await session_whole(archived))

    return Step(name, do)


async def session_whole(archived: ArchivedSession) -> Session:
    """Return an archived session as ADK's model, with its events and its own state."""
    packed = archived.packed
    events = [
        EventRecord(event_id or "", invocation_id or "", _moment(at or ""), data or "{}")
        for event_id, invocation_id, at, data in packed.events
    ]
    return await session_read(
        SessionRecord(
            archived.key,
            json.loads(packed.state),
            Revision(_moment(packed.update_time), None),
            events,
        )
    )


def _moment(text: str) -> datetime:
    """Return a time that ADK wrote; one without digits, such as infinity, says nothing."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


async def _unknown(_: Session) -> None:
    raise InvalidValueError(
        "LAPSE_RETENTION_MEMORY",
        "is save, but no memory service is known; set LAPSE_MEMORY_SERVICE_URI",
    )
