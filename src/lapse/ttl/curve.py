"""How many sessions are still without a message at an age, and what their waiting costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from lapse.core.ages import EDGES, edge_at_most
from lapse.ttl.observed import Cohort


@dataclass(frozen=True, slots=True)
class Curve:
    """Kaplan and Meier's estimate: at each edge, the share that has had no message by then."""

    silent: tuple[float, ...]

    @classmethod
    def of(cls, days: Iterable[Cohort], horizon: timedelta, now: datetime) -> Curve | None:
        """Return the curve of the mature days; None where there is none.

        A session that was withdrawn is at risk up to that age and not beyond.
        """
        mature = [day for day in days if day.mature(now, horizon)]
        at_risk = sum(day.counted for day in mature)
        if not at_risk:
            return None
        silent = [1.0]
        for b in range(edge_at_most(horizon)):
            heard = sum(day.used.counts[b] + day.control.counts[b] for day in mature)
            withdrawn = sum(day.withdrawn.counts[b] for day in mature)
            silent.append(silent[-1] * (1 - heard / at_risk) if at_risk else silent[-1])
            at_risk -= heard + withdrawn
        return cls(tuple(silent))

    def cost(self, ttl: timedelta) -> timedelta:
        """Return for how long a session is kept without a message, on average, with a TTL."""
        kept = timedelta(0)
        for j in range(len(self.silent) - 1):
            if EDGES[j] >= ttl:
                break
            kept += self.silent[j] * (min(ttl, EDGES[j + 1]) - EDGES[j])
        return kept
