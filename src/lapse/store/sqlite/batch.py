"""The work of one commit: its connection, and the riders that its jobs write together."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from lapse.store.operation import Dialect
from lapse.store.statements import read_statements

_WINDOW: Final = 300_000_000
"""Changes are counted by five minutes, in microseconds."""

_CHANGE: Final = ("app_name", "now", "kind", "was", "became")
_OBSERVATION: Final = ("app_name", "user_id", "now", "in_control", "created_at", "metadata")

_STATEMENTS: Final = read_statements(Dialect.SQLITE)

LATE: Final = frozenset({"count", "observe_first_message"})
"""The riders that are written once for all jobs of a commit."""

AFTER_LATE: Final = frozenset(
    name
    for name, statement in _STATEMENTS.items()
    if name not in LATE and ("lapse_counts" in statement or "lapse_observations" in statement)
)
"""The statements on the tables of the late riders, which come after what these have to write."""


class Batch:
    """A connection in a transaction that several jobs share.

    The riders of `LATE` wait until all jobs are done, and are then written in the same transaction:
    so sessions of one app that change alike in the same five minutes cost one row, not one each.

    Attributes:
        connection: the connection.
    """

    __slots__ = ("_counts", "_observed", "connection")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._counts: Counter[tuple[Any, ...]] = Counter()
        self._observed: list[tuple[Any, ...]] = []

    @property
    def changes(self) -> int:
        """Return a number that every change of the database raises, also one that still waits."""
        waiting = self._counts.total() + len(self._observed)
        return self.connection.total_changes + waiting

    def add(self, name: str, params: Mapping[str, Any]) -> None:
        """Have a rider of `LATE` written before the commit."""
        if name == "count":
            at = params["now"] // _WINDOW * _WINDOW
            change = (params["app_name"], at, params["kind"], params["was"], params["became"])
            self._counts[change] += params["sessions"]
        else:
            self._observed.append(tuple(params[column] for column in _OBSERVATION))

    def write(self) -> None:
        """Write the riders that wait."""
        if self._counts:
            counts, self._counts = self._counts, Counter()
            named = (dict(zip(_CHANGE, change, strict=True)) for change in counts)
            rows = [{**one, "sessions": n} for one, n in zip(named, counts.values(), strict=True)]
            self.connection.executemany(_STATEMENTS["count"], rows)
        if self._observed:
            observed, self._observed = self._observed, []
            rows = [dict(zip(_OBSERVATION, one, strict=True)) for one in observed]
            self.connection.executemany(_STATEMENTS["observe_first_message"], rows)
