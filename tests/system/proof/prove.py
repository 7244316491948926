"""Look for violations with each nemesis, and say how many trials found how many: `make proof`.

    python tests/system/proof/prove.py [--minutes 10] [--seed S] [--out bench/proof.md]
    python tests/system/proof/prove.py --only NAME --seed S [--rounds N] [--broken BUILD]

The time is shared among the nemeses in proportion. Before, each must find the builds that are
broken for it. The seeds of rounds follow that of the run, so the second form plays a round again.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import report
from nemeses import BY_NAME, NEMESES, Nemesis
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

ROOT = Path(__file__).parents[3]
QUOTING = (ROOT / "README.md", ROOT / "docs" / "operations.md")
"""The pages that quote the results; those of a whole run with `--out` are written into them."""

ENOUGH = 300
"""Rounds after which a broken build counts as not found."""

LONGEST = 600
"""Seconds after which a round that has not ended is a violation."""

SHORTEST = 8.0
"""Seconds of a soak's round where it is not given its own."""


@dataclass
class Found:
    """What a nemesis has found."""

    nemesis: Nemesis
    n: int = 0
    rounds: int = 0
    seconds: float = 0.0
    violations: dict[int, str] = field(default_factory=dict)
    caught: dict[str, int | None] = field(default_factory=dict)
    """How many rounds it took to find each broken build; None: it was not found."""


async def play(nemesis, seed, folder, broken=None, seconds=SHORTEST):
    """Play one round; return how many trials it was, and what is wrong, or None."""
    more = {"seconds": seconds} if nemesis.lasts else {}
    here = Path(tempfile.mkdtemp(dir=folder))  # a round that fails leaves its files behind
    try:
        longest = asyncio.timeout(LONGEST + (seconds if nemesis.lasts else 0))
        async with longest:
            return await nemesis.play(seed, here, broken, **more), None
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a violation
        notes = "\n".join(getattr(error, "__notes__", ()))
        return 1, f"{type(error).__name__}: {error}\n{notes}".strip()


async def search(nemesis, base, seconds, folder, told):
    """Play rounds for so long; always one."""
    found, began = Found(nemesis), time.monotonic()
    while not found.rounds or time.monotonic() - began < seconds:
        seed = base + found.rounds
        n, fault = await play(nemesis, seed, folder, seconds=max(seconds, SHORTEST))
        found.rounds += 1
        found.n += n
        if fault is not None:
            found.violations[seed] = fault
        found.seconds = time.monotonic() - began
        told(found)
    return found


async def catch(nemesis, base, folder):
    """Return how many rounds it takes to find each build that is broken on purpose."""
    caught = {}
    for broken in nemesis.breaks:
        caught[broken] = None
        for number in range(ENOUGH):
            _, fault = await play(nemesis, base + number, folder, broken)
            if fault is not None:
                caught[broken] = number + 1
                break
    return caught


def replay(nemesis, seed):
    return f".venv/bin/python tests/system/proof/prove.py --only {nemesis.name} --seed {seed}"


async def prove(minutes, base, told, out):
    """Run all nemeses and write what they have found, also if they are interrupted."""
    shares = sum(nemesis.share for nemesis in NEMESES)
    results = []
    began = time.strftime("%Y-%m-%d")
    with tempfile.TemporaryDirectory(prefix="lapse-proof-") as folder:
        try:
            for nemesis in NEMESES:
                told.begin(nemesis)
                caught = await catch(nemesis, base, Path(folder))
                seconds = minutes * 60 * nemesis.share / shares
                found = await search(nemesis, base, seconds, Path(folder), told.goes_on)
                found.caught = caught
                results.append(found)
                told.end(found)
        finally:
            if out is not None:
                out.write_text(report.page(results, began, minutes, base), "utf-8")
                if len(results) == len(NEMESES):
                    _quote(results)
    return results


def _quote(results):
    for page in QUOTING:
        page.write_text(report.quote(page.read_text("utf-8"), results), "utf-8")


class Told:
    """What is shown while it works: a bar with counts and the time left."""

    def __init__(self, minutes):
        self._minutes = minutes
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(), transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=minutes * 60, counts="")
        self._done = 0.0

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *_):
        self._progress.stop()

    def begin(self, nemesis):
        self._progress.update(
            self._task, description=nemesis.name, counts="looks for its broken builds"
        )

    def goes_on(self, found):
        counts = f"{found.n:,} {found.nemesis.unit}, {len(found.violations)} violations"
        self._progress.update(self._task, counts=counts, completed=self._done + found.seconds)

    def end(self, found):
        self._done += found.seconds
        lines = [f"{found.nemesis.name}: {found.n:,} {found.nemesis.unit} in {found.seconds:.0f} s"]
        lines += [f"  {broken}: NOT FOUND" for broken, n in found.caught.items() if n is None]
        for seed, fault in found.violations.items():
            lines += [f"  VIOLATION; again: {replay(found.nemesis, seed)}", f"    {fault}"]
        self._progress.console.print("\n".join(lines), markup=False, highlight=False)


async def play_again(nemesis, seed, rounds, broken):
    """Play rounds of one nemesis, and return whether all is well."""
    well = True
    with tempfile.TemporaryDirectory(prefix="lapse-proof-") as folder:
        for number in range(rounds):
            n, fault = await play(nemesis, seed + number, Path(folder), broken)
            sys.stdout.write(f"{nemesis.name}, seed {seed + number}: {n} {nemesis.unit}\n")
            if fault is not None:
                well = False
                sys.stdout.write(f"VIOLATION\n{fault}\n")
    return well


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--only", choices=BY_NAME)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--broken")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.only:
        nemesis = BY_NAME[asked.only]
        if asked.broken not in {None, *nemesis.breaks}:
            parser.error(f"--broken: {asked.only} has {', '.join(nemesis.breaks)}")
        well = asyncio.run(play_again(nemesis, asked.seed, asked.rounds, asked.broken))
        return 0 if well else 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Told(asked.minutes) as told:
        results = asyncio.run(prove(asked.minutes, asked.seed, told, asked.out))
    lost = [one for one in results if one.violations or None in one.caught.values()]
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
