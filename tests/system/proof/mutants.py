"""Change one thing in the SQL of the lobby, and see that the simulation finds it: `make mutants`.

    python tests/system/proof/mutants.py [--sample N] [--seed S] [--histories N] [--out FILE]

A mutant drops a condition, moves the edge of a comparison or turns it round, or takes another
status. It is killed by the first history that differs from the model. What SQLite refuses is no
mutant.
"""

import argparse
import asyncio
import random
import re
import sqlite3
import sys
from collections import defaultdict
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nemeses  # noqa: F401 - puts the folders of tests on the path
import simulation

from lapse.store.sqlite import transaction
from lapse.store.sqlite.schema import set_up

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
)
TURNS = {"<=": ("<", ">"), "<": ("<=", ">="), ">=": (">", "<"), ">": (">=", "<="), "<>": ("=",)}
STATUSES = {"'waiting'": "'expired'", "'expired'": "'waiting'", "'used'": "'waiting'"}
OUTSIDE = (
    (r"\bh\.", "the simulation puts nothing on hold"),
    (r"'used', 'archived'\)", "ADK's row takes the record of a used session with it"),
    (r"archived", "the simulation archives nothing"),
    (r"^`WHEN 'waiting' THEN expires_at > :now OR", "60 histories kill it"),
    (r":most_events", "no history holds as many events"),
    (r":after", "the simulation reads whole sessions"),
    (r"^`AND \(:horizon", "the simulation sets no brake"),
    (r"length\(held_events\)", "no history holds as many bytes to the byte"),
)
"""Why the simulation does not notice a mutant, by a pattern of the line that it changes."""

_COMPARISON = re.compile(r"(?<= )(<=|>=|<>|<|>)(?= )")
_STATUS = re.compile("|".join(STATUSES))
_CONDITION = re.compile(r"^ +(?:AND|OR) .*$", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """One change of a named statement."""

    name: str
    number: int
    """Which statement of the name it changes."""

    what: str
    scripts: tuple[tuple[dict, tuple[str, ...]], ...]

    @contextmanager
    def alive(self):
        kept = [(scripts, scripts[self.name]) for scripts, _ in self.scripts]
        for scripts, mutated in self.scripts:
            scripts[self.name] = mutated
        try:
            yield
        finally:
            for scripts, whole in kept:
                scripts[self.name] = whole


def _changes(text):
    """Yield each change of a statement: what is there, what comes in its place, and where."""
    for found in _COMPARISON.finditer(text):
        for other in TURNS[found[0]]:
            yield found.start(), found.end(), other
    for found in _STATUS.finditer(text):
        yield found.start(), found.end(), STATUSES[found[0]]
    for found in _CONDITION.finditer(text):
        if found[0].count("(") == found[0].count(")"):
            yield found.start(), found.end(), ""


def mutants():
    """Return all mutants of the statements that SQLite takes."""
    made = []
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(simulation._empty())
        set_up(connection)
        known = (transaction._STATEMENTS, transaction._WITHOUT_ROOM)
        for name in STATEMENTS:
            scripts = [one for one in known if name in one]
            for number, text in enumerate(scripts[0][name] if scripts else ()):
                for start, end, other in _changes(text):
                    changed = text[:start] + other + text[end:]
                    if not _is_taken(connection, changed):
                        continue
                    line = text[: start + 1].count("\n")
                    was = text.splitlines()[line].strip()
                    became = changed.splitlines()[line].strip() if other else "(nothing)"
                    change = (text, start, end, other)
                    mutated = [(one, _with(one[name], number, change)) for one in scripts]
                    made.append(Mutant(name, number + 1, f"`{was}` → `{became}`", tuple(mutated)))
    return made


def _with(script, number, change):
    """Return a script with a change; the one without room has the same text but for a condition."""
    text, start, end, other = change
    whole = script[number]
    if whole == text:
        changed = text[:start] + other + text[end:]
    else:
        around = text[max(0, start - 30) : end + 30]
        inner = text[max(0, start - 30) : start] + other + text[end : end + 30]
        changed = whole.replace(around, inner, 1)
    return (*script[:number], changed, *script[number + 1 :])


def _is_taken(connection, text):
    with suppress(sqlite3.Error):
        connection.execute(f"EXPLAIN {text}", defaultdict(lambda: None))
        return True
    return False


async def survives(mutant, histories):
    """Return whether no history differs from the model."""
    with mutant.alive():
        for seed in range(histories):
            try:
                await simulation.play(seed)
            except Exception:  # noqa: BLE001 - it is killed, whatever it does
                return False
    return True


def page(every, chosen, alive, seed, histories):
    """Return the page: how many of the chosen are killed, and each survivor with a reason."""
    killed = len(chosen) - len(alive)
    head = f"""# Mutants of the lobby's SQL

{len(every)} mutants of {len(STATEMENTS)} statements of SQLite; {len(chosen)} of them, by chance
with seed {seed}. {killed} are killed ({killed / len(chosen):.0%}), each by at most {histories}
histories of the simulation, {simulation.STEPS} steps each; {len(alive)} survive. 95 % are asked
for. No mutants are made of PostgreSQL's statements and of Python, and no other test than the
simulation is run.
"""
    lines = [
        head,
        *(f"- `{one.name}` {one.number}: {one.what} {_reason(one)}" for one in alive),
        "",
    ]
    return "\n".join(lines)


def _reason(mutant):
    if (mutant.name, mutant.number) == ("expire_due", 1):
        return "(stock ADK creates no session beside the simulation)"
    for pattern, reason in OUTSIDE:
        if re.search(pattern, mutant.what):
            return f"({reason})"
    return "(**not explained**)"


async def run(sample, seed, histories, out):
    every = mutants()
    chosen = random.Random(seed).sample(every, min(sample, len(every))) if sample else every
    alive = []
    for number, mutant in enumerate(chosen, 1):
        if await survives(mutant, histories):
            alive.append(mutant)
        sys.stdout.write(f"{number} of {len(chosen)}, {len(alive)} alive: {mutant.name}\n")
        sys.stdout.flush()
    text = page(every, chosen, alive, seed, histories)
    if out is not None:
        out.write_text(text, "utf-8")
    sys.stdout.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=0, help="take so many; 0 takes all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--histories", type=int, default=40)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    asyncio.run(run(asked.sample, asked.seed, asked.histories, asked.out))


if __name__ == "__main__":
    main()
