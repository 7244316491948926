"""The PostgreSQL store: any number of replicas and sweepers on one database.

One statement is one transition is one round trip; the database's clock is the only one. What
two replicas do at once is decided by the locks of the rows it is about.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, timedelta
from typing import Any, Self

from lapse.check.store import Inspection
from lapse.core.documents import StateDelta
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Change, Lifecycle, Rules
from lapse.notices.store import Snapshot
from lapse.runs.store import RunNews, RunRecord, RunStatus
from lapse.store.options import ConnectionOptions
from lapse.store.postgres import append as appending
from lapse.store.postgres import inspecting, lobby, observations, reading, runs, watching
from lapse.store.postgres import listen as hints
from lapse.store.postgres.adopting import PostgresAdopting
from lapse.store.postgres.auditing import PostgresAudited
from lapse.store.postgres.call import NO_SESSION, Call
from lapse.store.postgres.connections import Connections
from lapse.store.postgres.limiting import PostgresLimiting
from lapse.store.postgres.operating import PostgresOperated
from lapse.store.postgres.part import Known
from lapse.store.postgres.schema import pending_script, prepare
from lapse.store.sessions import (
    Appended,
    Created,
    EventWindow,
    Glimpse,
    NewEvent,
    Outcome,
    Revision,
    SessionRecord,
    Swept,
)
from lapse.ttl import Decision, Scope
from lapse.ttl.observed import Count
from lapse.ttl.store import FirstMessage, Round


class PostgresStore(PostgresAdopting, PostgresAudited, PostgresLimiting, PostgresOperated):
    """A Store in one PostgreSQL database.

    Args:
        url: `postgresql://USER:PASSWORD@HOST/DATABASE`, as libpq has it.
        rules: what it enforces.
        options: how to connect.
    """

    def __init__(
        self, url: str, rules: Rules = Rules(), options: ConnectionOptions = ConnectionOptions()
    ) -> None:
        self._rules = rules
        self._connections = Connections(url, options)
        self._known = Known()
        self._sender = secrets.token_hex(4)
        self._now: datetime | None = None

    def at(self, now: datetime) -> Self:
        other = copy.copy(self)
        other._now = now  # noqa: SLF001 - another of this class
        return other

    @property
    def rules(self) -> Rules:
        return self._rules

    async def open(self) -> None:
        if not self._known.prepared:
            connection = await self._connections.connect()
            try:
                await prepare(connection, self._connections.place)
            finally:
                await connection.close()
            self._known.prepared = True

    async def pending_migration(self) -> str:
        connection = await self._connections.connect()
        try:
            return await pending_script(connection, self._connections.place)
        finally:
            await connection.close()

    def hints(self, nearer: Callable[[timedelta], None]) -> AbstractAsyncContextManager[None]:
        return hints.Listener(self._connections, hints.CHANNEL, hints.hearing(nearer))

    async def close(self) -> None:
        await self._connections.close()

    async def _call(self, key: SessionKey = NO_SESSION) -> Call:
        await self.open()
        return Call(self._connections, self._rules, self._now, key)

    async def inspect(self) -> Inspection:
        return await inspecting.inspect(Call(self._connections, self._rules, None))

    async def ping(self) -> None:
        await (await self._call()).run("ping")

    async def create(
        self,
        key: SessionKey,
        *,
        state: StateDelta,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        site: str | None = None,
    ) -> Created:
        return await lobby.create(await self._call(key), state, ttl, metadata, site)

    async def read(
        self, key: SessionKey, window: EventWindow = EventWindow()
    ) -> SessionRecord | None:
        return await reading.read(await self._call(key), window)

    async def list(self, app_name: str, user_id: str) -> Sequence[SessionRecord]:
        key = SessionKey(app_name, user_id, "")
        return await reading.list_of_user(await self._call(key))

    async def list_of_all_users(self, app_name: str) -> Sequence[SessionRecord]:
        return await reading.list_of_app(await self._call(SessionKey(app_name, "", "")))

    async def append(self, key: SessionKey, event: NewEvent, seen: Revision | Glimpse) -> Appended:
        return await appending.append(await self._call(key), event, seen)

    async def delete(self, key: SessionKey, *, by: str | None = None) -> Change | None:
        return await lobby.delete(await self._call(key), by)

    async def user_state(self, app_name: str, user_id: str) -> dict[str, Any]:
        return await reading.user_state(await self._call(SessionKey(app_name, user_id, "")))

    async def lifecycle(self, key: SessionKey) -> Lifecycle | None:
        return await (await self._call(key)).lifecycle()

    async def amend(
        self,
        key: SessionKey,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        by: str | None = None,
    ) -> Outcome:
        return await lobby.amend(await self._call(key), metadata, ttl, by)

    async def extend(self, key: SessionKey, *, by: str | None = None) -> Outcome:
        return await lobby.extend(await self._call(key), by)

    async def resurrect(self, key: SessionKey, *, cause: Cause, by: str | None = None) -> Outcome:
        return await lobby.resurrect(await self._call(key), cause, by)

    async def expire(self, key: SessionKey, *, by: str | None = None) -> Outcome:
        return await lobby.expire(await self._call(key), by)

    async def expire_due(self, limit: int) -> Swept:
        return await lobby.expire_due(await self._call(), limit)

    async def purge_due(self, limit: int) -> Swept:
        return await lobby.purge_due(await self._call(), limit)

    async def time_to_next(self) -> timedelta | None:
        return await lobby.time_to_next(await self._call())

    async def observed(self, *, since: date) -> Sequence[Count]:
        return await observations.observed(await self._call(), since)

    async def recent_first_messages(
        self, *, newest: int, reach: timedelta
    ) -> Sequence[FirstMessage]:
        return await observations.recent(await self._call(), newest, reach)

    async def fold_observations(
        self, *, before: datetime, segments: Collection[Scope], forgotten: datetime
    ) -> None:
        await observations.fold(await self._call(), before, segments, forgotten)

    async def refuse(self, key: SessionKey) -> bool:
        return await observations.refuse(await self._call(key))

    async def ttl_round(self) -> Round:
        return await observations.ttl_round(await self._call())

    async def ttl_decisions(self, *, newest: int = 1) -> Sequence[Decision]:
        return await observations.ttl_decisions(await self._call(), newest)

    async def record_decisions(
        self, decisions: Sequence[Decision], *, slot: int, version: int
    ) -> bool:
        call = await self._call()
        return await observations.record_decisions(call, decisions, slot, version)

    async def lengthen_waiting(
        self, scope: Scope, *, before: timedelta, ttl: timedelta, limit: int
    ) -> Sequence[Change]:
        call = await self._call(SessionKey(scope.app_name, "", ""))
        return await observations.lengthen_waiting(call, scope, before, ttl, limit)

    # What runs need.

    async def begin_run(self, key: SessionKey, run_id: str, *, most_of_user: int) -> RunRecord:
        return await runs.begin(await self._call(key), run_id, most_of_user)

    async def note_run(self, run_id: str, invocation_id: str, since: datetime) -> None:
        await runs.note(await self._call(), run_id, invocation_id, since)

    async def beat_runs(self, run_ids: Sequence[str]) -> Mapping[str, bool]:
        return await runs.beat(await self._call(), run_ids)

    async def end_run(
        self,
        run_id: str,
        status: RunStatus,
        *,
        error: Mapping[str, Any] | None = None,
        until: datetime | None = None,
    ) -> bool:
        return await runs.end(await self._call(), run_id, status, error, until)

    async def cancel_run(self, key: SessionKey, run_id: str) -> RunRecord | None:
        return await runs.cancel(await self._call(key), run_id)

    async def find_run(
        self, key: SessionKey, run_id: str | None = None, *, event_id: str | None = None
    ) -> RunRecord | None:
        return await runs.find(await self._call(key), run_id, event_id)

    async def run_news(self, places: Mapping[str, str | None], *, limit: int) -> Sequence[RunNews]:
        return await runs.news(await self._call(), places, limit)

    async def forget_runs(self, limit: int) -> int:
        return await runs.forget(await self._call(), limit)

    async def records(self, keys: Collection[SessionKey]) -> Snapshot:
        return await watching.records(await self._call(), keys)

    async def announce(self, keys: Collection[SessionKey]) -> None:
        await watching.announce(await self._call(), keys, self._sender)

    def announcements(
        self, heard: Callable[[Collection[str]], None]
    ) -> AbstractAsyncContextManager[None]:
        hear = watching.hearing(heard, self._sender)
        return hints.Listener(self._connections, watching.CHANNEL, hear)
