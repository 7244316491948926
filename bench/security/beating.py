"""`lapse serve` with a heart: `GET /bench/stall` tells how long its event loop stood still at most.

Between two beats, two milliseconds apart, the loop stood still for what passed on the clock, or for
what the process computed if that is less: then it was the machine that was busy with others.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import FastAPI

from lapse import app as whole
from lapse.cli import main as cli

_BEAT = 0.002


class Heart:
    """Beats in the server's loop."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        clock, computed = time.perf_counter(), time.process_time()
        while True:
            await asyncio.sleep(_BEAT)
            passed, worked = time.perf_counter() - clock - _BEAT, time.process_time() - computed
            clock, computed = time.perf_counter(), time.process_time()
            self.longest = max(self.longest, min(passed, worked))

    def longest_since(self) -> float:
        longest, self.longest = self.longest, 0.0
        return longest


def give_it_a_heart() -> None:
    """Have every application that `lapse serve` makes beat."""
    plain: Any = whole.Lapse.app

    def app(self: Any, *args: Any, **options: Any) -> FastAPI:
        made: FastAPI = plain(self, *args, **options)
        heart = Heart()

        @made.get("/bench/stall")
        async def stall() -> float:
            if heart._beating is None:  # noqa: SLF001 - its own
                heart.start()
            return heart.longest_since()

        return made

    whole.Lapse.app = app  # type: ignore[method-assign]


if __name__ == "__main__":
    give_it_a_heart()
    cli.main()
