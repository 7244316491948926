"""The goals, each a number from the results and the bound it is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.support.peers import OPERATIONS

Results = dict[str, Any]

_MEBIBYTE: Final = 2**20


@dataclass(frozen=True, slots=True)
class Goal:
    """One number and its bound: at least it, or at most it."""

    section: str
    what: str
    value: float
    bound: float
    at_least: bool
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def reach(self) -> float:
        """Return how much of the goal was reached: 1 or more is met."""
        if not self.bound:
            return 1.0 if self.met else 0.0
        if self.at_least:
            return self.value / self.bound
        return self.bound / self.value if self.value > 0 else float("inf")

    @property
    def verdict(self) -> str:
        return "met" if self.met else f"missed: {self.reach:.2f} of it"


PEER_NAMES: Final = {
    "database": "DatabaseSessionService",
    "sqlite": "SqliteSessionService",
    "memory": "InMemorySessionService",
    "bare": "a bare INSERT",
}
_COSTS: Final = {"cpu": "CPU per operation", "p99": "p99"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one store is held to.

    Attributes:
        rates: by operation and peer, how many times the peer's rate.
        costs: what share of a peer's cost is the most, for every operation.
        cost_peers: the peers that hold for.
        idle: milliseconds of a sweep with nothing due; None where only growth counts.
        drain: rate of a drain against one UPDATE.
        http_peer: the server that ours is held against.
        http_rates: how many times its requests per second, by step.
        first_body: what share of its time to the first byte of a stream; None for no goal.
        start: how many times its time to start; None for no goal.
    """

    rates: dict[str, dict[str, float]]
    costs: dict[str, float]
    cost_peers: tuple[str, ...]
    idle: float | None
    drain: float
    http_peer: str
    http_rates: dict[str, float]
    first_body: float | None
    start: float | None


_BOUNDS: Final = {
    "sqlite": Bounds(
        rates={
            "create_session": {"database": 40.0, "sqlite": 15.0},
            "append_first": {"database": 30.0, "sqlite": 20.0},
            "append_later": {"database": 30.0, "sqlite": 20.0},
            "get_empty": {"database": 20.0, "sqlite": 6.0},
            "get_50": {"database": 10.0, "memory": 1.2},
            "list_20": {"database": 8.0},
        },
        costs={"cpu": 1 / 10, "p99": 1 / 20},
        cost_peers=("database", "sqlite"),
        idle=1.0,
        drain=0.4,
        http_peer="sqlite",
        http_rates={"create": 8.0, "run_sse": 3.5},
        first_body=1 / 3,
        start=1.1,
    ),
    "postgres": Bounds(
        rates={
            "create_session": {"database": 8.0, "bare": 0.5},
            "append_first": {"database": 10.0},
            "append_later": {"database": 10.0},
            "get_empty": {"database": 8.0},
            "get_50": {"database": 8.0},
            "list_20": {"database": 6.0},
        },
        costs={"cpu": 1 / 10, "p99": 1 / 8},
        cost_peers=("database",),
        idle=None,
        drain=0.5,
        http_peer="database",
        http_rates={"create": 10.0, "run_sse": 6.0},
        first_body=None,
        start=None,
    ),
}

HTTP_STEPS: Final = {"create": "create", "run_sse": "/run_sse"}

_Goals = Iterator[tuple[str, float, float, bool, str]]
"""What is measured, its value, its bound, whether that is the least, and the unit."""
_Find = Callable[[Any, Bounds], _Goals]


def goals(results: Results) -> list[Goal]:
    """Return the goals of the sections that were measured."""
    sections: dict[str, _Find] = {
        "services": _services,
        "sweep": _sweep,
        "lateness": _lateness,
        "memory": _memory,
        "http": _http,
    }
    return [
        Goal(f"{store} {section}", what, value, bound, at_least=at_least, unit=unit)
        for store, bounds in _BOUNDS.items()
        for section, find in sections.items()
        if section in results.get(store, {})
        for what, value, bound, at_least, unit in find(results[store][section], bounds)
    ]


def _services(found: Any, bounds: Bounds) -> _Goals:
    def ratio(operation: str, peer: str, number: str) -> float:
        measured = found["operations"][operation]["32"]
        return float(measured["lapse"][number] / measured[peer][number])

    for operation, peers in bounds.rates.items():
        for peer, bound in peers.items():
            what = f"{OPERATIONS[operation]}: rate against {PEER_NAMES[peer]}"
            yield what, ratio(operation, peer, "rate"), bound, True, "x"
    for number, bound in bounds.costs.items():
        for operation, shown in OPERATIONS.items():
            for peer in bounds.cost_peers:
                what = f"{shown}: {_COSTS[number]} against {PEER_NAMES[peer]}"
                yield what, ratio(operation, peer, number), bound, False, "x"


def _sweep(found: Any, bounds: Bounds) -> _Goals:
    times = {int(stored): sample["p50"] for stored, sample in found["idle"].items()}
    few = min(times)
    for stored, time in times.items():
        if bounds.idle is not None:
            what = f"nothing due, {stored:,} stored: time of a sweep"
            yield what, time * 1e3, bounds.idle, False, " ms"
        if stored > few:
            # The same time: within the noise of a quarter.
            what = f"nothing due: {stored:,} stored against {few:,}"
            yield what, time / times[few], 1.25, False, "x"
    bare = found["drain"]["bare"]["rate"]
    for name, what in (("alone", "no consumers"), ("consumers", "metrics and log")):
        rate = found["drain"][name]["rate"] / bare
        yield f"drain against one UPDATE, {what}", rate, bounds.drain, True, "x"
    for load, shown in (("paced", "8 paced callers"), ("closed", "32 callers without pause")):
        for operation in ("create", "message"):
            what = f"{operation} beside a drain, {shown}: p99 against idle"
            yield what, found["beside"][load][operation]["ratio"], 2.0, False, "x"


def _lateness(found: Any, _bounds: Bounds) -> _Goals:
    what = f"{found['sessions']:,} due within {found['within']:.0f} s"
    yield f"{what}: expired", found["expired"] / found["sessions"], 1.0, True, "x"
    yield f"{what}: p99, as the consumers hear of it", found["told"]["p99"], 1.0, False, " s"
    yield f"{what}: minimum, by the database's clock", found["decided"]["minimum"], 0.0, True, " s"


def _memory(found: Any, _bounds: Bounds) -> _Goals:
    lapse = found["lapse"]
    what = f"growth from 100 to {lapse['sessions']:,} waiting sessions"
    yield what, abs(lapse["growth"]) / _MEBIBYTE, 5.0, False, " MiB"


def _http(found: Any, bounds: Bounds) -> _Goals:
    lapse, peer = found["servers"]["lapse"], found["servers"][bounds.http_peer]

    def ratio(step: str, number: str) -> float:
        return float(lapse[step][number] / peer[step][number])

    for step, bound in bounds.http_rates.items():
        what = f"{HTTP_STEPS[step]}: requests per second"
        yield what, ratio(step, "rate"), bound, True, "x"
    if bounds.first_body is not None:
        for number, shown in (("first_body_p50", "median"), ("first_body_p99", "p99")):
            what = f"/run_sse: time to first byte of the stream, {shown}"
            yield what, ratio("run_sse", number), bounds.first_body, False, "x"
    if bounds.start is not None:
        yield "start to first answer", ratio("start", "seconds"), bounds.start, False, "x"
