"""The statements for PostgreSQL, worded for a server that may lack some of its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from lapse.store.operation import Dialect
from lapse.store.options import PostgresFeature
from lapse.store.statements import (
    Combined,
    Positional,
    read_combined,
    read_statements,
    read_types,
    without_room,
)

TYPES: Final = read_types(Dialect.POSTGRES)

_INSTEAD: Final[Mapping[PostgresFeature, Mapping[str, str]]] = {
    PostgresFeature.LISTEN: {"new_deadline_told": "untold", "near_deadline_told": "untold"},
    PostgresFeature.ADVISORY_LOCKS: {"lock": "lock_by_row"},
}
"""For each feature the statements that use it, with those that stand in for them without it."""

_UNLOGGED: Final = "CREATE UNLOGGED TABLE "


@dataclass(frozen=True, slots=True)
class Wording:
    """The statements for one kind of server.

    Attributes:
        statements: all, by name.
        without_room: those for calls that change no app or user state, where they differ.
        combined: those that do for many callers what the one of the same name does for one.
    """

    statements: Mapping[str, Positional]
    without_room: Mapping[str, Positional]
    combined: Mapping[str, Combined]


@cache
def wording(without: frozenset[PostgresFeature]) -> Wording:
    """Return the statements for a server that lacks these features."""
    texts = read_statements(Dialect.POSTGRES)
    replaced = {
        name: texts[other]
        for feature, instead in _INSTEAD.items()
        if feature in without
        for name, other in instead.items()
    }
    return Wording(
        _positional(read_statements(Dialect.POSTGRES, **replaced)),
        _positional(without_room(Dialect.POSTGRES, **replaced)),
        read_combined(Dialect.POSTGRES, **replaced),
    )


def _positional(texts: Mapping[str, str]) -> dict[str, Positional]:
    return {name: Positional.of(text, TYPES) for name, text in texts.items()}


def worded(script: str, without: frozenset[PostgresFeature]) -> str:
    """Return a script that creates tables, for a server that lacks these features."""
    if PostgresFeature.UNLOGGED_TABLES not in without:
        return script
    return script.replace(_UNLOGGED, "CREATE TABLE ")
