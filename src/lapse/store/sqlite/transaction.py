"""One transaction on an SQLite connection, at one moment of the store's clock."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeVar

from lapse.core.errors import NotWithThisStoreError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import SHORTEST_RESTORE, Rules
from lapse.store.operation import (
    NO_SESSION,
    Answer,
    Ask,
    Asking,
    Dialect,
    FirstSeen,
    Native,
    Request,
    Row,
)
from lapse.store.sqlite.batch import AFTER_LATE, LATE, Batch
from lapse.store.sqlite.values import PLAIN, Found, encoded, from_micros
from lapse.store.statements import (
    changes_shared_state,
    read_statements,
    without_room,
)

T = TypeVar("T")


def _split(script: str) -> tuple[str, ...]:
    """Return the statements of a script; none if it holds only comments."""
    statements, statement = [], ""
    for line in f"{script};\n".splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            statements.append(statement.strip())
            statement = ""
    code = (line for one in statements for line in one.splitlines() if not line.startswith("--"))
    return tuple(statements) if "".join(code).strip(" ;") else ()


_STATEMENTS: Final = {
    name: _split(script) for name, script in read_statements(Dialect.SQLITE).items()
}
_WITHOUT_ROOM: Final = {
    name: _split(script) for name, script in without_room(Dialect.SQLITE).items()
}


def _script(name: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the statements of a name; KeyError if there is no such name."""
    plain = _WITHOUT_ROOM.get(name)
    return _STATEMENTS[name] if plain is None or changes_shared_state(params) else plain


@dataclass(slots=True)
class Transaction:
    """Runs named statements at one moment.

    Attributes:
        batch: the connection, inside a transaction.
        rules: what the store enforces.
        now: the moment, in microseconds since the epoch.
        natives: the functions of the dialect, by name. Each takes a transaction, bound to the
            session's key, and the arguments of the call.
        key: the session that `run` and `first` are about.
    """

    batch: Batch
    rules: Rules
    now: int
    natives: Mapping[str, Callable[..., Any]]
    key: SessionKey = NO_SESSION
    _shared_of: tuple[SessionKey, Mapping[str, Any]] | None = field(default=None, init=False)
    """A session, and the parameters that every statement on it may use."""

    @property
    def moment(self) -> datetime:
        """Return `now` as a datetime."""
        return from_micros(self.now)

    def drive(self, asking: Asking[T]) -> T:
        """Drive an operation to its end and return its result."""
        step: Callable[[Any], Any] = asking.send
        answer: Any = None
        while True:
            try:
                request = step(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            try:
                answer, step = self._answer(request), asking.send
            except Exception as error:  # noqa: BLE001 - the operation may handle it
                answer, step = error, asking.throw

    def _answer(self, request: Request) -> Any:
        if isinstance(request, Ask):
            return self._rows(*request)
        if isinstance(request, Native):
            own = Transaction(self.batch, self.rules, self.now, self.natives, request.key)
            return self.natives[request.name](own, *request.arguments)
        if isinstance(request, FirstSeen):
            # An attempt that failed was rolled back, so the next one is the first again.
            return request.value
        return Dialect.SQLITE

    def _rows(
        self,
        name: str,
        key: SessionKey,
        params: Mapping[str, Any],
        enough: Callable[[Row], bool] | None,
    ) -> Answer:
        """Run each statement of a name, in order; return the rows of all."""
        try:
            script = _script(name, params)
        except KeyError:
            raise NotWithThisStoreError(name) from None
        if not script:
            return Answer()
        bound = {**self._shared(key)}
        for parameter, value in params.items():
            bound[parameter] = value if type(value) in PLAIN else encoded(parameter, value)
        answer, now = Answer(), self.now
        if name in LATE:
            self.batch.add(name, bound)
            return answer
        if name in AFTER_LATE:
            self.batch.write()
        for statement in script:
            cursor = self.batch.connection.execute(statement, bound)
            if enough is not None:
                answer += _read(cursor, now, enough)
            elif cursor.description is not None:
                answer += [Found(row, now) for row in cursor]
        return answer

    def _shared(self, key: SessionKey) -> Mapping[str, Any]:
        """Return the parameters that every statement on a session may use."""
        if self._shared_of is None or self._shared_of[0] is not key:
            shared = {
                **_of_rules(self.rules),
                "app_name": key[0],
                "user_id": key[1],
                "session_id": key[2],
                "now": self.now,
            }
            self._shared_of = (key, shared)
        return self._shared_of[1]

    def run(self, name: str, **params: Any) -> sqlite3.Cursor:
        """Run a statement on the session, for functions of the dialect; convert no values."""
        (statement,) = _script(name, params)
        return self.batch.connection.execute(statement, {**self._shared(self.key), **params})

    def ride(self, name: str, **params: Any) -> None:
        """Have a rider of `LATE` written with those of the other jobs; convert no values."""
        self.batch.add(name, {**self._shared(self.key), **params})

    def first(self, name: str, **params: Any) -> sqlite3.Row | None:
        """Run a statement as `run` does, and return its first row; None if there is none."""
        row: sqlite3.Row | None = self.run(name, **params).fetchone()
        return row


def _read(cursor: sqlite3.Cursor, now: int, enough: Callable[[Row], bool]) -> Iterator[Row]:
    with closing(cursor):
        for found in cursor:
            row = Found(found, now)
            yield row
            if enough(row):
                return


@cache
def _of_rules(rules: Rules) -> Mapping[str, Any]:
    """Return the store's rules as parameters."""
    spans = {
        "horizon": rules.horizon,
        "extensible": rules.extensible,
        "shortest_restore": SHORTEST_RESTORE,
    }
    return {
        **{name: encoded(name, span) for name, span in spans.items()},
        "enforced": rules.enforced,
        "artifacts": rules.artifacts,
        "largest_shared_state": rules.shared_state,
    }
