"""How late sessions expire when several replicas sweep one database."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.support import lobby_table
from bench.support.children import Child
from bench.support.figures import quantile
from bench.support.places import Databases
from bench.support.scale import Scale

REPLICAS: Final = 3
_LEAD: Final = 3.0
_TAIL: Final = 3.0


def measure(scale: Scale, scratch: Path, places: Databases) -> dict[str, Any]:
    """Return the lateness of sessions that fall due at random times while replicas sweep."""
    print(f"  lateness: {scale.late_within:.0f} s", flush=True)
    url = places.prepared("late")
    with ExitStack() as stack:
        replicas = [
            stack.enter_context(Child("bench.sweep.lateness_worker", str(number), cwd=scratch))
            for number in range(REPLICAS)
        ]
        lobby_table.fill_due_within(
            places.server, "late", scale.late, lead=_LEAD, within=scale.late_within
        )
        for replica in replicas:
            replica.send(url=url, seconds=_LEAD + scale.late_within + _TAIL)
        answers = [replica.receive() for replica in replicas]
    decided = [late for answer in answers for late in answer["decided"]]
    told = [late for answer in answers for late in answer["told"]]
    return {
        "sessions": scale.late,
        "within": scale.late_within,
        "expired": len(decided),
        "by_replica": [len(answer["decided"]) for answer in answers],
        "decided": _spread(decided),
        "told": _spread(told),
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    return {
        "minimum": min(seconds),
        "p50": quantile(seconds, 0.5),
        "p99": quantile(seconds, 0.99),
        "maximum": max(seconds),
    }
