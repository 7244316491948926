"""The PostgreSQL store: any number of replicas and sweepers on one database.

Each transition is one statement and one round trip. The database's clock is the only one. If two
replicas change the same session at once, the locks of its rows decide which comes first.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from typing import Any, Final, Self, TypeVar

import asyncpg

from lapse.core.errors import StoreRefusedError
from lapse.core.lifecycle import Rules
from lapse.store.database import Inspection
from lapse.store.opening import Opening
from lapse.store.operation import Asking, Dialect
from lapse.store.options import ConnectionOptions, PostgresFeature
from lapse.store.postgres import append, reading
from lapse.store.postgres.call import Call
from lapse.store.postgres.combining import Queues
from lapse.store.postgres.connections import Attempts, Connections
from lapse.store.postgres.grants import check_privileges, grants_to
from lapse.store.postgres.listen import Listener
from lapse.store.postgres.schema import look, pending_script, prepare
from lapse.store.postgres.transaction import transaction
from lapse.store.schemas import missing_indexes, newest_version

T = TypeVar("T")


async def _together(call: Call, asking: Callable[[], Asking[T]]) -> T:
    """Drive a part of an operation in one transaction; see `operation.together`."""
    if call.taken is not None:
        return await call.drive(asking())
    return await call.drive_together(asking)


async def _apart(_: Call, work: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a thread; see `operation.apart`."""
    return await asyncio.to_thread(work, *arguments)


_NATIVES: Final[Mapping[str, Callable[..., Any]]] = {
    "append": append.append,
    "hold": append.hold,
    "read": reading.read,
    "list_of_user": reading.list_of_user,
    "list_of_app": reading.list_of_app,
    "together": _together,
    "apart": _apart,
}


class PostgresSnapshot:
    """A `Snapshot` in a read-only transaction."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def rules(self) -> Rules:
        """Return the rules that the store enforces."""
        return self._call.rules

    async def run(
        self,
        asking: Callable[[], Asking[T]],
        *,
        writes: bool = True,  # noqa: ARG002 - the protocol's parameter
        flushed: bool = True,  # noqa: ARG002 - likewise
        together: bool = False,  # noqa: ARG002 - likewise
    ) -> T:
        """Drive an operation that only reads; the server refuses one that writes."""
        return await self._call.drive(asking())


class PostgresDatabase:
    """A Database on a PostgreSQL server.

    Args:
        url: `postgresql://USER:PASSWORD@HOST/DATABASE`, as libpq has it.
        rules: what the store enforces.
        options: how to connect.
    """

    def __init__(
        self, url: str, rules: Rules | None = None, options: ConnectionOptions | None = None
    ) -> None:
        self._has_rules, self._has_options = rules is not None, options is not None
        self._rules = rules or Rules()
        self._connections = Connections(url, options or ConnectionOptions())
        self._queues = Queues(self._connections)
        # Copies with other clocks share all of these.
        self._opening = Opening(self._prepare)
        self._now: datetime | None = None

    @property
    def rules(self) -> Rules:
        return self._rules

    def default_to(self, rules: Rules, options: ConnectionOptions) -> None:
        if not self._has_rules:
            self._rules = rules
        if not self._has_options:
            self._connections.default_to(options)

    async def open(self) -> None:
        self._connections.open()
        await self._opened()

    async def _opened(self) -> None:
        """Bring the schema up to date, once for all who ask at the same time."""
        if not self._connections.are_prepared:
            await self._opening.finish()

    async def _prepare(self) -> None:
        async with self._connections.lent() as connection:
            await prepare(connection, self._connections.place, self._connections.without)
        self._connections.are_prepared = True

    async def grant_to(self, role: str) -> None:
        """Give a role the privileges that a server needs on the tables, and no others.

        Raises:
            StoreRefusedError: the role does not exist, or this one does not own the tables.
        """
        await self._opened()
        async with self._connections.lent() as connection:
            try:
                await connection.execute(grants_to(role))
            except (asyncpg.UndefinedObjectError, asyncpg.InsufficientPrivilegeError) as error:
                raise StoreRefusedError(f"{self._connections.place}: {error}") from error

    async def close(self) -> None:
        await self._connections.close()

    async def run(
        self,
        asking: Callable[[], Asking[T]],
        *,
        writes: bool = True,  # noqa: ARG002 - each statement says so itself
        flushed: bool = True,
        together: bool = False,
    ) -> T:
        if not self._connections.are_prepared:
            await self._opened()
        call = self._calls()
        result = await (call.drive_together(asking) if together else call.drive(asking()))
        if flushed and call.attempts.in_doubt:
            # The repeat may have found the work of an attempt whose commit no longer waits for the
            # synchronous standby.
            await call.confirm()
        return result

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresSnapshot]:
        await self._opened()
        async with (
            self._connections.alone() as connection,
            transaction(connection, isolation="repeatable_read", readonly=True),
        ):
            await connection.execute("SELECT 1")  # the snapshot is taken at the first statement
            yield PostgresSnapshot(self._calls(connection))

    async def scrub(self) -> str | None:
        return (
            "the server's files: what was deleted stays in them until VACUUM FULL rewrites the "
            "tables, and in the write-ahead log until that is recycled"
        )

    def listen(
        self, channel: str, hear: Callable[[str], None]
    ) -> AbstractAsyncContextManager[None]:
        if PostgresFeature.LISTEN in self._connections.without:
            return nullcontext()
        return Listener(self._connections, channel, hear)

    async def notify(self, channel: str, texts: Iterable[str]) -> None:
        if PostgresFeature.LISTEN in self._connections.without:
            return
        await self._opened()
        for text in texts:
            # Each text has a transaction of its own, because a commit with NOTIFY takes a lock
            # that all such commits share.
            await self._connections.fetch(
                "SELECT pg_notify($1, $2)", (channel, text), Attempts(), writes=True
            )

    def at(self, now: datetime) -> Self:
        other = copy.copy(self)
        other._now = now  # noqa: SLF001 - it is of this class
        return other

    async def inspect(self, *, most: int = 0) -> Inspection:
        async with self._connections.alone() as connection:
            place, without = self._connections.place, self._connections.without
            await check_privileges(connection, place)
            script = await pending_script(connection, place, without)
            version = (await look(connection)).lapse_version
            newest = newest_version(Dialect.POSTGRES)
            if not version:
                now = await connection.fetchval("SELECT clock_timestamp()")
                return Inspection(now, 0, newest, script)
            call = self._calls(connection)
            indexes = await call.run("indexes")
            sessions = await call.first("inspect_sessions", most=most)
            assert sessions is not None
            return Inspection(
                now=sessions["now"],
                version=version,
                newest=newest,
                script=script,
                missing_indexes=missing_indexes(
                    Dialect.POSTGRES, version, {row["name"] for row in indexes if row["valid"]}
                ),
                expire=sessions["expire"],
                purge=sessions["purge"],
                used_but_expired=sessions["used_but_expired"],
            )

    def _calls(self, taken: Any = None) -> Call:
        return Call(self._connections, self._rules, self._now, self._queues, _NATIVES, taken=taken)
