"""Measures Lapse beside its peers and writes the ratios to README.md; see there."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench import plot, report
from bench.goals import goals
from bench.http import serving
from bench.services import service_level
from bench.support import pg_server
from bench.support.children import BENCH
from bench.support.places import Databases, Files
from bench.support.scale import FULL, QUICK, Scale
from bench.sweep import lateness, memory, sweeping

_OUT: Final = BENCH / "out"
_HUGE: Final = 10_000_000
_SECTIONS: Final[dict[str, dict[str, Callable[[Scale, Path, Any], dict[str, Any]]]]] = {
    "sqlite": {
        "services": service_level.measure,
        "floor": service_level.floor,
        "sweep": sweeping.measure,
        "memory": memory.measure,
        "http": serving.measure,
    },
    "postgres": {
        "services": service_level.measure,
        "sweep": sweeping.measure,
        "lateness": lateness.measure,
        "http": serving.measure,
    },
}


def main() -> None:
    """Measure the sections asked for; only a full run of all of them goes into the README."""
    sections = dict.fromkeys(name for of in _SECTIONS.values() for name in of)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look at it in two minutes")
    parser.add_argument("--huge", action="store_true", help=f"idle sweeps of {_HUGE:,}, too")
    parser.add_argument(
        "--only", nargs="+", choices=[*_SECTIONS, *sections], help="stores, sections, or both"
    )
    chosen = parser.parse_args()
    scale = QUICK if chosen.quick else FULL
    if chosen.huge:
        scale = replace(scale, huge=_HUGE)
    began = time.monotonic()
    results: dict[str, Any] = {"scale": scale.name, "circumstances": report.circumstances()}
    _OUT.mkdir(exist_ok=True)
    wanted = set(chosen.only or ())
    stores = wanted & set(_SECTIONS) or set(_SECTIONS)
    # Beside the checkout and not in the system's temporary directory, which may be in memory:
    # there a commit that waits for the disk would cost nothing.
    with tempfile.TemporaryDirectory(dir=_OUT) as directory, ExitStack() as stack:
        scratch = Path(directory)
        for store, of_store in _SECTIONS.items():
            if store not in stores:
                continue
            places: Any = Files(scratch)
            if store == "postgres":
                server = stack.enter_context(pg_server.running(scratch))
                results["circumstances"]["server"] = pg_server.settings(server)
                places = Databases(server)
            for name in [n for n in of_store if n in wanted - stores or not wanted - stores]:
                print(f"{store}: {name} ({time.monotonic() - began:.0f} s)", flush=True)
                results.setdefault(store, {})[name] = of_store[name](scale, scratch, places)
                # After each, so that a fault in a later one costs nothing.
                (_OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    verdicts = goals(results)
    whole = scale.name == FULL.name and not chosen.only
    readme = BENCH / "README.md" if whole else _OUT / "README.md"
    if not whole:
        readme.write_text(f"A part of the benchmark, {scale.name}.\n\n", "utf-8")
    report.write(readme, results, verdicts)
    plot.draw(readme.with_name("ratios.svg"), verdicts)
    for goal in verdicts:
        print(f"{goal.section:18} {goal.what:75} {goal.value:9.3f}{goal.unit:4} {goal.verdict}")
    print(f"{time.monotonic() - began:.0f} s; {readme.relative_to(BENCH.parent)} is written")


if __name__ == "__main__":
    main()
