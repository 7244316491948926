"""What a hand-over does in the other service; it reads before it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lapse.conversations.lease import Lease
from lapse.conversations.rules import MARK, HandOver, has_mark, marked
from lapse.conversations.service import (
    ChangedError,
    ConversationService,
    RefusedError,
    ServiceSession,
)
from lapse.core.errors import OutcomeUnknownError
from lapse.core.keys import SessionKey

_MOST_READS: Final = 4
"""How often a put reads the session again that others append to in the meantime."""


class Putting:
    """Puts sessions into a service and removes them, call by call under a lease.

    Every method may raise LostError, and StoreUnavailableError if the service does not answer. A
    refused read says nothing of the message, so it raises StoreUnavailableError, too.

    Args:
        service: the service.
    """

    def __init__(self, service: ConversationService) -> None:
        self._service = service

    async def put(self, work: HandOver, lease: Lease, *, is_new: bool) -> ServiceSession:
        """Have the service hold a session with all its events; return the session.

        It reads before it writes, unless the hand-over is new: nobody else can have made anything
        for it.

        Raises:
            RefusedError: the service refuses it for good, and has not stored the message.
        """
        made = None if is_new else await self.find(work, lease)
        for _ in range(_MOST_READS):
            if made is None:
                made = await self._create(work, lease)
            try:
                await self._append(made, work, lease)
            except ChangedError:
                made = await self.find(work, lease)
            else:
                return made
        raise OutcomeUnknownError(
            f"session {work.key.named} changes all the time in its service; try again in a moment"
        )

    async def _append(self, made: ServiceSession, work: HandOver, lease: Lease) -> None:
        for event in missing(work, made):
            await lease.hold()
            try:
                await self._service.append(made, event)
            except RefusedError as refusal:
                # A call that its time-out has ended may have stored it since.
                stored = await self.find(work, lease)
                if stored is None or event in missing(work, stored):
                    raise
                raise ChangedError from refusal

    async def find(self, work: HandOver, lease: Lease) -> ServiceSession | None:
        """Return the session that this hand-over has made, whoever has worked on it."""
        await lease.hold()
        try:
            found = await self._service.find(work.key, work.service_id)
        except RefusedError:
            found = None  # the service takes no such id, or the list refuses to be read, too
        if found is not None and has_mark(found.state, work.token.mark):
            return found
        await lease.hold()
        try:
            return await self._service.find_marked(work.key, work.token.mark)
        except RefusedError as refusal:
            raise OutcomeUnknownError(
                f"the service does not tell whether it has session {work.key.named}; try again "
                "in a moment"
            ) from refusal

    async def _create(self, work: HandOver, lease: Lease) -> ServiceSession:
        mark = work.token.mark
        state = {**work.state, MARK: marked(mark)}
        await lease.hold()
        try:
            made = await self._service.create(work.key, state, named=True)
        except RefusedError as refusal:
            found = await self.find(work, lease)
            if found is not None:
                return found  # it was made before it was refused
            if await self.exists(work.key):
                raise  # somebody else has made a session of this id in the service
            state = {**work.state, MARK: marked(mark, work.key.session_id)}
            await lease.hold()
            try:
                made = await self._service.create(work.key, state, named=False)
            except RefusedError:
                raise refusal from None
        if (service_id := other_id(work.key, made)) is not None:
            await lease.renew(service_id=service_id)
        return made

    async def remove_made(self, work: HandOver, lease: Lease) -> None:
        """Remove the session that this hand-over has made, if there is one.

        Raises:
            RefusedError: the service refuses to remove it.
        """
        made = await self.find(work, lease)
        if made is not None:
            await lease.hold()
            await self._service.remove(work.key, other_id(work.key, made))

    async def exists(self, key: SessionKey) -> bool:
        """Return whether the service has a session of this id, whoever has made it."""
        try:
            return await self._service.find(key, None, events=False) is not None
        except RefusedError:
            return False


def missing(work: HandOver, made: ServiceSession) -> Sequence[Any]:
    """Return the events of a hand-over that a session lacks, in order."""
    return work.missing([event.id for event in made.events])


def other_id(key: SessionKey, made: ServiceSession) -> str | None:
    """Return a session's id in the service, if that is not Lapse's."""
    return None if made.id == key.session_id else made.id
