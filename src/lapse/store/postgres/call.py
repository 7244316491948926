"""Running statements on PostgreSQL, each in a transaction of its own, or several in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeVar

import asyncpg

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
)
from lapse.store.postgres.combining import Item, Queues
from lapse.store.postgres.connections import Attempts, Connections, Taken
from lapse.store.postgres.transaction import transaction
from lapse.store.postgres.values import Found, bound
from lapse.store.postgres.wording import wording
from lapse.store.statements import Positional, changes_shared_state

T = TypeVar("T")

_SHARED: Final = frozenset({"app_states", "user_states"})
"""The tables in which a state of NULL means that a change has no room: see `changed_state`."""

STATEMENTS: Final = wording(frozenset()).statements
"""The statements for PostgreSQL itself, by name."""

_LARGEST_ITEM: Final = 32 * 1024
"""A call whose texts have more characters has a statement of its own."""


@dataclass(frozen=True, slots=True)
class Call:
    """Runs statements, and the operations that ask for them.

    Attributes:
        connections: where the statements run.
        rules: what the store enforces.
        now: the moment in tests; None: the database's clock tells it.
        queues: where calls wait for each other, to have one statement.
        natives: the functions of the dialect, by name. Each takes a call, bound to the session's
            key, and the arguments of the call.
        attempts: what is known of the call's attempts so far.
        taken: the connection in whose transaction the statements run; None: each has its own.
        key: the session that the statements are about.
    """

    connections: Connections
    rules: Rules
    now: datetime | None
    queues: Queues
    natives: Mapping[str, Callable[..., Any]]
    attempts: Attempts = field(default_factory=Attempts)
    taken: Taken | None = None
    key: SessionKey = NO_SESSION

    async def drive(self, asking: Asking[T]) -> T:
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
                answer, step = await self._answer(request), asking.send
            except Exception as error:  # noqa: BLE001 - the operation may handle it
                answer, step = error, asking.throw

    async def drive_together(self, asking: Callable[[], Asking[T]]) -> T:
        """Drive an operation to its end in one transaction, and return its result."""
        return await self.connections.transact(
            lambda taken: replace(self, taken=taken).drive(asking()), self.attempts
        )

    async def confirm(self) -> None:
        """Return once everything that the call has read is durable, on synchronous standbys, too.

        Raises:
            OutcomeUnknownError: the server does not say so in time.
        """
        await self.run("confirm")

    async def _answer(self, request: Request) -> Any:
        if isinstance(request, Ask):
            return await self._rows(request.name, request.key, request.params)
        if isinstance(request, Native):
            own = replace(self, key=request.key)
            return await self.natives[request.name](own, *request.arguments)
        if isinstance(request, FirstSeen):
            return self.attempts.first_seen(request).value
        return Dialect.POSTGRES

    def savepoint(self) -> AbstractAsyncContextManager[object]:
        """Return a block in which a statement may fail without failing the transaction around it.

        Without such a transaction the block does nothing.
        """
        return nullcontext() if self.taken is None else transaction(self.taken)

    async def run(self, name: str, **params: Any) -> Answer:
        """Run a statement on the session, for a native function, and return its rows."""
        return await self._rows(name, self.key, params)

    async def first(self, name: str, **params: Any) -> Found | None:
        """Run a statement as `run`, and return its only row, if there is one."""
        answer: Any = await self._rows(name, self.key, params)
        return answer[0] if answer else None

    async def _rows(self, name: str, key: SessionKey, params: Mapping[str, Any]) -> Answer:
        worded = wording(self.connections.without)
        try:
            statement = worded.statements[name]
        except KeyError:
            raise NotWithThisStoreError(name) from None
        if not statement.sql:
            return Answer()
        if not changes_shared_state(params):
            plain = worded.without_room.get(name, statement)
            if name in worded.combined and self._may_be_combined(params):
                return await self._combined(name, plain, key, params)
            return await self._run(plain, self._given(key, params))
        try:
            async with self.savepoint():
                return await self._run(statement, self._given(key, params))
        except asyncpg.NotNullViolationError as error:
            if error.table_name not in _SHARED:
                raise
            return self._nothing()

    def _may_be_combined(self, params: Mapping[str, Any]) -> bool:
        if self.taken is not None or self.attempts.in_doubt:
            return False
        return sum(len(one) for one in params.values() if type(one) is str) <= _LARGEST_ITEM

    async def _combined(
        self, name: str, plain: Positional, key: SessionKey, params: Mapping[str, Any]
    ) -> Answer:
        """Run a statement, or let one that many callers share do its work."""
        combined = wording(self.connections.without).combined[name]
        queue = self.queues.of(name, combined, self.rules, self.now)
        item = Item(key, self._given(key, params), self.attempts)
        return await queue.ask(item, lambda: self._run(plain, item.given))

    def _nothing(self) -> Answer:
        answer = Answer()
        answer.in_doubt = self.attempts.in_doubt
        return answer

    async def _run(self, statement: Positional, given: Mapping[str, Any]) -> Answer:
        arguments = bound(statement.names, given)
        if self.taken is not None:
            found = await self.taken.fetch(statement.sql, *arguments)
        else:
            found = await self.connections.fetch(
                statement.sql, arguments, self.attempts, writes=statement.writes
            )
        answer = self._nothing()
        answer += map(Found, found)
        return answer

    def _given(self, key: SessionKey, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of each parameter that a statement may have."""
        return {
            **_of_rules(self.rules),
            **params,
            "app_name": key[0],
            "user_id": key[1],
            "session_id": key[2],
            "now": self.now,
            "attempt": self.attempts.number,
        }


@cache
def _of_rules(rules: Rules) -> Mapping[str, Any]:
    """Return the parameters that are the store's rules."""
    return {
        "enforced": rules.enforced,
        "horizon": rules.horizon,
        "extensible": rules.extensible,
        "shortest_restore": SHORTEST_RESTORE,
        "artifacts": rules.artifacts,
        "largest_shared_state": rules.shared_state,
    }
