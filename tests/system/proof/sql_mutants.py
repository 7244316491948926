"""One change in the SQL of the lobby: a condition less, an edge moved, another status."""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import nemeses  # noqa: F401 - puts the folders of tests on the path
import simulation

from lapse.store.operation import Dialect
from lapse.store.postgres.wording import wording
from lapse.store.sqlite import transaction
from lapse.store.sqlite.schema import set_up
from lapse.store.statements import (
    Combined,
    Positional,
    _named,
    read_script,
    read_statements,
    read_types,
    without_room,
)
from postgres import database

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
_COMPARISON = re.compile(r"(?<= )(<=|>=|<>|<|>)(?= )")
_STATUS = re.compile("|".join(STATUSES))
_CONDITION = re.compile(r"^ +(AND|OR) (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Worded:
    """The statements of a store by name: their texts, and what it runs in their place.

    Attributes:
        texts: the statements as they are written, with the parts that they name.
        run: what the store runs, which a mutant changes.
        made: makes what the store runs of a text.
    """

    texts: Mapping[str, str]
    run: dict[str, Any]
    made: Callable[[str], Any]


def _positional(text):
    return Positional.of(text, TYPES)


def _combined(text):
    return Combined.of(text, TYPES)


TYPES = read_types(Dialect.POSTGRES)
OWN = wording(frozenset())
MANY = dict(_named(read_script(Dialect.POSTGRES, "combined.sql")))
COMBINED = read_statements(Dialect.POSTGRES, **{"has_room": "true", **MANY})
WORDED = {
    "sqlite": (
        Worded(read_statements(Dialect.SQLITE), transaction._STATEMENTS, transaction._split),
        Worded(without_room(Dialect.SQLITE), transaction._WITHOUT_ROOM, transaction._split),
    ),
    "postgres": (
        Worded(read_statements(Dialect.POSTGRES), OWN.statements, _positional),
        Worded(without_room(Dialect.POSTGRES), OWN.without_room, _positional),
    ),
    "combined": (
        Worded({name: COMBINED[f"{name}_many"] for name in OWN.combined}, OWN.combined, _combined),
    ),
}
"""The statements of each store, those first that a mutant is made of."""


@dataclass(frozen=True)
class Mutant:
    """One change of a named statement.

    Attributes:
        store: which of `STORES`.
        name: the statement's.
        start: where in its text the change begins.
        end: where what it replaces ends.
        other: what comes in its place.
        what: the change in words.
    """

    store: str
    name: str
    start: int
    end: int
    other: str
    what: str = ""

    def changed(self, text):
        return text[: self.start] + self.other + text[self.end :]

    @contextmanager
    def alive(self):
        """Have the process work with the mutant."""
        whole = WORDED[self.store][0].texts[self.name]
        kept = [(one.run, one.run[self.name]) for one in WORDED[self.store] if self.name in one.run]
        for one in WORDED[self.store]:
            if self.name in one.run:
                one.run[self.name] = one.made(self._moved(whole, one.texts[self.name]))
        try:
            yield
        finally:
            for run, statement in kept:
                run[self.name] = statement

    def _moved(self, whole, text):
        """Return a text changed as the whole is; it may lack a part in the midst of that."""
        head, tail = _alike(whole, text), _alike(whole[::-1], text[::-1])
        if self.end <= head:
            return self.changed(text)
        if self.start < len(whole) - tail:
            return text  # it is the part that is lacking which is changed
        by = len(text) - len(whole)
        return replace(self, start=self.start + by, end=self.end + by).changed(text)


def _alike(one, other):
    """Return how many characters two texts have alike at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


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
    with closing(sqlite3.connect(":memory:")) as here, database() as url:
        here.deserialize(simulation._empty())
        set_up(here)
        there = await asyncpg.connect(url)
        for store, (worded, *_) in WORDED.items():
            for name in STATEMENTS:
                text = worded.texts.get(name, "")
                for start, end, other in _changes(text):
                    one = Mutant(store, name, start, end, other)
                    changed = worded.made(one.changed(text))
                    if store == "sqlite":
                        taken = all(_is_taken(here, statement) for statement in changed)
                    else:
                        taken = await _is_prepared(there, changed.sql)
                    if taken:
                        made.append(replace(one, what=_what(one, text)))
        await there.close()
    return made


def _what(mutant, text):
    """Return a change in words: the line that it begins in, before and after."""
    line = text[: mutant.start + 1].count("\n")
    was, became = (one.splitlines()[line].strip() for one in (text, mutant.changed(text)))
    return f"`{was}` → `{became}`"


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
