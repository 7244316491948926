"""The session services, side by side: every operation, with 32 callers at once and with one.

With one caller an earlier Lapse is one of them.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.support.children import Child
from bench.support.figures import medians
from bench.support.peers import CALLERS, OPERATIONS, PEERS
from bench.support.places import Places
from bench.support.scale import Scale

FLOOR: Final = {"1": 1, "200": 200}


def measure(
    scale: Scale, scratch: Path, places: Places, *, earlier: Path | None = None
) -> dict[str, Any]:
    """Return medians by operation, callers and peer; and each peer's durability.

    Every peer has a process that waits while another is measured. A round measures everything
    once on fresh storage; operation by operation the peers follow each other, in rotating order.
    `earlier` is the source of an earlier Lapse; with None none is measured.
    """
    peers = [peer for peer in PEERS[places.store] if earlier or not peer.is_earlier]
    samples: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    durability: dict[str, str] = {}
    with ExitStack() as stack:
        workers = {
            peer.name: stack.enter_context(
                Child(
                    peer.module,
                    places.store,
                    peer.name,
                    cwd=scratch,
                    source=earlier if peer.is_earlier else None,
                )
            )
            for peer in peers
        }
        for number in range(scale.service_rounds):
            print(f"  services: round {number + 1} of {scale.service_rounds}", flush=True)
            with ExitStack() as round_stack:
                for name, worker in workers.items():
                    url = round_stack.enter_context(places.fresh())
                    durability[name] = worker.ask(do="open", url=url)["durability"]
                turn = number
                for callers in CALLERS:
                    for operation in OPERATIONS:
                        able = [
                            peer.name
                            for peer in peers
                            if operation in peer.operations and callers in peer.callers
                        ]
                        for name in _rotated(able, turn):
                            sample = workers[name].ask(
                                do="measure",
                                operation=operation,
                                callers=callers,
                                seconds=scale.seconds(callers),
                            )
                            samples[operation, callers, name].append(sample)
                        turn += 1
                for worker in workers.values():
                    worker.ask(do="close")
    return {
        "durability": durability,
        "operations": {
            operation: {
                str(callers): {
                    peer.name: medians(samples[operation, callers, peer.name])
                    | {"errors": _errors(samples[operation, callers, peer.name])}
                    for peer in peers
                    if operation in peer.operations and callers in peer.callers
                }
                for callers in CALLERS
            }
            for operation in OPERATIONS
        },
    }


def floor(scale: Scale, scratch: Path, places: Places) -> dict[str, dict[str, float]]:
    """Return medians of SQLite's floor, by rows in a transaction."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with Child("bench.services.floor_worker", cwd=scratch) as bare:
        for _ in range(scale.service_rounds):
            for name, rows in FLOOR.items():
                with places.fresh() as url:
                    found[name].append(bare.ask(url=url, rows=rows, seconds=scale.seconds(1)))
    return {name: medians(samples) for name, samples in found.items()}


def _rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


def _errors(samples: list[dict[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = defaultdict(int)
    for sample in samples:
        for name, count in sample["errors"].items():
            total[name] += count
    return dict(total)
