"""Distributions of the time to the first message, known exactly, in the rule's own buckets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lapse.core.ages import EDGES, edge_at_most
from lapse.ttl import Targets

HORIZON = Targets().horizon.total_seconds()
LAST = edge_at_most(Targets().horizon)
EDGE_SECONDS = np.array([edge.total_seconds() for edge in EDGES[: LAST + 1]])
USED = 0.35
"""The share of sessions that ever get a message, unless a distribution has its own."""


def log_normal(median: float, sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda t: stats.lognorm.cdf(t, sigma, scale=median)


def mixture(t: np.ndarray) -> np.ndarray:
    return (
        0.88 * log_normal(30, 1.1)(t)
        + 0.10 * log_normal(480, 0.9)(t)
        + 0.02 * log_normal(3600, 1.0)(t)
    )


def morning(t: np.ndarray) -> np.ndarray:
    """A twentieth comes in the evening, 18 to 24 h, and speaks at about 8:30 the next day."""
    hours = np.linspace(18, 24, 61)[:, None]
    late = stats.norm.cdf(np.atleast_1d(t)[None, :] / 3600 - (24 - hours + 8.5)).mean(axis=0)
    return 0.95 * mixture(t) + 0.05 * late.reshape(np.shape(t))


@dataclass(frozen=True)
class Truth:
    """One distribution; `within(t)` is the share, of those within the horizon, heard by t."""

    name: str
    cdf: Callable[[np.ndarray], np.ndarray]
    used: float = USED

    def within(self, t: np.ndarray | float) -> np.ndarray:
        return self.cdf(np.asarray(t, float)) / self.cdf(np.asarray(HORIZON))

    @property
    def buckets(self) -> np.ndarray:
        shares = np.diff(self.within(EDGE_SECONDS))
        return shares / shares.sum()

    def miss(self, ttl: float) -> float:
        return float(1 - self.within(ttl))

    def oracle(self, soft: float) -> float:
        """Return the shortest TTL that meets the target, in seconds."""
        low, high = 0.0, HORIZON
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.miss(middle) > soft else (low, middle)
        return high

    def cost(self, ttl: float) -> float:
        """Return the mean seconds for which a session is kept without a message."""
        t = np.concatenate([[0.0], np.geomspace(0.01, ttl, 2000)])
        return float(np.trapezoid(1 - self.used * self.cdf(t), t))


TRUTHS = (
    Truth("mixture", mixture),
    Truth("mixture, 5 % used", mixture, 0.05),
    Truth("mixture, 70 % used", mixture, 0.70),
    Truth("Weibull, falling rate", lambda t: stats.weibull_min.cdf(t, 0.5, scale=120)),
    Truth("Weibull, rising rate", lambda t: stats.weibull_min.cdf(t, 2, scale=600)),
    Truth("next morning", morning),
)


def three_errors(share: float, repetitions: int) -> float:
    return 3 * math.sqrt(share * (1 - share) / repetitions)
