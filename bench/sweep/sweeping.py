"""Sweeps: how fast they drain a backlog, and what callers beside that feel of it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.support.children import Child
from bench.support.figures import medians
from bench.support.places import Places
from bench.support.scale import Scale

DRAINS: Final = {"bare": {"do": "bare"}, "consumers": {"do": "drain"}}
PACED: Final = {"callers": 8, "pause": 0.02}


def measure(scale: Scale, scratch: Path, places: Places) -> dict[str, Any]:
    """Return drain rates, and latencies of callers without and with a drain beside them."""
    print("  sweep: filling", flush=True)
    many = f"stored_{scale.stored}"
    places.filled(many, scale.stored)
    due = f"due_{scale.stored}"
    places.copy(many, to=due)
    places.make_due(due, scale.due)
    drains: dict[str, list[dict[str, Any]]] = defaultdict(list)
    beside: list[dict[str, Any]] = []
    with Child("bench.sweep.sweep_worker", places.store, cwd=scratch) as worker:
        for number in range(scale.sweep_rounds):
            print(f"  sweep: round {number + 1} of {scale.sweep_rounds}", flush=True)
            for name, request in _rotated(list(DRAINS.items()), number):
                drains[name].append(worker.ask(url=places.copy(due), **request))
                assert drains[name][-1]["expired"] == scale.due
            beside.append(
                worker.ask(
                    do="beside",
                    url=places.copy(due),
                    seconds=scale.idle_seconds,
                    due=scale.due_beside,
                    **PACED,
                )
            )
    return {
        "stored": scale.stored,
        "due": scale.due,
        "drain": {name: medians(found) for name, found in drains.items()},
        "beside": _middle(beside),
    }


def _middle(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over the rounds, of the latencies and of their ratio in one round."""
    return {
        "rate": median(sample["rate"] for sample in found),
        **{
            operation: {
                "idle_p99": median(sample["idle"][operation]["p99"] for sample in found),
                "during_p99": median(sample["during"][operation]["p99"] for sample in found),
                "idle_p50": median(sample["idle"][operation]["p50"] for sample in found),
                "during_p50": median(sample["during"][operation]["p50"] for sample in found),
                "samples": median(sample["during"][operation]["operations"] for sample in found),
                "ratio": median(
                    sample["during"][operation]["p99"] / sample["idle"][operation]["p99"]
                    for sample in found
                ),
            }
            for operation in ("create", "message")
        },
    }


def _rotated(items: list[tuple[str, Any]], by: int) -> list[tuple[str, Any]]:
    by %= len(items)
    return items[by:] + items[:by]
