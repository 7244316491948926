"""The PostgreSQL store with the slices that are not yet written as operations."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Rules
from lapse.notices.store import Snapshot
from lapse.runs.store import RunNews, RunRecord, RunStatus
from lapse.store.operation import NO_SESSION
from lapse.store.options import ConnectionOptions
from lapse.store.postgres import listen, runs, watching
from lapse.store.postgres.adopting import PostgresAdopting
from lapse.store.postgres.auditing import PostgresAudited
from lapse.store.postgres.call import Call
from lapse.store.postgres.database import PostgresDatabase
from lapse.store.postgres.limiting import PostgresLimiting
from lapse.store.postgres.operating import PostgresOperated
from lapse.store.postgres.part import Known
from lapse.store.protocol import Store


class PostgresStore(
    PostgresDatabase, PostgresAdopting, PostgresAudited, PostgresLimiting, PostgresOperated, Store
):
    """A store in one PostgreSQL database."""

    def __init__(
        self, url: str, rules: Rules = Rules(), options: ConnectionOptions = ConnectionOptions()
    ) -> None:
        super().__init__(url, rules, options)
        self._known = Known()
        self._sender = secrets.token_hex(4)

    async def _call(self, key: SessionKey = NO_SESSION) -> Call:
        await self.open()
        return Call(self._connections, self._rules, self._now, {}, None, key)

    def hints(self, nearer: Callable[[timedelta], None]) -> AbstractAsyncContextManager[None]:
        return self.listen(listen.CHANNEL, listen.hearing(nearer))

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
        return listen.Listener(self._connections, watching.CHANNEL, hear)
