"""A migration from version 0 in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final
from zlib import crc32

import asyncpg

from lapse.core.clock import iso, utc_now
from lapse.core.errors import StoreRefusedError
from lapse.databases.tables import Row
from lapse.databases.v0 import changing_places, wording
from lapse.databases.v0.place import LARGEST_BATCH, Batch, Look, Span
from lapse.databases.v0.rows import (
    BATCHES,
    METADATA,
    MIGRATION,
    NAMES,
    NEW,
    OLD,
    TABLES,
    UNDONE,
    OldTable,
    named,
)
from lapse.store.operation import Dialect
from lapse.store.postgres.connections import (
    CONNECTING,
    NOT_NOW,
    not_connected,
    plain_url,
    unavailable,
)
from lapse.store.postgres.place import PARTING
from lapse.store.postgres.transaction import transaction
from lapse.store.statements import read_script
from lapse.store.urls import place_of

_PATIENCE: Final = 5
"""Seconds that the lock waits for somebody who writes."""

_ATTEMPTS: Final = 5
"""How often the tables are locked at most, after a deadlock with somebody who writes."""

_IN_ORDER: Final = ("sessions", "app_states", "user_states", "events")
"""ADK's tables in the order in which its service takes them."""

_FETCH: Final = "FETCH 32 FROM"
"""So few rows come at a time, because they may be large."""

_PREPARED: Final = f"""\
SET LOCAL lock_timeout = '{_PATIENCE}s';
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL statement_timeout = 0
"""

_COLUMNS: Final = """\
SELECT c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.oid = to_regclass(c.relname) AND c.relname = ANY($1) AND a.attnum > 0
  AND NOT a.attisdropped
"""

_HANGS: Final = """\
SELECT format('the table %s refers to %s', c.conrelid::regclass, c.confrelid::regclass)
FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.conrelid
WHERE c.contype = 'f' AND c.confrelid = ANY($1::regclass[]) AND c.conrelid <> ALL($1::regclass[])
  AND NOT starts_with(r.relname, 'lapse_')
UNION ALL
SELECT format('the trigger %s hangs on %s', tgname, tgrelid::regclass)
FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = ANY($1::regclass[])
UNION ALL
SELECT format('the policy %s is about %s', polname, polrelid::regclass)
FROM pg_policy WHERE polrelid = ANY($1::regclass[])
UNION ALL
SELECT format('the view %s shows %s', r.ev_class::regclass, d.refobjid::regclass)
FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = ANY($1::regclass[])
LIMIT 1
"""

_ALLOWED: Final = """\
SELECT coalesce(
  (
    SELECT format('the table %s is of another role', c.oid::regclass)
    FROM pg_class AS c WHERE c.oid = ANY($1::regclass[]) AND NOT pg_has_role(c.relowner, 'USAGE')
    LIMIT 1
  ),
  (
    SELECT format('the table %s is in the schema %s', c.relname, c.relnamespace::regnamespace)
    FROM pg_class AS c
    WHERE c.oid = ANY($1::regclass[]) AND c.relnamespace::regnamespace::text <> current_schema()
    LIMIT 1
  ),
  CASE WHEN NOT has_schema_privilege(current_schema(), 'CREATE')
    THEN format('it may not create tables in %s', current_schema()) END
)
"""

_OTHERS: Final = """\
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def _mark(number: int) -> str:
    return f"${number}"


class PostgresPlace:
    """A PostgreSQL database; others can read ADK's tables until these change their places."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = place_of(url)

    async def look(self) -> Look:
        async with self._connected() as connection:
            return await look(connection)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[PostgresWork]:
        async with (
            self._connected() as connection,
            transaction(connection, isolation="repeatable_read", readonly=True),
        ):
            yield await PostgresWork.of(connection, connection)

    @asynccontextmanager
    async def locked(self, *, alone: bool = False) -> AsyncIterator[PostgresWork]:
        async with self._connected() as holder, transaction(holder):
            await holder.execute(_PREPARED)
            if alone:
                await self._lock(holder, "ACCESS EXCLUSIVE")
                yield await PostgresWork.of(holder, holder)
                return
            # Who waits for a lock may have another one, so this one is not made stronger later.
            await self._lock(holder, "SHARE ROW EXCLUSIVE")
            async with self._connected() as connection:
                yield await PostgresWork.of(connection, holder)

    async def _lock(self, holder: asyncpg.Connection, mode: str) -> None:
        found = (await look(holder)).columns
        tables = [name for name in _IN_ORDER if found[name]]
        if reason := await holder.fetchval(_ALLOWED, tables):
            raise StoreRefusedError(
                f"{self.name}: {reason}; run this as the owner of ADK's tables, with a URL whose "
                "search_path begins with their schema"
            )
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with transaction(holder):
                    await holder.execute(f"LOCK TABLE {', '.join(tables)} IN {mode} MODE")
            except asyncpg.DeadlockDetectedError:
                if attempt == _ATTEMPTS:
                    raise
            except asyncpg.LockNotAvailableError as error:
                raise StoreRefusedError(
                    f"{self.name}: somebody uses ADK's tables, or migrates them ({_PATIENCE} s "
                    "waited); stop all servers that use them, and run it again"
                ) from error
            else:
                return

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        try:
            connection = await asyncpg.connect(plain_url(self._url), timeout=10)
        except CONNECTING as error:
            raise not_connected(error, self.name) from None
        try:
            with _answering(self.name):
                yield connection
        finally:
            with suppress(*NOT_NOW):
                await connection.close(timeout=PARTING.total_seconds())


@contextmanager
def _answering(place: str) -> Any:
    try:
        yield
    except NOT_NOW as error:
        raise unavailable(error, place) from error
    except asyncpg.PostgresError as error:
        raise StoreRefusedError(f"{place}: {error}") from error


async def look(connection: asyncpg.Connection) -> Look:
    """Return what there is in a database."""
    names = [f"{prefix}{name}" for prefix in ("", NEW, OLD, UNDONE) for name in NAMES]
    columns: dict[str, set[str]] = {name: set() for name in (*names, METADATA, MIGRATION, BATCHES)}
    for row in await connection.fetch(_COLUMNS, list(columns)):
        columns[row["relname"]].add(row["attname"])
    present = [name for name in NAMES if columns[name]]
    hangs = await connection.fetchval(_HANGS, present)
    return Look(columns, hangs or "", await connection.fetchval(_OTHERS))


class PostgresWork:
    """The work in two connections: `holder` has the lock, in a transaction of its own."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        holder: asyncpg.Connection,
        present: Mapping[str, Any],
    ) -> None:
        self._connection = connection
        self._holder = holder
        self._present = present

    @classmethod
    async def of(cls, connection: asyncpg.Connection, holder: asyncpg.Connection) -> PostgresWork:
        """Make it, with the columns that the tables have."""
        found = await look(connection)
        return cls(connection, holder, {table.name: found.columns[table.name] for table in TABLES})

    async def look(self) -> Look:
        return await look(self._connection)

    async def begin(self, zone: str) -> str:
        async with transaction(self._connection):
            await self._connection.execute(wording.NOTES)
            begun = await self._connection.fetchval(f"SELECT time_zone FROM {MIGRATION}")  # noqa: S608 - names of ours
            if begun is not None:
                return str(begun)
            await self._connection.execute(wording.new_tables(Dialect.POSTGRES))
            now = iso(utc_now())
            await self._connection.execute(wording.begin_migration(_mark), now, zone, "[]")
            return zone

    async def batches(self) -> Sequence[Batch]:
        rows = await self._connection.fetch(wording.BATCHES_SO_FAR)
        return [Batch.of(tuple(row)) for row in rows]

    async def read(self, span: Span) -> list[Row]:
        sql, arguments = wording.page_of_old(span, self._present[span.table.name], _mark)
        return await self._page(sql, arguments)

    async def read_new(self, prefix: str, span: Span) -> list[Row]:
        return await self._page(*wording.page_of_new(prefix, span, _mark))

    async def count(self, name: str) -> int:
        return int(await self._connection.fetchval(f"SELECT count(*) FROM {name}"))  # noqa: S608 - names of ours

    async def exchange(
        self, batch: Batch, table: OldTable, rows: Sequence[Row], check: Callable[[list[Row]], None]
    ) -> None:
        await self._holder.fetchval("SELECT 1")  # the lock is still ours
        span = Span(table, batch.after, batch.last)
        async with transaction(self._connection):
            sql, arguments = wording.delete_gone(span, _mark)
            await self._connection.execute(sql, *arguments)
            await self._write(table, rows)
            await self._connection.execute(wording.note_batch(_mark), *batch.stored)
            written = list[Row]()
            while page := await self._page(*wording.page_of_new(NEW, span, _mark)):
                written += page
                span = Span(table, wording.key_of_new(table, page[-1]), batch.last)
            check(written)

    async def forget(self, batch: Batch) -> None:
        await self._connection.execute(wording.forget_batch(_mark), *batch.stored[:2])

    async def swap(self) -> None:
        taken = await changing_places.references(self._holder)
        await changing_places.set_aside(self._holder, OLD)
        await changing_places.put_in_place(self._holder, NEW)
        await self._holder.execute(read_script(Dialect.POSTGRES, "adk_v1.sql"))
        await changing_places.give_as(self._holder, OLD)
        await changing_places.refer_again(self._holder, taken)
        await self._holder.execute(f"ANALYZE {', '.join(NAMES)}")

    async def swap_back(self, *, keeping: bool) -> None:
        taken = await changing_places.references(self._holder)
        if keeping:
            await changing_places.set_aside(self._holder, UNDONE)
        else:
            await self._holder.execute(f"DROP TABLE {', '.join(reversed(NAMES))}")
        await changing_places.put_in_place(self._holder, OLD)
        await self._holder.execute(f"DROP TABLE {METADATA}, {BATCHES}, {MIGRATION}")
        if keeping and await self._holder.fetchval("SELECT to_regclass('lapse_lobby')"):
            for statement in wording.SET_RECORDS_ASIDE:
                await self._holder.execute(statement)
        await changing_places.refer_again(self._holder, taken)

    async def drop(self) -> None:
        old = ", ".join(f"{OLD}{name}" for name in reversed(NAMES))
        await self._holder.execute(f"DROP TABLE {old}, {BATCHES}, {MIGRATION}")

    async def _page(self, sql: str, arguments: Sequence[str]) -> list[Row]:
        """Return rows until they have enough bytes."""
        rows, size, run = list[Row](), 0, self._connection
        async with transaction(run):  # or a savepoint
            # A cursor of SQL's: the driver's own would be open until the last transaction ends, and
            # no table can change its place under one.
            # Each has a name of its own for its columns, as the driver keeps what FETCH returns.
            cursor = f"lapse_page_{crc32(sql.partition(' WHERE ')[0].encode()):x}"
            await run.execute(f"DECLARE {cursor} NO SCROLL CURSOR FOR {sql}", *arguments)
            while size <= LARGEST_BATCH and (found := await run.fetch(f"{_FETCH} {cursor}")):
                for row in found:
                    size += sum(len(value) for value in row if isinstance(value, str | bytes))
                    rows.append(tuple(map(_naive, row)))
            await run.execute(f"CLOSE {cursor}")
        return rows

    async def _write(self, table: OldTable, rows: Sequence[Row]) -> None:
        statement = wording.write_new(table, _mark)
        try:
            async with transaction(self._connection):
                await self._connection.executemany(statement, rows)
        except asyncpg.DataError as error:
            if len(rows) > 1:
                for row in rows:
                    await self._write(table, [row])
                return
            at = {name: number for number, (name, _) in enumerate(table.new.columns)}
            row = tuple(rows[0][at[name]] for name in table.key)
            raise StoreRefusedError(
                f"{named(table, row)}: PostgreSQL cannot hold it ({type(error).__name__}); mend or "
                "delete this row, and run it again"
            ) from error


def _naive(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
