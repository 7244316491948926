"""Ages in log-spaced buckets, and histograms of them that merge by addition.

The edges do not depend on the horizon, so that counts stay comparable when it changes; a decision
uses the edges up to the horizon. Edge 0 is zero, edge 1 is 15 s, edge 96 is 24 h, and each is about
9.5 % above the one before. Bucket b holds the ages above edge b, up to and including edge b + 1.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Final

_FIRST: Final = timedelta(seconds=15)
_DAY: Final = timedelta(hours=24)
_DAY_EDGE: Final = 96
_RATIO: Final[float] = (_DAY / _FIRST) ** (1 / (_DAY_EDGE - 1))

BUCKETS: Final = 162
"""Enough for the longest horizon, 366 days."""

EDGES: Final = (timedelta(0), *(_FIRST * _RATIO**power for power in range(BUCKETS - 1)))


def bucket_of(age: timedelta) -> int:
    """Return the bucket of an age; an age of zero or less is in the first one."""
    return max(0, bisect_left(EDGES, age) - 1)


def edge_at_most(limit: timedelta) -> int:
    """Return the number of the last edge that is not above `limit`."""
    return bisect_right(EDGES, limit) - 1


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many ages fell into each bucket."""

    counts: tuple[int, ...] = (0,) * BUCKETS

    @classmethod
    def of(cls, buckets: Iterable[int]) -> Histogram:
        """Count buckets, one for each age."""
        counts = [0] * BUCKETS
        for bucket in buckets:
            counts[bucket] += 1
        return cls(tuple(counts))

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(tuple(map(int.__add__, self.counts, other.counts)))

    def later_than(self, horizon_edge: int) -> tuple[int, ...]:
        """Return for each edge up to `horizon_edge` how many ages are above it.

        Ages above the horizon are not counted: the first number is how many ages are within the
        horizon, the last is 0.
        """
        within = self.counts[:horizon_edge]
        return (*tuple(accumulate(reversed(within)))[::-1], 0)
