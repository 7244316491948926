"""How often one decision breaks its target, and what it costs beside the oracle."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np

from bench.ttl.truths import EDGE_SECONDS, TRUTHS
from lapse.core.ages import BUCKETS, Histogram
from lapse.ttl import Cohort, Reason, Scope, Targets, decide

REPETITIONS = 1_000
SIZES = (600, 1_000, 5_000, 20_000)
SOFTS = (0.05, 0.005)
NOW = datetime(2030, 1, 10, tzinfo=UTC)


@dataclass(frozen=True)
class Covered:
    """Of one distribution, target and sample size: shares of broken targets, ratios of cost."""

    truth: str
    soft: float
    size: int
    decided: int
    broken: float
    cost: float
    median_minutes: float
    naive_p99: float
    naive_point: float


def covered(number: int, soft: float, size: int) -> Covered:
    truth = TRUTHS[number]
    targets = replace(Targets(), soft=soft)
    chance = np.random.default_rng([size, int(soft * 1e4), len(truth.name)])
    oracle_cost = truth.cost(truth.oracle(soft))
    cost, miss = cache(truth.cost), cache(truth.miss)

    def share(found: list[float]) -> float:
        return sum(miss(ttl) > soft for ttl in found) / len(found)

    ttls, p99s, points = [], [], []
    for _ in range(REPETITIONS):
        counts = chance.multinomial(size, truth.buckets)
        later = size - np.concatenate([[0], np.cumsum(counts)])
        p99s.append(1.1 * EDGE_SECONDS[np.argmax(later <= 0.01 * size)])
        points.append(EDGE_SECONDS[np.argmax(later <= soft * size)])
        padded = (*map(int, counts), *[0] * (BUCKETS - len(counts)))
        cohort = Cohort((NOW - timedelta(days=3)).date(), Histogram(padded))
        decision = decide(Scope("app"), [cohort], None, targets, NOW)
        if decision.reason is not Reason.TOO_FEW:
            assert decision.wanted is not None
            ttls.append(decision.wanted.total_seconds())
    return Covered(
        truth.name,
        soft,
        size,
        len(ttls),
        share(ttls),
        statistics.mean(cost(ttl) for ttl in ttls) / oracle_cost,
        statistics.median(ttls) / 60,
        share(p99s),
        share(points),
    )
