"""Small arithmetic: quantiles, medians over rounds, samples of a closed loop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

Operation = Callable[[int, int], Awaitable[bool]]
"""One operation of a caller (its number, its turn); False: there is nothing left to do it to."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: operations per second, seconds of CPU and of latency."""

    rate: float
    cpu: float
    p50: float
    p99: float
    operations: int
    errors: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def medians(samples: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the median of every number over the rounds."""
    kept = list(samples)
    return {
        name: median(sample[name] for sample in kept)
        for name, value in kept[0].items()
        if isinstance(value, int | float)
    }


async def closed_loop(operation: Operation, *, callers: int, seconds: float) -> Sample:
    """Let a number of callers repeat an operation, each after its last one, for a time.

    What is under way at the end is finished and counted, with the time that takes.
    """
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    cpu, began = time.process_time(), time.perf_counter()
    end = began + seconds

    async def call(caller: int) -> None:
        turn = 0
        while (start := time.perf_counter()) < end:
            try:
                if not await operation(caller, turn):
                    return
            except Exception as error:  # noqa: BLE001 - a peer's failure is part of the result
                errors[type(error).__name__] += 1
            else:
                latencies.append(time.perf_counter() - start)
            turn += 1

    await asyncio.gather(*(call(caller) for caller in range(callers)))
    took, used = time.perf_counter() - began, time.process_time() - cpu
    done = len(latencies)
    return Sample(
        rate=done / took,
        cpu=used / max(done, 1),
        p50=quantile(latencies, 0.5),
        p99=quantile(latencies, 0.99),
        operations=done,
        errors=dict(errors),
    )
