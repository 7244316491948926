"""The PostgreSQL store with the slices that are not yet written as operations."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager

from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Rules
from lapse.notices.store import Snapshot
from lapse.store.operation import NO_SESSION
from lapse.store.options import ConnectionOptions
from lapse.store.postgres import listen, watching
from lapse.store.postgres.adopting import PostgresAdopting
from lapse.store.postgres.auditing import PostgresAudited
from lapse.store.postgres.call import Call
from lapse.store.postgres.database import PostgresDatabase
from lapse.store.postgres.part import Known
from lapse.store.protocol import Store


class PostgresStore(PostgresDatabase, PostgresAdopting, PostgresAudited, Store):
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

    async def records(self, keys: Collection[SessionKey]) -> Snapshot:
        return await watching.records(await self._call(), keys)

    async def announce(self, keys: Collection[SessionKey]) -> None:
        await watching.announce(await self._call(), keys, self._sender)

    def announcements(
        self, heard: Callable[[Collection[str]], None]
    ) -> AbstractAsyncContextManager[None]:
        hear = watching.hearing(heard, self._sender)
        return listen.Listener(self._connections, watching.CHANNEL, hear)
