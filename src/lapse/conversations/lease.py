"""The lease under which a process works on a session that is on its way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lapse.conversations.rules import Bounds
from lapse.conversations.service import LostError


class Lease:
    """The time for which a session is this process's, by a clock that begins before the store's.

    Args:
        renewed: begins the lease anew, and tells whether it was still this process's.
        bounds: how long it lasts.
        since: when the statement was sent that began the lease.
        clock: tells the time in seconds, like `since`.
    """

    def __init__(
        self,
        renewed: Callable[[str | None], Awaitable[bool]],
        bounds: Bounds,
        since: float,
        clock: Callable[[], float],
    ) -> None:
        self._renewed = renewed
        self._bounds = bounds
        self._since = since
        self._clock = clock

    async def hold(self) -> None:
        """Make sure that the lease outlasts the next call of the service.

        Raises:
            LostError: somebody else has taken the work over.
        """
        left = self._since + self._bounds.lease.total_seconds() - self._clock()
        if left < self._bounds.left.total_seconds():
            await self.renew()

    async def renew(self, *, service_id: str | None = None) -> None:
        """Begin the lease anew, and note the session's id in the service."""
        since = self._clock()
        if not await self._renewed(service_id):
            raise LostError("the hand-over was taken over")
        self._since = since
