"""Opening a store once, however many first calls there are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lapse.core.loops import PerLoop, may_end_with_its_loop


class Opening:
    """The opening of a store, which all first calls of an event loop await together.

    A caller that is cancelled does not cancel the opening, because others may wait for it. If it
    fails, those who wait get its error, and the next call tries again.

    Args:
        work: opens the store if it is not open; several event loops may call it at once.
    """

    def __init__(self, work: Callable[[], Awaitable[object]]) -> None:
        self._work = work
        self._under_way: PerLoop[list[asyncio.Task[Exception | None]]] = PerLoop(list)

    async def finish(self) -> None:
        """Return once the store is open."""
        under_way = self._under_way.here()
        if not under_way:
            opening = asyncio.create_task(self._open(), name="lapse-opening")
            task = may_end_with_its_loop(opening)
            under_way.append(task)
            task.add_done_callback(under_way.remove)
        fault = await asyncio.shield(under_way[0])
        if fault is not None:
            raise fault

    async def _open(self) -> Exception | None:
        """Open; return what failed, which is nobody's if all who waited were cancelled."""
        try:
            await self._work()
        except Exception as error:  # noqa: BLE001 - `finish` raises it
            return error
        return None
