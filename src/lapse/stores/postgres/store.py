"""The PostgreSQL store: any number of replicas and sweepers on one database.

One statement is one transition is one round trip; the database's clock is the only one. What
two replicas do at once is decided by the locks of the rows it is about.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, timedelta
from typing import Any

from lapse.documents import StateDelta
from lapse.lifecycle import Cause, Change, Lifecycle, Rules, SessionKey
from lapse.observations import FirstMessage, Round
from lapse.operating import Tally
from lapse.run_store import RunNews, RunRecord, RunStatus
from lapse.store import (
    Appended,
    ConnectionOptions,
    Created,
    EventWindow,
    Glimpse,
    NewEvent,
    Outcome,
    Revision,
    SessionRecord,
    Swept,
)
from lapse.stores.postgres import (
    appending,
    hints,
    lobby,
    observations,
    reading,
    runs,
    watching,
)
from lapse.stores.postgres.adopting import PostgresAdopting
from lapse.stores.postgres.call import NO_SESSION, Call
from lapse.stores.postgres.connections import Connections
from lapse.stores.postgres.schema import pending_script, prepare
from lapse.ttl import Decision, Scope
from lapse.ttl.observed import Count
from lapse.watching import Snapshot


class PostgresStore(PostgresAdopting):
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
        self._prepared = False
        self._sender = secrets.token_hex(4)

    @property
    def rules(self) -> Rules:
        return self._rules

    async def open(self) -> None:
        if not self._prepared:
            connection = await self._connections.connect()
            try:
                await prepare(connection, self._connections.place)
            finally:
                await connection.close()
            self._prepared = True

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

    async def _at(self, now: datetime | None, key: SessionKey = NO_SESSION) -> Call:
        await self.open()
        return Call(self._connections, self._rules, now, key)

    async def ping(self) -> None:
        await (await self._at(None)).run("ping")

    async def create(
        self,
        key: SessionKey,
        *,
        state: StateDelta,
        ttl: timedelta,
        metadata: Mapping[str, Any],
        now: datetime | None = None,
    ) -> Created:
        return await lobby.create(await self._at(now, key), state, ttl, metadata)

    async def read(
        self, key: SessionKey, window: EventWindow = EventWindow(), *, now: datetime | None = None
    ) -> SessionRecord | None:
        return await reading.read(await self._at(now, key), window)

    async def list(
        self, app_name: str, user_id: str, *, now: datetime | None = None
    ) -> Sequence[SessionRecord]:
        key = SessionKey(app_name, user_id, "")
        return await reading.list_of_user(await self._at(now, key))

    async def list_of_all_users(
        self, app_name: str, *, now: datetime | None = None
    ) -> Sequence[SessionRecord]:
        return await reading.list_of_app(await self._at(now, SessionKey(app_name, "", "")))

    async def append(
        self,
        key: SessionKey,
        event: NewEvent,
        seen: Revision | Glimpse,
        *,
        now: datetime | None = None,
    ) -> Appended:
        return await appending.append(await self._at(now, key), event, seen)

    async def delete(self, key: SessionKey, *, now: datetime | None = None) -> Change | None:
        return await lobby.delete(await self._at(now, key))

    async def user_state(self, app_name: str, user_id: str) -> dict[str, Any]:
        return await reading.user_state(await self._at(None, SessionKey(app_name, user_id, "")))

    async def lifecycle(self, key: SessionKey, *, now: datetime | None = None) -> Lifecycle | None:
        return await (await self._at(now, key)).lifecycle()

    async def amend(
        self,
        key: SessionKey,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: timedelta | None = None,
        now: datetime | None = None,
    ) -> Outcome:
        return await lobby.amend(await self._at(now, key), metadata, ttl)

    async def extend(self, key: SessionKey, *, now: datetime | None = None) -> Outcome:
        return await lobby.extend(await self._at(now, key))

    async def resurrect(
        self, key: SessionKey, *, cause: Cause, now: datetime | None = None
    ) -> Outcome:
        return await lobby.resurrect(await self._at(now, key), cause)

    async def expire_due(self, limit: int, *, now: datetime | None = None) -> Swept:
        return await lobby.expire_due(await self._at(now), limit)

    async def purge_due(self, limit: int, *, now: datetime | None = None) -> Swept:
        return await lobby.purge_due(await self._at(now), limit)

    async def time_to_next(self, *, now: datetime | None = None) -> timedelta | None:
        return await lobby.time_to_next(await self._at(now))

    async def tallies(self) -> Sequence[Tally]:
        return await reading.tallies(await self._at(None))

    async def observed(self, *, since: date) -> Sequence[Count]:
        return await observations.observed(await self._at(None), since)

    async def recent_first_messages(
        self, *, newest: int, reach: timedelta, now: datetime | None = None
    ) -> Sequence[FirstMessage]:
        return await observations.recent(await self._at(now), newest, reach)

    async def fold_observations(
        self, *, before: datetime, segments: Collection[Scope], forgotten: datetime
    ) -> None:
        await observations.fold(await self._at(None), before, segments, forgotten)

    async def refuse(self, key: SessionKey, *, now: datetime | None = None) -> bool:
        return await observations.refuse(await self._at(now, key))

    async def ttl_round(self, *, now: datetime | None = None) -> Round:
        return await observations.ttl_round(await self._at(now))

    async def ttl_decisions(self, *, newest: int = 1) -> Sequence[Decision]:
        return await observations.ttl_decisions(await self._at(None), newest)

    async def record_decisions(
        self, decisions: Sequence[Decision], *, slot: int, version: int
    ) -> bool:
        call = await self._at(None)
        return await observations.record_decisions(call, decisions, slot, version)

    async def lengthen_waiting(
        self,
        scope: Scope,
        *,
        before: timedelta,
        ttl: timedelta,
        limit: int,
        now: datetime | None = None,
    ) -> Sequence[Change]:
        call = await self._at(now, SessionKey(scope.app_name, "", ""))
        return await observations.lengthen_waiting(call, scope, before, ttl, limit)

    # What runs need.

    async def begin_run(
        self, key: SessionKey, run_id: str, *, most_of_user: int, now: datetime | None = None
    ) -> RunRecord:
        return await runs.begin(await self._at(now, key), run_id, most_of_user)

    async def note_run(self, run_id: str, invocation_id: str, since: datetime) -> None:
        await runs.note(await self._at(None), run_id, invocation_id, since)

    async def beat_runs(
        self, run_ids: Sequence[str], *, now: datetime | None = None
    ) -> Mapping[str, bool]:
        return await runs.beat(await self._at(now, NO_SESSION), run_ids)

    async def end_run(
        self,
        run_id: str,
        status: RunStatus,
        *,
        error: Mapping[str, Any] | None = None,
        until: datetime | None = None,
        now: datetime | None = None,
    ) -> bool:
        return await runs.end(await self._at(now, NO_SESSION), run_id, status, error, until)

    async def cancel_run(
        self, key: SessionKey, run_id: str, *, now: datetime | None = None
    ) -> RunRecord | None:
        return await runs.cancel(await self._at(now, key), run_id)

    async def find_run(
        self,
        key: SessionKey,
        run_id: str | None = None,
        *,
        event_id: str | None = None,
        now: datetime | None = None,
    ) -> RunRecord | None:
        return await runs.find(await self._at(now, key), run_id, event_id)

    async def run_news(
        self, places: Mapping[str, str | None], *, limit: int, now: datetime | None = None
    ) -> Sequence[RunNews]:
        return await runs.news(await self._at(now, NO_SESSION), places, limit)

    async def forget_runs(self, limit: int, *, now: datetime | None = None) -> int:
        return await runs.forget(await self._at(now, NO_SESSION), limit)

    async def records(
        self, keys: Collection[SessionKey], *, now: datetime | None = None
    ) -> Snapshot:
        return await watching.records(await self._at(now), keys)

    async def announce(self, keys: Collection[SessionKey]) -> None:
        await watching.announce(await self._at(None), keys, self._sender)

    def announcements(
        self, heard: Callable[[Collection[str]], None]
    ) -> AbstractAsyncContextManager[None]:
        hear = watching.hearing(heard, self._sender)
        return hints.Listener(self._connections, watching.CHANNEL, hear)
