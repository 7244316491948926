"""What more stored sessions cost: CPU per operation, and a sweep with nothing due."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.support.children import Child
from bench.support.figures import medians
from bench.support.peers import OPERATIONS
from bench.support.places import Places
from bench.support.scale import Scale

FEW: Final = 1_000
_CALLERS: Final = 32


def measure(scale: Scale, scratch: Path, places: Places) -> dict[str, Any]:
    """Return medians by operation and by number of stored sessions.

    Each number has a process of its own; operation by operation they follow each other. CPU is
    that of the process and of the database server.
    """
    sizes = (FEW, scale.stored, *scale.huge_on(places.store))
    print(f"  growth: filling {sizes[-1]:,}", flush=True)
    urls = {stored: places.filled(f"stored_{stored}", stored) for stored in sizes}
    samples: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    idle: dict[int, list[dict[str, Any]]] = defaultdict(list)
    with ExitStack() as stack:
        workers = {
            stored: stack.enter_context(
                Child("bench.services.service_worker", places.store, "lapse", cwd=scratch)
            )
            for stored in sizes
        }
        sweeper = stack.enter_context(Child("bench.sweep.sweep_worker", places.store, cwd=scratch))
        for number in range(scale.growth_rounds):
            print(f"  growth: round {number + 1} of {scale.growth_rounds}", flush=True)
            for stored, worker in workers.items():
                worker.ask(do="open", url=places.copy(f"stored_{stored}", to=f"grown_{stored}"))
            for turn, operation in enumerate(OPERATIONS):
                for stored in _turned(sizes, number + turn):
                    sample = _measured(workers[stored], operation, scale, places)
                    samples[operation][stored].append(sample)
            for worker in workers.values():
                worker.ask(do="close")
            for stored in _turned(sizes, number):
                asked = {"url": urls[stored], "sweeps": scale.idle_sweeps}
                idle[stored].append(sweeper.ask(do="idle", **asked))
    return {
        "stored": list(sizes),
        "operations": {
            operation: {str(stored): medians(found) for stored, found in by_size.items()}
            for operation, by_size in samples.items()
        },
        "idle": {str(stored): medians(found) for stored, found in idle.items()},
        "plans": {str(stored): places.plans(f"stored_{stored}") for stored in sizes},
    }


def _measured(worker: Child, operation: str, scale: Scale, places: Places) -> dict[str, Any]:
    before = places.server_cpu()
    sample = worker.ask(
        do="measure", operation=operation, callers=_CALLERS, seconds=scale.growth_seconds
    )
    server = (places.server_cpu() - before) / max(1, sample["operations"])
    return sample | {"cpu": sample["cpu"] + server, "server": server}


def _turned(sizes: tuple[int, ...], by: int) -> tuple[int, ...]:
    return sizes if by % 2 else sizes[::-1]
