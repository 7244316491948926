"""One transaction on an SQLite connection, at one moment of the store's clock."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import ChangeKind, Lifecycle, Rules, Status
from lapse.store.sqlite import values as rows
from lapse.store.statements import read_statements

_SQL: Final = read_statements("sqlite")


NO_SESSION: Final = SessionKey("", "", "")


@dataclass(frozen=True, slots=True)
class Transaction:
    """Runs named statements on one session, or on none, at one moment.

    Attributes:
        connection: a connection inside a transaction.
        rules: what the store enforces.
        now: the moment, in microseconds since the epoch.
        key: the session that the statements are about.
    """

    connection: sqlite3.Connection
    rules: Rules
    now: int
    key: SessionKey = NO_SESSION

    @property
    def moment(self) -> datetime:
        """Return the moment as a datetime."""
        return rows.from_micros(self.now)

    def run(self, name: str, **params: Any) -> sqlite3.Cursor:
        """Run a statement; the key, the moment and the rules are among its parameters."""
        params |= {
            "app_name": self.key.app_name,
            "user_id": self.key.user_id,
            "session_id": self.key.session_id,
            "now": self.now,
            "enforced": self.rules.enforced,
            "horizon": rows.duration_micros(self.rules.horizon),
        }
        return self.connection.execute(_SQL[name], params)

    def first(self, name: str, **params: Any) -> sqlite3.Row | None:
        """Run a statement that returns at most one row, and return it."""
        row: sqlite3.Row | None = self.run(name, **params).fetchone()
        return row

    def count(self, kind: ChangeKind | None, was: Status | None, became: Status | None) -> None:
        """Count one change of the session; see `count_all`."""
        self.count_all(kind, was, became, {self.key.app_name: 1})

    def count_all(
        self,
        kind: ChangeKind | None,
        was: Status | None,
        became: Status | None,
        sessions: Mapping[str, int],
    ) -> None:
        """Count changes, by app; without a kind only the levels move.

        `was` and `became` are the status as stored, before and after; None where there was,
        or is, no record.
        """
        for app_name, number in sessions.items():
            replace(self, key=SessionKey(app_name, "", "")).run(
                "count", kind=kind or "", was=was or "", became=became or "", sessions=number
            )

    def lifecycle(self) -> Lifecycle | None:
        """Return the session's record at this moment; None where it is unknown."""
        lobby = self.first("read_lobby")
        stored = self.first("read_create_time")
        if stored is None:
            # The record of a used session whose session is gone: others deleted it.
            if lobby is None or lobby["status"] == Status.USED:
                return None
            record = rows.lobby_record(lobby, self.rules, self.now)
            return record if self.rules.still_stands(record, self.moment) else None
        if lobby is not None and lobby["status"] == Status.USED:
            return rows.lobby_record(lobby, self.rules, self.now)
        return rows.adopted_record(self.key, stored["create_time"], self.run("read_event_texts"))
