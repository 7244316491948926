"""The share of sessions that have no message yet at each age, and for how long they are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from lapse.core.ages import EDGES, edge_at_most
from lapse.ttl.observed import Cohort


@dataclass(frozen=True, slots=True)
class Curve:
    """The survival curve of sessions without a message, after Kaplan and Meier.

    Attributes:
        silent: for each edge of `core.ages.EDGES` up to the horizon, the share of sessions
            that have had no message by that age.
    """

    silent: tuple[float, ...]

    @classmethod
    def of(cls, days: Iterable[Cohort], horizon: timedelta, now: datetime) -> Curve | None:
        """Return the curve of the mature days; None if they have no sessions.

        A session that its owner deleted before any message counts up to the age of its deletion.
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
        """Return for how long a session is kept without a message on average, with this TTL."""
        kept = timedelta(0)
        for j in range(len(self.silent) - 1):
            if EDGES[j] >= ttl:
                break
            kept += self.silent[j] * (min(ttl, EDGES[j + 1]) - EDGES[j])
        return kept
