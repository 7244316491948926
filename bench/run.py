"""Measures Lapse beside its peers and writes the ratios to README.md; see there."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import memory
import plot
import report
import service_level
import serving
import sweeping
from children import BENCH
from goals import goals
from scale import FULL, QUICK, Scale

_OUT: Final = BENCH / "out"
_SECTIONS: Final[dict[str, Callable[[Scale, Path], dict[str, Any]]]] = {
    "services": service_level.measure,
    "sweep": sweeping.measure,
    "memory": memory.measure,
    "http": serving.measure,
}


def main() -> None:
    """Measure the sections asked for; only a full run of all of them goes into the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look at it in about a minute")
    parser.add_argument("--only", choices=_SECTIONS, help="one section")
    chosen = parser.parse_args()
    scale = QUICK if chosen.quick else FULL
    began = time.monotonic()
    results: dict[str, Any] = {"scale": scale.name, "circumstances": report.circumstances()}
    _OUT.mkdir(exist_ok=True)
    # Beside the checkout and not in the system's temporary directory, which may be in memory:
    # there a commit that waits for the disk would cost nothing.
    with tempfile.TemporaryDirectory(dir=_OUT) as scratch:
        for name in [chosen.only] if chosen.only else _SECTIONS:
            print(f"{name} ({time.monotonic() - began:.0f} s)", flush=True)
            results[name] = _SECTIONS[name](scale, Path(scratch))
            # After each, so that a fault in a later one costs nothing.
            (_OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    verdicts = goals(results)
    whole = scale is FULL and not chosen.only
    readme = BENCH / "README.md" if whole else _OUT / "README.md"
    if not whole:
        readme.write_text(f"A part of the benchmark, {scale.name}.\n\n", "utf-8")
    report.write(readme, results, verdicts)
    plot.draw(readme.with_name("ratios.svg"), verdicts)
    for goal in verdicts:
        print(f"{goal.section:9} {goal.what:75} {goal.value:9.3f}{goal.unit:4} {goal.verdict}")
    print(f"{time.monotonic() - began:.0f} s; {readme.relative_to(BENCH.parent)} is written")


if __name__ == "__main__":
    main()
