"""The policy in a closed loop, day after day, beside rules that see only messages in time."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.ttl.truths import EDGE_SECONDS
from lapse.ttl import Reason, Targets
from lapse.ttl.simulation.generators import Plan, generate
from lapse.ttl.simulation.replay import replay
from lapse.ttl.simulation.traces import Arrival

DAYS, PER_DAY = 60, 1_650
STEP_DAY = DAYS // 2
SEEDS = range(10)
DAY = 86_400
SETTLED = 5
"""2 H + 3 days, with H of one day: from then on the target holds again."""

Rule = Callable[[np.ndarray, np.ndarray, float], float]


@dataclass(frozen=True)
class Looped:
    """The soft misses in each phase of a history under one policy, and the cost."""

    name: str
    policy: str
    soft: float
    phases: dict[str, tuple[float, float]]
    """By name of the phase: the mean over the seeds, and the worst."""
    cost: float
    """Empty session-hours, of those of the fixed TTL that is right afterwards."""
    last_minutes: float
    alarms: float


def phases_of(name: str) -> dict[str, tuple[int, int]]:
    if name == "step":
        return {
            "before": (7, STEP_DAY),
            "first 5 days": (STEP_DAY, STEP_DAY + SETTLED),
            "after": (STEP_DAY + SETTLED, DAYS),
        }
    return {"days 7 to 30": (7, 30), "days 45 to 60": (45, DAYS)}


def looped(name: str, policy: str, soft: float) -> Looped:
    found = [run(name, policy, soft, seed) for seed in SEEDS]
    return Looped(
        name,
        policy,
        soft,
        {
            phase: (
                statistics.mean(one.phases[phase][0] for one in found),
                max(one.phases[phase][0] for one in found),
            )
            for phase in found[0].phases
        },
        statistics.mean(one.cost for one in found),
        statistics.mean(one.last_minutes for one in found),
        statistics.mean(one.alarms for one in found),
    )


def run(name: str, policy: str, soft: float, seed: int) -> Looped:
    targets = replace(Targets(), soft=soft)
    history = list(generate(name, Plan(DAYS, PER_DAY, seed=seed)))
    replayed = replay(history, targets)
    alarms = 0
    match policy:
        case "adaptive":
            start = history[0].created
            moments = [-math.inf, *(at.timestamp() for at, _ in replayed.ttls)]
            values = [targets.default.total_seconds()]
            values += [ttl.total_seconds() for _, ttl in replayed.ttls]

            def ttl_at(created: float) -> float:
                return values[bisect_right(moments, created) - 1]

            alarms = sum(decision.reason is Reason.RAISED for decision in replayed.decisions)
        case "fixed 30 min":
            start = history[0].created

            def ttl_at(_created: float) -> float:
                return 1800.0

        case _:
            start = history[0].created
            chosen = blind(history, start - start % DAY, soft, RULES[policy])

            def ttl_at(created: float) -> float:
                return chosen[int((created - start + start % DAY) // DAY)]

    start -= start % DAY
    oracle = replayed.fixed(replayed.oracle(soft)).empty_seconds
    empty = sum(min(arrival.delay, ttl_at(arrival.created)) for arrival in history)
    return Looped(
        name,
        policy,
        soft,
        {
            phase: (missed(history, start, ttl_at, days), 0.0)
            for phase, days in phases_of(name).items()
        },
        empty / oracle,
        ttl_at(history[-1].created) / 60,
        alarms,
    )


def missed(
    history: Sequence[Arrival], start: float, ttl_at: Callable[[float], float],
    days: tuple[int, int],
) -> float:  # fmt: skip
    """Return the share of soft misses; without one heavy user, if there is one."""
    late = heard = 0
    for arrival in history:
        if (
            days[0] <= (arrival.created - start) / DAY < days[1]
            and arrival.delay <= Targets().horizon.total_seconds()
            and arrival.user != "heavy"
        ):
            heard += 1
            late += arrival.delay >= ttl_at(arrival.created)
    return late / heard


def blind(history: Sequence[Arrival], start: float, soft: float, rule: Rule) -> list[float]:
    """Each day's TTL of a rule that never hears of messages after the TTL: no tombstones."""
    days = np.array([int((arrival.created - start) // DAY) for arrival in history])
    delays = np.array([arrival.delay for arrival in history])
    ttls, seen = [1800.0], []
    for day in range(DAYS - 1):
        of_day = delays[days == day]
        seen.append((of_day, np.full(len(of_day), ttls[-1])))
        window = [np.concatenate(parts) for parts in zip(*seen[-28:], strict=True)]
        ttls.append(float(min(max(rule(*window, soft), 300.0), DAY)))
    return ttls


def p99(delays: np.ndarray, ttls: np.ndarray, _soft: float) -> float:
    """The 99th percentile of what was seen, and a tenth more."""
    return 1.1 * float(np.quantile(delays[delays < ttls], 0.99))


def kaplan_meier(delays: np.ndarray, ttls: np.ndarray, soft: float) -> float:
    """The smallest edge at which Kaplan and Meier's curve has all but the target's share."""
    seen = delays < ttls
    heard = np.histogram(delays[seen], EDGE_SECONDS)[0]
    left = np.histogram(ttls[~seen], EDGE_SECONDS)[0]
    at_risk = len(delays) - np.concatenate([[0], np.cumsum(heard + left)[:-1]])
    silent = np.concatenate([[1.0], np.cumprod(1 - heard / np.maximum(at_risk, 1))])
    return float(EDGE_SECONDS[np.argmax((silent - silent[-1]) <= soft * (1 - silent[-1]))])


RULES = {"p99 + 10 %, no tombstones": p99, "Kaplan-Meier, no tombstones": kaplan_meier}
AIMS = {"p99 + 10 %, no tombstones": 0.01, "Kaplan-Meier, no tombstones": 0.05}
POLICIES = ("adaptive", "fixed 30 min", *RULES)
HISTORIES = ("mixture", "weibull", "rising", "morning", "daily", "one-user", "ramp", "step")
