"""Sweeps: what they cost with nothing due, and how fast they drain, alone and beside others."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.support.children import Child
from bench.support.figures import medians
from bench.support.places import Places
from bench.support.scale import Scale

FEW: Final = 1_000

DRAINS: Final = {
    "bare": {"do": "bare"},
    "alone": {"do": "drain", "consumers": False},
    "consumers": {"do": "drain", "consumers": True},
}
LOADS: Final = {
    "paced": {"callers": 8, "pause": 0.02},
    "closed": {"callers": 32, "pause": 0.0},
}


def measure(scale: Scale, scratch: Path, places: Places) -> dict[str, Any]:
    """Return the time of idle sweeps by sessions stored, drain rates, and latencies beside."""
    print("  sweep: filling", flush=True)
    sizes = (FEW, scale.stored, *scale.huge_on(places.store))
    filled = {stored: places.filled(f"stored_{stored}", stored) for stored in sizes}
    drains: dict[str, list[dict[str, Any]]] = defaultdict(list)
    beside: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with Child("bench.sweep.sweep_worker", places.store, cwd=scratch) as worker:
        idle = _idle(worker, filled, scale)
        plans = {str(stored): places.plans(f"stored_{stored}") for stored in sizes}
        many = f"stored_{scale.stored}"
        places.make_due(many, scale.due)
        for number in range(scale.sweep_rounds):
            print(f"  sweep: round {number + 1} of {scale.sweep_rounds}", flush=True)
            for name, request in _rotated(list(DRAINS.items()), number):
                drains[name].append(worker.ask(url=places.copy(many), **request))
                assert drains[name][-1]["expired"] == scale.due
            for name, load in LOADS.items():
                beside[name].append(
                    worker.ask(
                        do="beside",
                        url=places.copy(many),
                        seconds=scale.idle_seconds,
                        due=scale.due_beside,
                        **load,
                    )
                )
    return {
        "stored": scale.stored,
        "due": scale.due,
        "idle": idle,
        "plans": plans,
        "drain": {name: medians(found) for name, found in drains.items()},
        "beside": {name: _middle(found) for name, found in beside.items()},
    }


def _idle(worker: Child, urls: dict[int, str], scale: Scale) -> dict[str, dict[str, float]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(scale.sweep_rounds):
        for stored, url in urls.items():
            found[stored].append(worker.ask(do="idle", url=url, sweeps=scale.idle_sweeps))
    return {str(stored): medians(samples) for stored, samples in found.items()}


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
