"""Finishes, in the background, hand-overs and deletions that a process has left unfinished."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lapse.conversations.handover import HandOvers
from lapse.core.background import Background, Work

_BATCH: Final = 20
_SHORTEST: Final = timedelta(milliseconds=100)
_LONGEST: Final = timedelta(seconds=30)


class Finisher(Work):
    """Takes over hand-overs and deletions whose lease is over, of any process.

    It looks every half a minute, and sooner if a lease ends sooner.
    """

    def __init__(self, hand_overs: HandOvers) -> None:
        self._hand_overs = hand_overs
        self._work = Background("the hand-overs", self._step)

    async def start(self) -> None:
        """Start, at once with what is overdue."""
        await self._work.start()

    async def stop(self) -> None:
        """Stop, and return once stopped."""
        await self._work.stop()

    def wake(self, after: timedelta) -> None:
        """Look again after this time, because a hand-over or deletion was left unfinished."""
        self._work.wake(after)

    async def _step(self) -> timedelta:
        if await self._hand_overs.finish_overdue(_BATCH) == _BATCH:
            return _SHORTEST
        left = await self._hand_overs.store.time_to_overdue()
        return _LONGEST if left is None else min(max(left, _SHORTEST), _LONGEST)
