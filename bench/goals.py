"""The goals: each is a figure of one run and its bound, for each store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.services.growth import FEW
from bench.support.peers import OPERATIONS

Results = dict[str, Any]
Found = Any
"""The results of one store, by section."""

STORES: Final = {"sqlite": "SQLite", "postgres": "PostgreSQL"}

_FLAT: Final = 1.2
"""What is flat within 20 %."""

_AS_BEFORE: Final = 1.05
"""What is no slower: two measurements of the same code differ by a twentieth."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio, and whether it has to be at least or at most its bound."""

    what: str
    store: str
    value: float
    bound: float
    at_least: bool
    note: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def reach(self) -> float:
        """Return how much of the goal was reached: 1 or more is met."""
        if self.at_least:
            return self.value / self.bound
        return self.bound / self.value if self.value > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A goal before it is measured.

    Attributes:
        what: its row in the table.
        section: where its figure comes from.
        value: finds the figure in that section, and a note to it.
        bounds: its bound for each store; a store that is left out has no such goal.
        at_least: whether the figure has to reach the bound, or to stay below it.
    """

    what: str
    section: str
    value: Callable[[Found, str], tuple[float, str]]
    bounds: dict[str, float]
    at_least: bool = True


def goals(results: Results) -> list[Goal]:
    """Return the goals whose figures were measured, in the order of the table."""
    return list(_goals(results))


def _goals(results: Results) -> Iterator[Goal]:
    for asked in _ASKED:
        for store, bound in asked.bounds.items():
            found = results.get(store, {}).get(asked.section)
            if found is None:
                continue
            try:
                value, note = asked.value(found, store)
            except KeyError:  # the earlier Lapse is not in every checkout
                continue
            yield Goal(asked.what, store, value, bound, asked.at_least, note)


_API_SERVER: Final = {"sqlite": "sqlite", "postgres": "database"}
"""Which session service `adk api_server` has for a store's URL."""


def _http(step: str, number: str, peer: str = "") -> Callable[[Found, str], tuple[float, str]]:
    def value(found: Found, store: str) -> tuple[float, str]:
        servers = found["servers"]
        held = servers[peer or _API_SERVER[store]]
        return servers["lapse"][step][number] / held[step][number], ""

    return value


def _service(operation: str, peer: str) -> Callable[[Found, str], tuple[float, str]]:
    def value(found: Found, _store: str) -> tuple[float, str]:
        measured = found["operations"][operation]["32"]
        return measured["lapse"]["rate"] / measured[peer]["rate"], ""

    return value


def _one_caller(found: Found, _store: str) -> tuple[float, str]:
    ratios = {
        what: of["1"]["lapse"]["p50"] / of["1"]["before"]["p50"]
        for operation, what in OPERATIONS.items()
        for of in [found["operations"][operation]]
    }
    return _worst(ratios)


def _beside(found: Found, _store: str) -> tuple[float, str]:
    return _worst({name: found["beside"][name]["ratio"] for name in ("create", "message")})


def _drain(found: Found, _store: str) -> tuple[float, str]:
    return found["drain"]["consumers"]["rate"] / found["drain"]["bare"]["rate"], ""


def _start(found: Found, store: str) -> tuple[float, str]:
    return found["lapse"]["seconds"] / found[_API_SERVER[store]]["seconds"], ""


def _growth(found: Found, _store: str) -> tuple[float, str]:
    few, most = str(FEW), str(max(found["stored"]))
    return _worst(
        {
            OPERATIONS[operation]: sizes[most]["cpu"] / sizes[few]["cpu"]
            for operation, sizes in found["operations"].items()
        }
    )


def _idle(found: Found, _store: str) -> tuple[float, str]:
    few, most = str(FEW), str(max(found["stored"]))
    return found["idle"][most]["p50"] / found["idle"][few]["p50"], ""


def _worst(ratios: dict[str, float]) -> tuple[float, str]:
    """Return the largest ratio, and of what it is."""
    what = max(ratios, key=lambda name: ratios[name])
    return ratios[what], what


def _both(bound: float) -> dict[str, float]:
    return dict.fromkeys(STORES, bound)


_DATABASE: Final = "of DatabaseSessionService"

_ASKED: Final = (
    _Asked("HTTP create, of api_server", "http", _http("create", "rate"), _both(12.0)),
    _Asked(
        "HTTP get of 50 events, of api_server",
        "http",
        _http("get_50", "rate"),
        {"sqlite": 10.0, "postgres": 8.0},
    ),
    _Asked(
        "HTTP list of 20, of api_server",
        "http",
        _http("list_20", "rate"),
        {"sqlite": 10.0, "postgres": 8.0},
    ),
    _Asked(
        "/run_sse, of api_server",
        "http",
        _http("run_sse", "rate"),
        {"sqlite": 3.6, "postgres": 6.0},
    ),
    _Asked(
        "/run_sse, CPU of api_server on memory://",
        "http",
        _http("run_sse", "cpu", "memory"),
        {"sqlite": 1.05},
        at_least=False,
    ),
    _Asked(
        "/run_sse, first byte at 4 connections, of api_server",
        "http",
        _http("run_few", "first_body_p50"),
        {"sqlite": 0.25, "postgres": 0.33},
        at_least=False,
    ),
    _Asked(
        f"create, {_DATABASE}",
        "services",
        _service("create_session", "database"),
        {"sqlite": 45.0, "postgres": 25.0},
    ),
    _Asked(
        "create, of a bare INSERT",
        "services",
        _service("create_session", "bare"),
        {"postgres": 0.7},
    ),
    _Asked(
        f"first message, {_DATABASE}",
        "services",
        _service("append_first", "database"),
        {"sqlite": 20.0, "postgres": 12.0},
    ),
    _Asked(
        f"later message, {_DATABASE}",
        "services",
        _service("append_later", "database"),
        {"sqlite": 32.0, "postgres": 12.0},
    ),
    _Asked(
        f"get of 50 events, {_DATABASE}",
        "services",
        _service("get_50", "database"),
        {"sqlite": 10.0, "postgres": 8.0},
    ),
    _Asked(
        "get of 50 events, of InMemorySessionService",
        "services",
        _service("get_50", "memory"),
        {"sqlite": 1.2},
    ),
    _Asked(
        f"list of 20, {_DATABASE}",
        "services",
        _service("list_20", "database"),
        {"sqlite": 10.0, "postgres": 8.0},
    ),
    _Asked(
        "one caller, p50 of the slowest operation, of the earlier Lapse",
        "services",
        _one_caller,
        _both(_AS_BEFORE),
        at_least=False,
    ),
    _Asked(
        "drain with metrics and log, of a bare UPDATE",
        "sweep",
        _drain,
        {"sqlite": 0.4, "postgres": 0.5},
    ),
    _Asked(
        "p99 of 8 paced callers beside that drain, of idle",
        "sweep",
        _beside,
        _both(2.0),
        at_least=False,
    ),
    _Asked("start to first answer, of api_server", "start", _start, _both(1.08), at_least=False),
    _Asked(
        f"CPU per operation, most stored, of {FEW:,} stored",
        "growth",
        _growth,
        _both(_FLAT),
        at_least=False,
    ),
    _Asked(
        f"sweep with nothing due, most stored, of {FEW:,} stored",
        "growth",
        _idle,
        _both(_FLAT),
        at_least=False,
    ),
)
