"""Measures Lapse beside its peers and writes the ratios to README.md; see there."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench import plot, report
from bench.goals import STORES, goals
from bench.http import serving, starting
from bench.profiles import profiling
from bench.services import growth, service_level
from bench.support import earlier, pg_server
from bench.support.children import BENCH
from bench.support.places import Databases, Files
from bench.support.scale import FULL, QUICK, Scale
from bench.sweep import lateness, memory, sweeping

_OUT: Final = BENCH / "out"
_HUGE: Final = 10_000_000
_Measure = Callable[[Scale, Path, Any], dict[str, Any]]


def _sections(source: Path | None) -> dict[str, dict[str, _Measure]]:
    services = partial(service_level.measure, earlier=source)
    common: dict[str, _Measure] = {
        "http": serving.measure,
        "start": starting.measure,
        "services": services,
        "growth": growth.measure,
        "sweep": sweeping.measure,
    }
    return {
        "sqlite": common | {"floor": service_level.floor, "memory": memory.measure},
        "postgres": common | {"lateness": lateness.measure},
    }


def main() -> None:
    """Measure the sections asked for; only a full run of all of them goes into the README."""
    names = dict.fromkeys(name for of in _sections(None).values() for name in of)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look at everything")
    parser.add_argument("--huge", action="store_true", help=f"growth to {_HUGE:,} on PostgreSQL")
    parser.add_argument(
        "--only", nargs="+", choices=[*STORES, *names], help="stores, sections, or both"
    )
    parser.add_argument(
        "--before",
        default=earlier.REVISION,
        metavar="REVISION",
        help="the earlier Lapse of one caller, as git knows it (%(default)s)",
    )
    parser.add_argument(
        "--profile", action="store_true", help="measure nothing, and leave flame graphs"
    )
    chosen = parser.parse_args()
    scale = QUICK if chosen.quick else FULL
    if chosen.huge:
        scale = replace(scale, huge=_HUGE)
    _OUT.mkdir(exist_ok=True)
    wanted = set(chosen.only or ())
    stores = [store for store in STORES if store in wanted or not wanted & set(STORES)]
    if chosen.profile:
        profiling.leave_in(_OUT / "profiles", stores, _OUT)
        return
    asked = wanted - set(STORES) or set(names)
    results: dict[str, Any] = {"scale": scale.name, "circumstances": report.circumstances()}
    _measure(results, scale, stores, asked, chosen.before)
    _publish(results, is_whole=scale.name == FULL.name and not chosen.only)


def _measure(
    results: dict[str, Any], scale: Scale, stores: list[str], asked: set[str], before: str
) -> None:
    """Measure sections of stores into the results, and keep them after each."""
    took: dict[str, float] = {}
    results["seconds"] = took
    # Beside the checkout and not in the system's temporary directory, which may be in memory:
    # there a commit that waits for the disk would cost nothing.
    with tempfile.TemporaryDirectory(dir=_OUT) as directory, ExitStack() as stack:
        scratch = Path(directory)
        source = earlier.source_at(before, scratch) if "services" in asked else None
        sections = _sections(source)
        for store in stores:
            places: Any = Files(scratch)
            if store == "postgres":
                server = stack.enter_context(pg_server.running(scratch))
                results["circumstances"]["server"] = pg_server.settings(server)
                places = Databases(server)
            for name, measure in sections[store].items():
                if name not in asked:
                    continue
                print(f"{store}: {name}", flush=True)
                began = time.monotonic()
                results.setdefault(store, {})[name] = measure(scale, scratch, places)
                took[f"{store} {name}"] = time.monotonic() - began
                print(f"{store}: {name} took {took[f'{store} {name}']:.0f} s", flush=True)
                # After each, so that a fault in a later one costs nothing.
                (_OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def _publish(results: dict[str, Any], *, is_whole: bool) -> None:
    """Write the report of a whole run into README.md, and that of a part beside the results.

    The figures of one process go into the documentation, too.
    """
    verdicts = goals(results)
    readme = BENCH / "README.md" if is_whole else _OUT / "README.md"
    if not is_whole:
        readme.write_text(f"A part of the benchmark, {results['scale']}.\n\n", "utf-8")
    report.write(readme, readme.with_name("results.md"), results, verdicts)
    plot.draw(readme.with_name("ratios.svg"), verdicts)
    if is_whole:
        report.write_process(BENCH.parent / "docs" / "operations.md", results)
    for goal in verdicts:
        told = "met" if goal.met else f"missed: {goal.reach:.2f} of it"
        note = f" ({goal.note})" if goal.note else ""
        print(f"{goal.store:9} {goal.what:70} {goal.value:8.2f} {told}{note}")
    took = sum(results["seconds"].values())
    print(f"{took:.0f} s; {readme.relative_to(BENCH.parent)} is written")


if __name__ == "__main__":
    main()
