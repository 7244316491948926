"""Resident memory with few and with many waiting sessions, beside a sleeping task for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bench.support.children import Child
from bench.support.places import Places
from bench.support.scale import Scale

FEW: Final = 100


def measure(scale: Scale, scratch: Path, _places: Places) -> dict[str, Any]:
    """Return the bytes of one process of each design at FEW sessions and at many."""
    found = {}
    for design, many in (("lapse", scale.waiting), ("naive", scale.naive)):
        print(f"  memory: {design}", flush=True)
        with Child("bench.sweep.memory_worker", design, cwd=scratch) as worker:
            before, after = (
                worker.ask(do="grow", directory=str(scratch), sessions=sessions)["rss"]
                for sessions in (FEW, many)
            )
            worker.ask(do="close")
        found[design] = {
            "sessions": many,
            "few": before,
            "many": after,
            "growth": after - before,
            "per_session": (after - before) / (many - FEW),
        }
    return found
