"""Change one thing in the SQL of the lobby, and see that a test finds it: `make mutants`.

    python tests/system/proof/mutants.py [--sample N] [--seed S] [--at-once N] [--out FILE]

A mutant drops a condition, moves the edge of a comparison or turns it round, or takes another
status, in a statement of SQLite or PostgreSQL. First histories look for it beside the model: those
of the simulation on SQLite, random steps on PostgreSQL. Then the suites of the store do. The first
history that differs, or the first test that fails, kills it, if it does so twice: a machine that is
busy kills nothing. What the database refuses is no mutant. Each is judged in a process of its own.

FILE.jsonl keeps what killed each mutant, and FILE.md tells of all: as long as the source is the
same, a run judges those that no run has seen killed yet.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sys
from collections import Counter
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path

import core_mutants
import nemeses  # noqa: F401 - puts the folders of tests on the path
import pytest
import simulation
from drive import run_random_steps
from lines import Lines
from sql_mutants import STATEMENTS, Mutant, mutants

import scratch
from postgres import database

ROOT = Path(__file__).parents[3]
STORES = {
    "sqlite": "SQLite",
    "postgres": "PostgreSQL",
    "combined": "PostgreSQL, for many callers",
}
HISTORIES = 16
"""How many histories are compared with the model."""

SUITES = (
    *("store", "sweep", "retention", "overview", "quotas", "erasure", "idempotency"),
    "adk/test_adk_append.py",
    "conversations/test_conversations_handover.py",
)
ALONE = "not plain and not http and not port and not command and not cli and not server"
"""What the suites leave out: tests of another process, in which nothing is changed."""

ON_POSTGRES = "(postgres or combining or batches)"
"""The tests that the suites run for PostgreSQL; not all of them have `postgres` in their name."""

THE_MODEL = "a history"
"""What kills a mutant that differs from the model."""

TRIES = 3
"""How often the suites run, if each time the first test that fails passes by itself."""

LONGEST = TRIES * 900
"""Seconds after which a mutant that no test has ended is killed."""

SAME = (
    (
        r"delete_record: .*'waiting', 'archived'\)",
        "the record goes with the session in ADK's tables",
    ),
    (r"append: .*may_be_stored OR true", "the event's key and changed_state refuse it, too"),
    (r"(expire|purge)_\w+: .*clock\) OR true", "the row is looked at again as it changes"),
    (r"(expire|purge)_\w+: .*>= '-infinity'", "no session has such a moment"),
    (r"hold_off: .*<= :?now \+ :held_for", "the deadline is moved to where it is"),
    (
        r"postgres hold_off: .*(:held_for OR true|`AND l.* >= now)",
        "the condition is there twice, for the row as it was and as it is",
    ),
)
"""Why a mutant that survives is no fault: a pattern of it, with its store, and a reason."""


class First:
    """Remembers the first test that fails."""

    failed = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.failed is None:
            self.failed = report.nodeid


def judge(mutant):
    """Return what kills a mutant, or None."""
    scratch.use_memory()
    with mutant.alive():
        if not asyncio.run(_is_like_the_model(mutant.store)):
            return THE_MODEL
        for _ in range(TRIES):
            failed = _fails(mutant.store, *(f"tests/{suite}" for suite in SUITES))
            if failed is None or _fails(mutant.store, failed):
                return failed
        return None


async def _is_like_the_model(store):
    for seed in range(HISTORIES):
        if await _differs(store, seed) and await _differs(store, seed):
            return False
    return True


async def _differs(store, seed):
    try:
        if store == "sqlite":
            await simulation.play(seed)
        else:
            with database() as url:
                await run_random_steps(seed, simulation.STEPS, url)
    except Exception:  # noqa: BLE001 - it is killed, whatever it does
        return True
    return False


def _fails(store, *suites):
    """Return the first test of the suites that fails for a store, or None."""
    chosen = f"{ALONE} and {'not postgres' if store == 'sqlite' else ON_POSTGRES}"
    paths = [str(ROOT / suite) for suite in suites]
    first = First()
    plain = ["-q", "-x", "-n0", "-p", "no:randomly", "-p", "no:cacheprovider"]
    plain += ["-m", "not long", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with redirect_stdout(sys.stderr):
        ended = pytest.main([*plain, "-k", chosen, "--rootdir", str(ROOT), *paths], [first])
    if ended not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        raise SystemExit(f"pytest ended with {ended}")
    return first.failed


async def judged(mutant):
    """Have a process judge a mutant; return what kills it, or None."""
    command = [sys.executable, __file__, "--judge", json.dumps(asdict(mutant))]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(LONGEST):
            told, _ = await process.communicate()
    except TimeoutError:
        return "a test that does not end"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode:
        raise RuntimeError(f"{mutant}: its process ended with {process.returncode}")
    return json.loads(told.splitlines()[-1])


async def run(sample, seed, at_once, out):
    """Judge the mutants that live yet, and write the page, also if that is interrupted.

    What kills them must pass without one.
    """
    whole = Mutant("sqlite", "read", 0, 0, ""), Mutant("postgres", "read", 0, 0, "")
    failed = await asyncio.gather(*map(judged, whole))
    if any(failed):
        raise SystemExit(f"without a mutant, too, there fails: {failed}")
    every, kept = await mutants(), Lines(out and out.with_suffix(".jsonl"))
    known = {Mutant(**line["mutant"]): line["by"] for line in kept.lines}
    killers = {mutant: known[mutant] for mutant in every if mutant in known}
    alive = [mutant for mutant in every if not killers.get(mutant)]
    chosen = random.Random(seed).sample(alive, min(sample or len(alive), len(alive)))
    turns = asyncio.Semaphore(at_once)

    async def one(mutant):
        async with turns:
            by = killers[mutant] = await judged(mutant)
        kept.keep({"mutant": asdict(mutant)}, {"by": by})
        told = f"killed by {by}" if by else f"SURVIVES: {mutant.what}"
        line = f"{len(killers)} of {len(every)}: {mutant.store}, {mutant.name} {told}\n"
        sys.stdout.write(line)
        sys.stdout.flush()

    try:
        async with asyncio.TaskGroup() as group:
            for mutant in chosen:
                group.create_task(one(mutant))
    finally:
        text = page(every, killers)
        if out is not None:
            out.write_text(text, "utf-8")
        sys.stdout.write(text)


def page(every, killers):
    """Return the page: how many of those judged are killed, and each survivor with a reason."""
    head = f"""# Mutants

## The lobby's SQL

Each mutant drops a condition, moves or turns a comparison, or takes another status, in one of
{len(STATEMENTS)} statements. It is killed by one of {HISTORIES} histories of {simulation.STEPS}
steps that differs from the model, or else by the suites of the store. {len(every)} mutants can be
made; {len(killers)} were judged, in an order by chance.

| statements of | judged | killed by a history | by a suite | survive | killed |
|---|---|---|---|---|---|
"""
    rows, survivors = [], []
    for store, name in STORES.items():
        own = {mutant: by for mutant, by in killers.items() if mutant.store == store}
        alive = [mutant for mutant, by in own.items() if by is None]
        simulated = Counter(own.values())[THE_MODEL]
        killed = len(own) - len(alive)
        share = f"{killed / len(own):.1%}" if own else "—"
        rows.append(
            f"| {name} | {len(own)} | {simulated} | {killed - simulated} | {len(alive)} | {share} |"
        )
        survivors += [f"- {name}, `{one.name}`: {one.what} ({_reason(one)})" for one in alive]
    survivors = [*survivors, ""] if survivors else []
    told = [*rows, "", "95 % are asked for. What survives:", "", *survivors]
    return head + "\n".join([*told, *core_mutants.section()])


def _reason(mutant):
    told = f"{mutant.store} {mutant.name}: {mutant.what}"
    reasons = (reason for pattern, reason in SAME if re.search(pattern, told))
    return next(reasons, "**not explained**")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=0, help="judge so many; 0 judges all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--judge", help="judge one mutant, and write what kills it")
    asked = parser.parse_args()
    if asked.judge is not None:
        killer = judge(Mutant(**json.loads(asked.judge)))
        sys.stdout.write(json.dumps(killer) + "\n")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asyncio.run(run(asked.sample, asked.seed, asked.at_once, asked.out))


if __name__ == "__main__":
    main()
