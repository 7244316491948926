"""The goals, each a number from the results and the bound it is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from service_level import OPERATIONS

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
        if self.at_least:
            return self.value / self.bound
        return self.bound / self.value if self.value > 0 else float("inf")

    @property
    def verdict(self) -> str:
        return "met" if self.met else f"missed: {self.reach:.2f} of it"


_RATES: Final = {
    # operation: how many times the rate of DatabaseSessionService, of SqliteSessionService
    "create_session": {"database": 40.0, "sqlite": 15.0},
    "append_first": {"database": 30.0, "sqlite": 20.0},
    "append_later": {"database": 30.0, "sqlite": 20.0},
    "get_empty": {"database": 20.0, "sqlite": 6.0},
    "get_50": {"database": 8.0, "memory": 1.0},
    "list_20": {"database": 8.0},
}
_COSTS: Final = {"cpu": ("CPU per operation", 1 / 10), "p99": ("p99", 1 / 20)}
PEER_NAMES: Final = {
    "database": "DatabaseSessionService",
    "sqlite": "SqliteSessionService",
    "memory": "InMemorySessionService",
}


def goals(results: Results) -> list[Goal]:
    """Return the goals of the sections that were measured."""
    sections: dict[str, Callable[[Any], Iterator[Goal]]] = {
        "services": _services,
        "sweep": _sweep,
        "memory": _memory,
        "http": _http,
    }
    return [
        goal
        for section, find in sections.items()
        if section in results
        for goal in find(results[section])
    ]


def _services(found: Any) -> Iterator[Goal]:
    def ratio(operation: str, peer: str, number: str) -> float:
        measured = found["operations"][operation]["32"]
        return float(measured["lapse"][number] / measured[peer][number])

    for operation, peers in _RATES.items():
        for peer, bound in peers.items():
            what = f"{OPERATIONS[operation]}: rate against {PEER_NAMES[peer]}"
            yield Goal("services", what, ratio(operation, peer, "rate"), bound, at_least=True)
    for number, (label, bound) in _COSTS.items():
        for operation, shown in OPERATIONS.items():
            for peer in ("database", "sqlite"):
                what = f"{shown}: {label} against {PEER_NAMES[peer]}"
                value = ratio(operation, peer, number)
                yield Goal("services", what, value, bound, at_least=False)


def _sweep(found: Any) -> Iterator[Goal]:
    for stored, sample in found["idle"].items():
        what = f"nothing due, {int(stored):,} stored: time of a sweep"
        yield Goal("sweep", what, sample["p50"] * 1e3, 1.0, at_least=False, unit=" ms")
    few, many = (sample["p50"] for sample in found["idle"].values())
    # The same time: within the noise of a quarter.
    yield Goal("sweep", "nothing due: many stored against few", many / few, 1.25, at_least=False)
    bare = found["drain"]["bare"]["rate"]
    for name, what in (("alone", "no consumers"), ("consumers", "metrics and log")):
        rate = found["drain"][name]["rate"] / bare
        yield Goal("sweep", f"drain against one UPDATE, {what}", rate, 0.5, at_least=True)
    for load, shown in (("paced", "8 paced callers"), ("closed", "32 callers without pause")):
        for operation in ("create", "message"):
            what = f"{operation} beside a drain, {shown}: p99 against idle"
            value = found["beside"][load][operation]["ratio"]
            yield Goal("sweep", what, value, 2.0, at_least=False)


def _memory(found: Any) -> Iterator[Goal]:
    lapse = found["lapse"]
    what = f"growth from 100 to {lapse['sessions']:,} waiting sessions"
    growth = abs(lapse["growth"]) / _MEBIBYTE
    yield Goal("memory", what, growth, 5.0, at_least=False, unit=" MiB")


def _http(found: Any) -> Iterator[Goal]:
    servers = found["servers"]
    lapse, peer = servers["lapse"], servers["sqlite"]

    def goal(what: str, step: str, number: str, bound: float, *, at_least: bool) -> Goal:
        value = lapse[step][number] / peer[step][number]
        return Goal("http", what, value, bound, at_least=at_least)

    yield goal("create: requests per second", "create", "rate", 8.0, at_least=True)
    yield goal("/run_sse: requests per second", "run_sse", "rate", 3.5, at_least=True)
    for number, what in (("first_body_p50", "median"), ("first_body_p99", "p99")):
        label = f"/run_sse: time to first byte of the stream, {what}"
        yield goal(label, "run_sse", number, 1 / 3, at_least=False)
    yield goal("start to first answer", "start", "seconds", 1.1, at_least=False)
