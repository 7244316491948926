"""Look for violations with each nemesis, and say how many trials found how many: `make proof`.

    python tests/system/proof/prove.py [--minutes 10] [--at-once N] [--seed S] [--out FILE]
    python tests/system/proof/prove.py --only NAME --seed S [--rounds N] [--broken BUILD]

The time is shared among the nemeses in proportion, each in a process of its own and so many at
once; one that reaches the figure asked for gives up the rest of its time. Before, each must find
the builds that are broken for it. The seeds of rounds follow that of the run, so the second form
plays a round again.

FILE.jsonl keeps what each run has found, and FILE.md is the sum of all runs on the same source: a
run goes on where the last one ended, until all figures are reached.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import report
import soak
from found import Found, Kept
from nemeses import BY_NAME, NEMESES
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

import scratch

ROOT = Path(__file__).parents[3]
QUOTING = (ROOT / "README.md", ROOT / "docs" / "operations.md")
"""The pages that quote the results, once there are some of each nemesis."""

ENOUGH = 300
"""Rounds after which a broken build counts as not found."""

LONGEST = 600
"""Seconds after which a round that has not ended is a violation."""

SHORTEST = 8.0
"""Seconds of a soak's round where it is not given its own."""


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


class Most(NamedTuple):
    """How long a row lasts, unless it has so many trials before."""

    seconds: float
    trials: int


async def search(nemesis, base, most, folder, told):
    """Play rounds for so long, or until there are so many trials; always one."""
    found, began, seeds = Found(nemesis), time.monotonic(), itertools.count(base)

    async def lane():
        while not found.rounds or (found.seconds < most.seconds and found.n < most.trials):
            seed = next(seeds)
            n, fault = await play(nemesis, seed, folder, seconds=max(most.seconds, SHORTEST))
            found.rounds += 1
            found.n += n
            if fault is not None:
                found.violations[seed] = fault
            found.seconds = time.monotonic() - began
            told(found)

    await asyncio.gather(*(lane() for _ in range(nemesis.together)))
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


async def play_row(nemesis, base, most):
    """Find the broken builds, then search for so long; write a line whenever there is more."""
    with tempfile.TemporaryDirectory(prefix="lapse-proof-") as folder:
        caught = await catch(nemesis, base, Path(folder))

        def told(found):
            found.caught, found.measured = caught, soak.measured
            sys.stdout.write(json.dumps(found.told()) + "\n")
            sys.stdout.flush()

        await search(nemesis, base, most, Path(folder), told)


async def row(nemesis, base, most, told):
    """Have a process play the row of a nemesis; `told` hears of all that it has found."""
    which = f"--only {nemesis.name} --seed {base} --seconds {most.seconds} --trials {most.trials}"
    command = (sys.executable, __file__, *which.split())
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    found = Found(nemesis)
    try:
        async for line in process.stdout:
            found = Found.of(nemesis, json.loads(line))
            told(found)
        ended = await process.wait()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    if ended:
        found.violations[base] = f"its process ended with {ended}"
        told(found)


async def prove(minutes, at_once, base, told, kept):
    """Run all nemeses that have not reached their figures; keep what is found, also if stopped."""
    wanted = [one for one in NEMESES if kept.reached(one) < one.asked]
    shares = sum(nemesis.share for nemesis in wanted)
    results = {}
    began = time.strftime("%Y-%m-%d")
    turns = asyncio.Semaphore(at_once)

    async def one(nemesis):
        async with turns:
            results[nemesis.name] = Found(nemesis)
            seconds = minutes * 60 * at_once * nemesis.share / shares
            if nemesis.lasts:  # in one piece, and no longer than is asked for
                seconds, most = min(seconds, nemesis.asked), nemesis.asked
            else:
                most = nemesis.asked - kept.reached(nemesis)
            try:
                await row(nemesis, base, Most(seconds, most), goes_on)
            finally:
                if results[nemesis.name].rounds:
                    kept.add(results[nemesis.name], base, began)
            told.end(results[nemesis.name])

    def goes_on(found):
        results[found.nemesis.name] = found
        told.goes_on(results.values())

    async with asyncio.TaskGroup() as group:
        for nemesis in sorted(wanted, key=lambda nemesis: -nemesis.share):
            group.create_task(one(nemesis))
    return list(results.values())


def write(kept, out):
    """Write the page of all runs, and what other pages quote of it."""
    out.write_text(report.page(kept), "utf-8")
    if len(kept.all()) == len(NEMESES):
        for page in QUOTING:
            page.write_text(report.quote(page.read_text("utf-8"), kept.all()), "utf-8")


class Told:
    """What is shown while it works: a bar of trials and violations, and each row that has ended."""

    def __init__(self, minutes, at_once):
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"),
            TimeRemainingColumn(), transient=True,
        )  # fmt: skip
        total = minutes * 60 * at_once
        self._task = self._progress.add_task("looks for broken builds", total=total, counts="")

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *_):
        self._progress.stop()

    def goes_on(self, results):
        trials, violations = 0, 0
        for found in results:
            trials += found.n
            violations += len(found.violations)
        self._progress.update(
            self._task,
            description=", ".join(found.nemesis.name for found in list(results)[-3:]),
            counts=f"{trials:,} trials, {violations} violations",
            completed=sum(found.seconds for found in results),
        )

    def end(self, found):
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
    parser.add_argument("--at-once", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--only", choices=BY_NAME)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="play one row, and write it as lines of JSON")
    parser.add_argument("--trials", type=int, help="after so many the row ends")
    parser.add_argument("--broken")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    scratch.use_memory()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if asked.only:
        nemesis = BY_NAME[asked.only]
        if asked.seconds is not None:
            most = Most(asked.seconds, asked.trials or nemesis.asked)
            asyncio.run(play_row(nemesis, asked.seed, most))
            return 0
        if asked.broken not in {None, *nemesis.breaks}:
            parser.error(f"--broken: {asked.only} has {', '.join(nemesis.breaks)}")
        well = asyncio.run(play_again(nemesis, asked.seed, asked.rounds, asked.broken))
        return 0 if well else 1
    kept = Kept(asked.out and asked.out.with_suffix(".jsonl"))
    try:
        with Told(asked.minutes, asked.at_once) as told:
            run = prove(asked.minutes, asked.at_once, asked.seed, told, kept)
            results = asyncio.run(run)
    finally:
        if asked.out:
            write(kept, asked.out)
    lost = [one for one in results if one.violations or None in one.caught.values()]
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
