"""The session services, side by side: every operation, with 32 callers at once and with one."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from children import Child
from figures import medians
from peers import PEERS
from scale import Scale

OPERATIONS: Final = {
    "create_session": "create",
    "append_first": "append, first message",
    "append_later": "append, later message",
    "get_empty": "get, empty",
    "get_50": "get, 50 events",
    "list_20": "list of 20",
}
CALLERS: Final = (32, 1)
FLOOR: Final = {"1": 1, "200": 200}


def measure(scale: Scale, scratch: Path) -> dict[str, Any]:
    """Return medians by operation, callers and peer; the floor; and each peer's durability.

    Every peer has a process that waits while another is measured. A round measures everything
    once on fresh files; operation by operation the peers follow each other, in rotating order.
    """
    samples: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    floor: dict[str, list[dict[str, Any]]] = defaultdict(list)
    durability: dict[str, str] = {}
    with ExitStack() as stack:
        workers = {
            peer.name: stack.enter_context(Child("service_worker.py", peer.name, cwd=scratch))
            for peer in PEERS
        }
        bare = stack.enter_context(Child("floor_worker.py", cwd=scratch))
        for number in range(scale.service_rounds):
            print(f"  services: round {number + 1} of {scale.service_rounds}", flush=True)
            with tempfile.TemporaryDirectory(dir=scratch) as directory:
                for worker in workers.values():
                    worker.send(do="open", directory=directory)
                durability = {
                    name: worker.receive()["durability"] for name, worker in workers.items()
                }
                turn = number
                for callers in CALLERS:
                    for operation in OPERATIONS:
                        for name in _rotated(list(workers), turn):
                            sample = workers[name].ask(
                                do="measure",
                                operation=operation,
                                callers=callers,
                                seconds=scale.seconds(callers),
                            )
                            samples[operation, callers, name].append(sample)
                        turn += 1
                for name, rows in FLOOR.items():
                    floor[name].append(
                        bare.ask(directory=directory, rows=rows, seconds=scale.seconds(1))
                    )
                for worker in workers.values():
                    worker.ask(do="close")
    return {
        "durability": durability,
        "floor": {name: medians(found) for name, found in floor.items()},
        "operations": {
            operation: {
                str(callers): {
                    peer.name: medians(samples[operation, callers, peer.name])
                    | {"errors": _errors(samples[operation, callers, peer.name])}
                    for peer in PEERS
                }
                for callers in CALLERS
            }
            for operation in OPERATIONS
        },
    }


def _rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


def _errors(samples: list[dict[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = defaultdict(int)
    for sample in samples:
        for name, count in sample["errors"].items():
            total[name] += count
    return dict(total)
