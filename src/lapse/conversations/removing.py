"""Removes from another service what is on its way out of it; see `rules.py`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from lapse.conversations.lease import Lease
from lapse.conversations.putting import Putting, other_id
from lapse.conversations.rules import Bounds, HandOver, Place, Token, Where, new_fence
from lapse.conversations.service import ConversationService, LostError, RefusedError
from lapse.conversations.store import HandOverStore
from lapse.core.errors import StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.store.database import Database
from lapse.store.records import Result

_log = logging.getLogger(__name__)


class Removing:
    """The part of HandOvers that removes sessions from the service, each under a lease.

    Args:
        database: where the lobby is.
        service: where conversations live.
        bounds: how long calls and waiting may take.
        clock: tells how long a lease lasts, in seconds; only for tests.
    """

    def __init__(
        self,
        database: Database,
        service: ConversationService,
        *,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = HandOverStore(database)
        self._service = service
        self._putting = Putting(service)
        self._bounds = bounds
        self._clock = clock

    async def _take_back(self, work: HandOver, lease: Lease) -> Result[None]:
        """Remove what a refused hand-over has made, and let the session wait again.

        Raises:
            LostError: somebody else does it.
            StoreUnavailableError: it stays on its way, because the service does not answer, or
                refuses to remove it.
        """
        try:
            await self._putting.remove_made(work, lease)
        except RefusedError as refusal:
            tell("the service refuses to remove the session of a refused hand-over", work.key)
            raise StoreUnavailableError(
                f"session {work.key.named} is being moved; try again in a moment"
            ) from refusal
        back = await self.store.take_back(work.key, work.token)
        if back is None:
            raise LostError("the hand-over was taken over")
        return back

    async def _remove(self, work: HandOver, lease: Lease, *, was_handed_over: bool = True) -> None:
        """Remove a session from the service, and forget it.

        Raises:
            LostError: somebody else removes it.
            RefusedError: the service refuses to.
        """
        if work.is_stray:
            await self._putting.remove_made(work, lease)
        else:
            await self._remove_any(work, lease, was_handed_over=was_handed_over)
        if not await self.store.end_delete(work.key, work.token):
            raise LostError("the deletion was taken over")

    async def _remove_any(self, work: HandOver, lease: Lease, *, was_handed_over: bool) -> None:
        """Remove the session of a key, whoever has made it."""
        await lease.hold()
        try:
            found = await self._service.find(work.key, work.service_id, events=False)
        except RefusedError:
            found = None  # the service takes no such id, so it has an alias
        if found is None and was_handed_over:
            await lease.hold()
            found = await self._service.find_marked(work.key, work.token.mark)
        if found is not None:
            await lease.hold()
            await self._service.remove(work.key, other_id(work.key, found))

    async def _is_cleaned_up(self, work: HandOver, place: Place) -> bool:
        """Clean up after a hand-over that was lost, if nobody has taken over what it has made.

        Nobody can make or hand over a session of this key while this looks. False: the session has
        changed since it was at this place.
        """
        key, span, since = work.key, self._bounds.lease, self._clock()
        match place.where:
            case Where.NOWHERE:
                token = Token(work.token.mark, new_fence())
                stray = HandOver(key, token, {}, (), None, None, is_delete=True, is_stray=True)
                if not await self.store.reserve(key, token, lease=span):
                    return False
                await self._remove(stray, self._lease(stray, since))
            case Where.LOBBY:
                fence = new_fence()
                if not await self.store.guard(key, fence=fence, lease=span):
                    return False
                await self._putting.remove_made(work, self._guard_lease(key, fence, since))
                await self.store.unguard(key, fence)
            case _ if place.token is None or place.token.mark != work.token.mark:
                tell("another session has the key of one that was handed over too late", key)
        return True

    def _lease(self, work: HandOver, since: float) -> Lease:
        span = self._bounds.lease

        async def renewed(service_id: str | None) -> bool:
            return await self.store.renew(work.key, work.token, lease=span, service_id=service_id)

        return Lease(renewed, self._bounds, since, self._clock)

    def _guard_lease(self, key: SessionKey, fence: int, since: float) -> Lease:
        async def renewed(_: str | None) -> bool:
            return await self.store.keep_guard(key, fence, lease=self._bounds.lease)

        return Lease(renewed, self._bounds, since, self._clock)


def tell(what: str, key: SessionKey, error: Exception | None = None) -> None:
    """Log what has become of a session, without anything of its content."""
    facts = {"app": key.app_name, "session": key.short}
    if error is not None:
        facts["error"] = type(error).__name__
    _log.warning("%s", what, extra=facts)
