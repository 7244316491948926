"""Combines the work of callers that wait: one statement then does the work of all of them.

A caller that finds a lane free runs its statement at once and alone: nobody waits for company. A
caller that finds all lanes taken waits for one, and all that have waited then share a statement. A
caller whose work that statement does not do runs a statement of its own, which also finds out why.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import asyncpg

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Rules
from lapse.core.loops import PerLoop, may_end_with_its_loop
from lapse.store.operation import Answer
from lapse.store.postgres.connections import Attempts, Connections
from lapse.store.postgres.values import Found, bound
from lapse.store.statements import Combined

LANES: Final = 2
"""How many statements of a queue are in flight. A third would only make the batches smaller."""

LARGEST: Final = 128
"""The maximum of items in a batch."""

_SLOW: Final = timedelta(milliseconds=100)
"""A statement that takes longer, because it waits for a lock, does not hold up those who wait."""


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """The work of one caller.

    Attributes:
        key: the session that it is about.
        given: the value of each parameter by its name.
        attempts: what is known of the attempts of the caller's operation.
    """

    key: SessionKey
    given: Mapping[str, Any]
    attempts: Attempts


_Turn: TypeAlias = "asyncpg.Record | _Lane | None"
"""The end of a caller's wait: the row that was made for it; a lane, for it alone; or, if a shared
statement did nothing for it, None."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    item: Item
    turn: asyncio.Future[_Turn] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class _Lane:
    """The right to one of the statements in flight; whoever has it leaves it when that is done."""

    __slots__ = ("_left", "_timer")

    def __init__(self, left: Callable[[], None]) -> None:
        self._left = left
        loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = loop.call_later(_SLOW.total_seconds(), self.leave)

    def leave(self) -> None:
        """Let the next one in, once."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._left()


class Queue:
    """The callers of one statement, on one event loop, by the same rules."""

    def __init__(self, combined: Combined, connections: Connections) -> None:
        self._combined = combined
        self._connections = connections
        self._waiting: deque[_Waiting] = deque()
        self._lanes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, item: Item, alone: Callable[[], Awaitable[Answer]]) -> Answer:
        """Do the work of an item together with others, or by `alone`; return its rows.

        A caller that is cancelled before its turn is left out. Afterwards its work goes on, if it
        is part of a statement that others share.
        """
        lane: _Lane | None
        if self._lanes < LANES:
            lane = self._enter()
        else:
            turn = await self._turn(item)
            if isinstance(turn, asyncpg.Record):
                answer = Answer()
                answer.append(Found(turn))
                return answer
            lane = turn
        try:
            return await alone()
        finally:
            if lane is not None:
                lane.leave()

    async def _turn(self, item: Item) -> _Turn:
        waiting = _Waiting(item)
        self._waiting.append(waiting)
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting.turn.done() and not waiting.turn.cancelled():
                turn = waiting.turn.result()
                if isinstance(turn, _Lane):
                    turn.leave()
            raise

    def _enter(self) -> _Lane:
        self._lanes += 1
        return _Lane(self._left)

    def _left(self) -> None:
        self._lanes -= 1
        while self._lanes < LANES and (batch := self._next()):
            lane = self._enter()
            if len(batch) == 1:
                batch[0].turn.set_result(lane)
            else:
                task = asyncio.get_running_loop().create_task(self._together(batch, lane))
                self._tasks.add(may_end_with_its_loop(task))
                task.add_done_callback(self._tasks.discard)

    def _next(self) -> list[_Waiting]:
        """Take those who wait, in the order of their keys; only the first one for a session."""
        batch: dict[SessionKey, _Waiting] = {}
        later: list[_Waiting] = []
        while self._waiting and len(batch) < LARGEST:
            waiting = self._waiting.popleft()
            if waiting.item.key in batch:
                later.append(waiting)
            elif not waiting.turn.done():
                batch[waiting.item.key] = waiting
        self._waiting.extendleft(reversed(later))
        return [batch[key] for key in sorted(batch)]

    async def _together(self, batch: Sequence[_Waiting], lane: _Lane) -> None:
        """Do the work of many items in one statement, and tell each caller what became of its own.

        The rows of the batch are locked in the order of its keys, so that two batches never wait
        for each other.
        """
        done: dict[SessionKey, asyncpg.Record] = {}
        try:
            rows = await self._connections.try_for(
                self._combined.sql,
                self._arguments(batch),
                [waiting.item.attempts for waiting in batch],
            )
            for row in rows:
                done[SessionKey(row["app_name"], row["user_id"], row["session_id"])] = row
        finally:
            lane.leave()
            for waiting in batch:
                if not waiting.turn.done():
                    waiting.turn.set_result(done.get(waiting.item.key))

    def _arguments(self, batch: Sequence[_Waiting]) -> list[Any]:
        combined = self._combined
        rows = (bound(combined.columns, waiting.item.given) for waiting in batch)
        return [*map(list, zip(*rows, strict=True)), *bound(combined.names, batch[0].item.given)]


class Queues:
    """The queues of one database: one for each statement, event loop, set of rules and moment."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._here: PerLoop[dict[tuple[str, Rules, datetime | None], Queue]] = PerLoop(dict)

    def of(self, name: str, combined: Combined, rules: Rules, now: datetime | None) -> Queue:
        """Return the queue of a statement on the running event loop."""
        queues = self._here.here()
        found = queues.get((name, rules, now))
        if found is None:
            found = queues[name, rules, now] = Queue(combined, self._connections)
        return found
