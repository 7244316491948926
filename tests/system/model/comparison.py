"""A sequence of steps on a few sessions, taken on a store and on the model side by side."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from model import Model

from backends import T0, TICK, key, levels, listed, message, note, step, words
from lapse.core.documents import split_state
from lapse.core.errors import LapseError, StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Status
from lapse.core.messages import UsedBy
from lapse.store.records import LastSeen, NewEvent, Result, Revision, SessionRecord
from parts import Store

KEYS = (key("s1"), key("s2"), key("s1", user="bob"), key("s1", app="other"))
KINDS = {"message": message, "note": note, "words": words, "step": step}
TTLS = (TICK, timedelta(minutes=30), timedelta(hours=20), timedelta(hours=30))
JUMPS = (TICK, timedelta(minutes=29), timedelta(hours=1), timedelta(hours=23))
SEEN = ("exact", "time", "last_seen", "old", "late", "unnamed")
STATES = ({}, {"a": 1}, {"a": None, "box": {"x": 1}}, {"app:tone": "dry"}, {"user:b": 2, "c": 3})
METADATA = ({}, {"m": 1}, {"m": None, "n": {"x": 1}}, {"n": {"y": 2}})


def _by_value(record: SessionRecord | None) -> SessionRecord | None:
    """Return a session with its events as JSON values: not every store keeps their letters."""
    if record is None:
        return None
    events = [
        replace(event, data=json.dumps(json.loads(event.data), sort_keys=True))
        for event in record.events
    ]
    return replace(record, events=tuple(events))


class Comparison:
    """Takes each step on a store and on the model; raises AssertionError where they differ."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.model = Model(T0, store.rules.horizon, enforced=store.rules.enforced)
        self.steps: list[str] = []
        self._sent: dict[SessionKey, list[tuple[NewEvent, Revision]]] = {}

    async def _both(
        self, real: Awaitable[Any], ideal: Callable[..., Any], *arguments: Any
    ) -> tuple[Any, Any]:
        """Return the answers of store and model; a refusal counts as an answer, by its class.

        The model answers first: of several calls that wait for a store, each is about what the
        calls before it leave.
        """
        try:
            expected = ideal(*arguments)
        except LapseError as error:
            expected = type(error)
        try:
            answer = await real
        except StoreUnavailableError:
            raise
        except LapseError as error:
            answer = type(error)
        return answer, expected

    async def create(
        self, where: SessionKey, ttl: timedelta, state: dict, metadata: dict, used_by: UsedBy
    ) -> None:
        now, delta = self.model.now, split_state(state)
        real = self.store.at(now).create(
            where, state=delta, ttl=ttl, metadata=metadata, used_by=used_by
        )

        def ideal() -> Result:
            change = self.model.create(where, delta, ttl, metadata, used_by)
            return Result(self.model.read(where), (change,))

        answer, expected = await self._both(real, ideal)
        assert answer == expected

    async def append(
        self, where: SessionKey, kind: str, delay: timedelta, state: dict, seen: str
    ) -> None:
        session = self.model.sessions.get(where)
        revision = Revision(T0, 0) if session is None else session.revision
        name = f"e{len(self.steps):04}"
        event = KINDS[kind](name, at=revision.update_time + delay, state=state)
        last = session.events[-1].id if session is not None and session.events else None
        marks = {
            "exact": revision,
            "time": Revision(revision.update_time, None),
            "last_seen": LastSeen(revision.update_time, last),
            "old": replace(revision, number=revision.number - 1),
            "late": LastSeen(revision.update_time - TICK, "another"),
            "unnamed": LastSeen(revision.update_time, None),
        }
        await self._append(where, event, marks[seen])
        self._sent.setdefault(where, []).append((event, revision))

    async def repeat(self, where: SessionKey, back: int) -> None:
        """Send an event again, with the revision that its first sender held."""
        for event, revision in self._sent.get(where, [])[-1 - back :][:1]:
            await self._append(where, event, revision)

    async def _append(self, where: SessionKey, event: NewEvent, seen: Revision | LastSeen) -> None:
        real = self.store.at(self.model.now).append(where, event, seen)
        answer, expected = await self._both(real, self.model.append, where, event, seen)
        assert answer == expected

    async def delete(self, where: SessionKey) -> None:
        real = self.store.at(self.model.now).delete(where)
        answer, expected = await self._both(real, self.model.delete, where)
        assert answer == expected

    async def extend(self, where: SessionKey) -> None:
        real = self.store.at(self.model.now).extend(where)
        answer, expected = await self._both(real, self.model.extend, where)
        assert answer == expected

    async def hold_off(self, held_for: timedelta) -> None:
        real = self.store.at(self.model.now).hold_off(KEYS, held_for=held_for)
        held, expected = await self._both(real, self.model.hold_off, KEYS, held_for)
        assert set(held) == expected
        assert len(held) == len(set(held))

    async def restart_ttl(self, where: SessionKey, held_for: timedelta) -> None:
        real = self.store.at(self.model.now).restart_ttl(where, held_for=held_for)
        ended, expected = await self._both(real, self.model.restart_ttl, where, held_for)
        assert ended == expected

    async def amend(self, where: SessionKey, metadata: dict | None, ttl: timedelta | None) -> None:
        real = self.store.at(self.model.now).amend(where, metadata=metadata, ttl=ttl)
        answer, expected = await self._both(real, self.model.amend, where, metadata, ttl)
        assert answer == expected

    async def resurrect(self, where: SessionKey, cause: Cause) -> None:
        real = self.store.at(self.model.now).resurrect(where, cause=cause)
        answer, expected = await self._both(real, self.model.resurrect, where, cause)
        assert answer == expected

    async def expire_due(self, limit: int) -> None:
        due = self.model.due(Status.WAITING)
        swept = await self.store.at(self.model.now).expire_due(limit)
        taken = self._taken(swept, due, limit)
        self.model.expire(taken)
        assert all(
            change.record == self.model.record(change.record.key)
            for change in swept.changes
            if self.model.horizon
        )

    async def expire_backlog(self, limit: int) -> None:
        due = self.model.due(Status.WAITING)
        of_apps = await self.store.at(self.model.now).expire_backlog(limit)
        taken = [where for expiries in of_apps for where in expiries.keys]
        late = sorted(one for expiries in of_apps for one in expiries.latenesses)
        assert len(taken) == len(set(taken)) == len(late)
        expected = [(self.model.now - moment).total_seconds() for moment, _ in due[:limit]]
        assert late == sorted(expected)
        self.model.expire(taken)

    async def purge_due(self, limit: int) -> None:
        due = self.model.due(Status.EXPIRED)
        swept = await self.store.at(self.model.now).purge_due(limit)
        self.model.purge(self._taken(swept, due, limit))

    def _taken(self, swept: Result, due: list, limit: int) -> list[SessionKey]:
        """Return what a sweep took, once that is as many of the longest overdue as asked for."""
        deadline = {where: moment for moment, where in due}
        taken = [change.record.key for change in swept.changes]
        assert swept.value == len(taken) == len(set(taken))
        expected = [moment for moment, _ in due[:limit]]
        assert sorted(deadline[where] for where in taken) == expected
        assert all(change.at == self.model.now for change in swept.changes)
        return taken

    def pass_time(self, jump: timedelta) -> None:
        self.model.now += jump

    def go_to_a_deadline(self, number: int, early: timedelta) -> None:
        """Move to a deadline that is ahead, or a little before it."""
        moments = [one - early for one in self.model.deadlines() if one - early > self.model.now]
        if moments:
            self.model.now = moments[number % len(moments)]

    async def compare_one(self, where: SessionKey) -> None:
        """Compare what can be read of one session."""
        store = self.store.at(self.model.now)
        assert _by_value(await store.read(where)) == _by_value(self.model.read(where))
        assert await store.lifecycle(where) == self.model.record(where)

    async def compare(self) -> None:
        """Compare everything that can be read."""
        now, model, store = self.model.now, self.model, self.store
        reads = [store.at(now).read(where) for where in KEYS]
        lists = [("app", None), ("app", "ann"), ("app", "bob"), ("other", None)]
        seen = [_by_value(record) for record in await asyncio.gather(*reads)]
        assert seen == [_by_value(model.read(where)) for where in KEYS]
        lives = await asyncio.gather(*(store.at(now).lifecycle(where) for where in KEYS))
        assert lives == [model.record(where) for where in KEYS]
        found = await asyncio.gather(*(listed(store, user, now, app) for app, user in lists))
        assert [list(one) for one in found] == [model.listed(*one) for one in lists]
        assert await store.at(now).time_to_next() == model.time_to_next()
        assert await levels(store) == model.levels()
        assert (await store.overview(since=timedelta(0))).agent_only == model.agent_only()
        assert await store.user_state("app", "ann") == model.user.get(("app", "ann"), {})
