"""Change one thing in the SQL of the lobby, and see that a test finds it: `make mutants`.

    python tests/system/proof/mutants.py [--sample N] [--seed S] [--at-once N] [--out FILE]

A mutant drops a condition, moves the edge of a comparison or turns it round, or takes another
status, in a statement of SQLite or PostgreSQL. First histories look for it beside the model: those
of the simulation on SQLite, random steps on PostgreSQL. Then the suites of the store do. The first
history that differs, or the first test that fails, kills it. What the database refuses is no
mutant. Each is judged in a process of its own.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import sqlite3
import sys
from collections import Counter, defaultdict
from contextlib import closing, contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import asyncpg
import core_mutants
import nemeses  # noqa: F401 - puts the folders of tests on the path
import pytest
import simulation
from drive import run_random_steps

from lapse.store.postgres.wording import wording
from lapse.store.sqlite import transaction
from lapse.store.sqlite.schema import set_up
from postgres import database

ROOT = Path(__file__).parents[3]
STATEMENTS = (
    "create",
    "read",
    "lifecycle",
    "amend",
    "extend",
    "hold_off",
    "restart_ttl",
    "resurrect",
    "expire_due",
    "expire_backlog",
    "purge_due",
    "delete_record",
    "delete_session",
    "first_message",
    "hold_event",
    "hold_words",
    "append",
)
TURNS = {"<=": ("<", ">"), "<": ("<=", ">="), ">=": (">", "<"), ">": (">=", "<="), "<>": ("=",)}
STATUSES = {"'waiting'": "'expired'", "'expired'": "'waiting'", "'used'": "'waiting'"}
STORES = {
    "sqlite": "SQLite",
    "postgres": "PostgreSQL",
    "combined": "PostgreSQL, for many callers",
}
HISTORIES = 16
"""How many histories are compared with the model."""

SUITES = (
    *("store", "sweep", "retention", "quotas", "erasure", "idempotency"),
    "adk/test_adk_append.py",
)
ALONE = "not plain and not http and not port and not command and not cli and not server"
"""What the suites leave out: tests of another process, in which nothing is changed."""

THE_MODEL = "a history"
"""What kills a mutant that differs from the model."""

LONGEST = 900
"""Seconds after which a mutant that no test has ended is killed."""

SAME = ()
"""Why a mutant that survives is no fault: statement, pattern of what it changes, reason."""

_COMPARISON = re.compile(r"(?<= )(<=|>=|<>|<|>)(?= )")
_STATUS = re.compile("|".join(STATUSES))
_CONDITION = re.compile(r"^ +(AND|OR) (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """One change of a named statement.

    Attributes:
        store: `sqlite`, `postgres`, or `combined`: PostgreSQL's statement for many callers.
        name: the statement's.
        number: which statement of the name it changes.
        start: where the change begins.
        end: where what it replaces ends.
        other: what comes in its place.
        what: the change in words.
    """

    store: str
    name: str
    number: int
    start: int
    end: int
    other: str
    what: str = ""

    def changed(self, text):
        return text[: self.start] + self.other + text[self.end :]

    @contextmanager
    def alive(self):
        """Have the process work with the mutant."""
        kept = []
        for statements in _statements(self.store):
            whole = statements.get(self.name)
            if whole is None:
                continue
            kept.append((statements, whole))
            if self.store == "sqlite":
                statements[self.name] = self._in_script(whole)
            else:
                statements[self.name] = replace(whole, sql=self.changed(whole.sql))
        try:
            yield
        finally:
            for statements, whole in kept:
                statements[self.name] = whole

    def _in_script(self, script):
        """Change a script; the one without room has the same text but for a condition."""
        text, whole = transaction._STATEMENTS[self.name][self.number], script[self.number]
        if whole != text:
            around = slice(max(0, self.start - 30), self.end + 30)
            inner = text[around.start : self.start] + self.other + text[self.end : around.stop]
            changed = whole.replace(text[around], inner, 1)
        else:
            changed = self.changed(whole)
        return (*script[: self.number], changed, *script[self.number + 1 :])


def _statements(store):
    """Return the statements of a store by name, the one that is changed first."""
    match store:
        case "sqlite":
            return transaction._STATEMENTS, transaction._WITHOUT_ROOM
        case "postgres":
            return (wording(frozenset()).statements,)
        case "combined":
            return (wording(frozenset()).combined,)


def _changes(text):
    """Yield each change of a statement: where it begins and ends, and what comes in its place."""
    for found in _COMPARISON.finditer(text):
        for other in TURNS[found[0]]:
            yield found.start(), found.end(), other
    for found in _STATUS.finditer(text):
        yield found.start(), found.end(), STATUSES[found[0]]
    for found in _CONDITION.finditer(text):
        if found[0].count("(") == found[0].count(")"):
            # Not simply dropped: PostgreSQL refuses a parameter that is not used.
            word, condition = found.groups()
            other = f"AND ({condition} OR true)" if word == "AND" else f"OR ({condition} AND false)"
            yield found.start(1), found.end(), other


async def mutants():
    """Return all mutants of the statements that the stores take."""
    made = []
    with closing(sqlite3.connect(":memory:")) as connection, database() as url:
        connection.deserialize(simulation._empty())
        set_up(connection)
        there = await asyncpg.connect(url)
        for store in ("sqlite", "postgres", "combined"):
            for name, number, text in _texts(store):
                for start, end, other in _changes(text):
                    line = text[: start + 1].count("\n")
                    one = Mutant(store, name, number, start, end, other)
                    was = text.splitlines()[line].strip()
                    became = one.changed(text).splitlines()[line].strip()
                    one = replace(one, what=f"`{was}` → `{became}`")
                    if store == "sqlite":
                        taken = _is_taken(connection, one.changed(text))
                    else:
                        taken = await _is_prepared(there, one.changed(text))
                    if taken:
                        made.append(one)
        await there.close()
    return made


def _texts(store):
    """Yield each statement of a store that is mutated: its name, its number and its text."""
    statements = _statements(store)[0]
    for name in STATEMENTS:
        whole = statements.get(name)
        if store == "sqlite":
            for number, text in enumerate(whole or ()):
                yield name, number, text
        elif whole is not None:
            yield name, 0, whole.sql


def _is_taken(connection, text):
    with suppress(sqlite3.Error):
        connection.execute(f"EXPLAIN {text}", defaultdict(lambda: None))
        return True
    return False


async def _is_prepared(connection, text):
    with suppress(asyncpg.PostgresError):
        await connection.prepare(text)
        return True
    return False


class First:
    """Remembers the first test that fails."""

    failed = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.failed is None:
            self.failed = report.nodeid


def judge(mutant):
    """Return what kills a mutant, or None."""
    with mutant.alive():
        if not asyncio.run(_is_like_the_model(mutant.store)):
            return THE_MODEL
        return _fails(mutant.store)


async def _is_like_the_model(store):
    for seed in range(HISTORIES):
        try:
            if store == "sqlite":
                await simulation.play(seed)
            else:
                with database() as url:
                    await run_random_steps(seed, simulation.STEPS, url)
        except Exception:  # noqa: BLE001 - it is killed, whatever it does
            return False
    return True


def _fails(store):
    """Return the first test of the store that fails, or None."""
    kind = "sqlite" if store == "sqlite" else "postgres"
    chosen = f"{ALONE} and " + ("not postgres" if kind == "sqlite" else "postgres")
    suites = [str(ROOT / "tests" / suite) for suite in SUITES]
    first = First()
    plain = ["-q", "-x", "-n0", "-p", "no:randomly", "-p", "no:cacheprovider"]
    plain += ["-m", "not long", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with redirect_stdout(sys.stderr):
        ended = pytest.main([*plain, "-k", chosen, "--rootdir", str(ROOT), *suites], [first])
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
    """Judge the mutants and write the page, also if that is interrupted.

    What kills them must pass without one.
    """
    whole = Mutant("sqlite", "read", 0, 0, 0, ""), Mutant("postgres", "read", 0, 0, 0, "")
    failed = await asyncio.gather(*map(judged, whole))
    if any(failed):
        raise SystemExit(f"without a mutant, too, there fails: {failed}")
    every = await mutants()
    chosen = random.Random(seed).sample(every, min(sample or len(every), len(every)))
    turns, killers = asyncio.Semaphore(at_once), {}

    async def one(mutant):
        async with turns:
            killers[mutant] = await judged(mutant)
        by = killers[mutant] or "NOTHING"
        line = f"{len(killers)} of {len(chosen)}: {mutant.store} {mutant.name}, killed by {by}\n"
        sys.stdout.write(line)
        sys.stdout.flush()

    try:
        async with asyncio.TaskGroup() as group:
            for mutant in chosen:
                group.create_task(one(mutant))
    finally:
        text = page(every, killers, seed)
        if out is not None:
            out.write_text(text, "utf-8")
        sys.stdout.write(text)


def page(every, killers, seed):
    """Return the page: how many of the chosen are killed, and each survivor with a reason."""
    head = f"""# Mutants

## The lobby's SQL

Each mutant drops a condition, moves or turns a comparison, or takes another status, in one of
{len(STATEMENTS)} statements. It is killed by one of {HISTORIES} histories of {simulation.STEPS}
steps that differs from the model, or else by the suites of the store. {len(every)} mutants can be
made; {len(killers)} were judged, chosen with seed {seed}.

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
        survivors += [
            f"- {name}, `{one.name}` {one.number + 1}: {one.what} ({_reason(one)})" for one in alive
        ]
    survivors = [*survivors, ""] if survivors else []
    told = [*rows, "", "95 % are asked for. What survives:", "", *survivors]
    return head + "\n".join([*told, *core_mutants.section()])


def _reason(mutant):
    for name, pattern, reason in SAME:
        if mutant.name == name and re.search(pattern, mutant.what):
            return reason
    return "**not explained**"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=0, help="take so many; 0 takes all")
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
