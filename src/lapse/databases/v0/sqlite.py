"""A migration from version 0 in an SQLite file."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, Final

from lapse.core.clock import iso, utc_now
from lapse.core.errors import StoreRefusedError
from lapse.databases.sqlite import open_read_only
from lapse.databases.tables import Row, Type, from_sqlite, to_sqlite
from lapse.databases.v0 import wording
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
)
from lapse.store.operation import Dialect
from lapse.store.schemas import missing_indexes
from lapse.store.sqlite.schema import connect, explain, is_of_adk_web
from lapse.store.statements import read_script

_MENTIONS: Final = re.compile(rf"\b({'|'.join(NAMES)})\b", re.IGNORECASE)
_CACHE_KIB: Final = 32 * 1024


def _mark(_: int) -> str:
    return "?"


class SqlitePlace:
    """An SQLite file; while a migration works on it, no other process can open it."""

    def __init__(self, path: str) -> None:
        self.name = path

    async def look(self) -> Look:
        return await asyncio.to_thread(self._look)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[SqliteWork]:
        connection = open_read_only(self.name)
        with closing(connection), _explained(self.name):
            yield SqliteWork(connection)

    @asynccontextmanager
    async def locked(
        self,
        *,
        alone: bool = False,  # noqa: ARG002 - nobody else can open the file in any case
    ) -> AsyncIterator[SqliteWork]:
        with _explained(self.name):
            connection = await asyncio.to_thread(_lock, self.name)
            try:
                yield SqliteWork(connection)
            finally:
                await asyncio.to_thread(connection.close)

    def _look(self) -> Look:
        with _explained(self.name), closing(open_read_only(self.name)) as connection:
            if is_of_adk_web(connection):
                raise StoreRefusedError(
                    f"{self.name}: is a session file of `adk web` (SqliteSessionService), which "
                    "has no version 0; `lapse copy` copies it into a store"
                )
            return look(connection)


def _lock(path: str) -> sqlite3.Connection:
    """Open a file so that nobody else can, until the connection closes."""
    if not Path(path).is_file():
        raise StoreRefusedError(f"{path}: there is no such file; name one that exists")
    connection = connect(path, cache=_CACHE_KIB)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreRefusedError(f"{path}: {explain(error)}") from error


def look(connection: sqlite3.Connection) -> Look:
    """Return what there is in a file."""
    columns = {}
    ours = {f"{prefix}{name}" for prefix in ("", NEW, OLD, UNDONE) for name in NAMES}
    ours |= {METADATA, MIGRATION, BATCHES}
    for name in ours:
        found = connection.execute(f"PRAGMA table_info({name})")
        columns[name] = {row["name"] for row in found}
    return Look(columns, _hangs(connection, ours))


def _hangs(connection: sqlite3.Connection, ours: set[str]) -> str:
    for kind, name, table, sql in connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master"
    ).fetchall():
        if kind == "trigger" and table in NAMES:
            return f"the trigger {name} hangs on {table}"
        if kind == "view" and (found := _MENTIONS.search(sql)):
            return f"the view {name} shows {found[1]}"
        if kind == "table" and name not in ours and not name.startswith("lapse_"):
            quoted = name.replace('"', '""')
            for row in connection.execute(f'PRAGMA foreign_key_list("{quoted}")'):
                if row["table"].lower() in NAMES:
                    return f"the table {name} refers to {row['table']}"
    return ""


class SqliteWork:
    """The work in one connection; each method has a thread for itself."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._present: Mapping[str, set[str]] = {
            table.name: {
                row["name"] for row in connection.execute(f"PRAGMA table_info({table.name})")
            }
            for table in TABLES
        }

    async def look(self) -> Look:
        return await asyncio.to_thread(look, self._connection)

    async def begin(self, zone: str) -> str:
        return await asyncio.to_thread(self._begin, zone)

    async def batches(self) -> Sequence[Batch]:
        rows = await asyncio.to_thread(self._all, wording.BATCHES_SO_FAR)
        return [Batch.of(tuple(row)) for row in rows]

    async def read(self, span: Span) -> list[Row]:
        sql, arguments = wording.page_of_old(span, self._present[span.table.name], _mark)
        return await asyncio.to_thread(self._page, sql, arguments, span.table.read)

    async def read_new(self, prefix: str, span: Span) -> list[Row]:
        sql, arguments = wording.page_of_new(prefix, span, _mark)
        return await asyncio.to_thread(self._page, sql, arguments, span.table.new.columns)

    async def count(self, name: str) -> int:
        (found,) = await asyncio.to_thread(self._all, f"SELECT count(*) FROM {name}")  # noqa: S608 - names of ours
        return int(found[0])

    async def exchange(
        self, batch: Batch, table: OldTable, rows: Sequence[Row], check: Callable[[list[Row]], None]
    ) -> None:
        await asyncio.to_thread(self._exchange, batch, table, rows, check)

    async def forget(self, batch: Batch) -> None:
        await asyncio.to_thread(self._all, wording.forget_batch(_mark), list(batch.stored[:2]))

    async def swap(self) -> None:
        await asyncio.to_thread(self._swap)

    async def swap_back(self, *, keeping: bool) -> None:
        await asyncio.to_thread(self._swap_back, keeping=keeping)

    async def drop(self) -> None:
        await asyncio.to_thread(self._drop)

    def _all(self, sql: str, arguments: Sequence[Any] = ()) -> list[sqlite3.Row]:
        return self._connection.execute(sql, arguments).fetchall()

    def _page(
        self, sql: str, arguments: Sequence[Any], columns: Sequence[tuple[str, Type]]
    ) -> list[Row]:
        """Return rows until they have enough bytes; the cursor reads no further."""
        rows, size = list[Row](), 0
        with closing(self._connection.execute(sql, arguments)) as cursor:
            for row in cursor:
                size += sum(len(value) for value in row if isinstance(value, str | bytes))
                rows.append(
                    tuple(
                        from_sqlite(value, kind)
                        for value, (_, kind) in zip(row, columns, strict=True)
                    )
                )
                if size > LARGEST_BATCH:
                    break
        return rows

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _run(self, script: str) -> None:
        for statement in script.split(";"):  # none of these holds a text with a semicolon
            self._connection.execute(statement)

    def _begin(self, zone: str) -> str:
        with self._transaction():
            self._run(wording.NOTES)
            begun = self._all(f"SELECT time_zone FROM {MIGRATION}")  # noqa: S608 - names of ours
            if begun:
                return str(begun[0]["time_zone"])
            tables = wording.new_tables(Dialect.SQLITE)
            self._run(";".join(part for part in tables.split(";") if "CREATE TABLE" in part))
            self._all(wording.begin_migration(_mark), (iso(utc_now()), zone, "[]"))
            return zone

    def _exchange(
        self, batch: Batch, table: OldTable, rows: Sequence[Row], check: Callable[[list[Row]], None]
    ) -> None:
        span = Span(table, batch.after, batch.last)
        with self._transaction():
            self._all(*wording.delete_gone(span, _mark))
            self._connection.executemany(
                wording.write_new(table, _mark),
                [
                    tuple(
                        to_sqlite(value, kind)
                        for value, (_, kind) in zip(row, table.new.columns, strict=True)
                    )
                    for row in rows
                ],
            )
            self._all(wording.note_batch(_mark), batch.stored)
            written = list[Row]()
            while page := self._page(*wording.page_of_new(NEW, span, _mark), table.new.columns):
                written += page
                span = Span(table, wording.key_of_new(table, page[-1]), batch.last)
            check(written)

    def _swap(self) -> None:
        colliding = missing_indexes(Dialect.SQLITE, 0, ())
        with self._changing_places():
            indexes = [
                row["sql"]
                for row in self._all("SELECT name, sql FROM sqlite_master WHERE type = 'index'")
                if row["name"] in colliding
            ]
            for name in colliding:
                self._all(f"DROP INDEX IF EXISTS {name}")
            for name in NAMES:
                self._all(f"ALTER TABLE {name} RENAME TO {OLD}{name}")
            for name in NAMES:
                self._all(f"ALTER TABLE {NEW}{name} RENAME TO {name}")
            self._run(read_script(Dialect.SQLITE, "adk_v1.sql"))
            self._all(f"UPDATE {MIGRATION} SET indexes = ?", (json.dumps(indexes),))  # noqa: S608 - names of ours

    def _swap_back(self, *, keeping: bool) -> None:
        with self._changing_places():
            (noted,) = self._all(f"SELECT indexes FROM {MIGRATION}")  # noqa: S608 - names of ours
            for name in missing_indexes(Dialect.SQLITE, 0, ()):
                self._all(f"DROP INDEX IF EXISTS {name}")
            for name in reversed(NAMES):
                self._all(
                    f"ALTER TABLE {name} RENAME TO {UNDONE}{name}"
                    if keeping
                    else f"DROP TABLE {name}"
                )
            for name in NAMES:
                self._all(f"ALTER TABLE {OLD}{name} RENAME TO {name}")
            for index in json.loads(noted["indexes"]):
                self._all(index)
            for name in (METADATA, BATCHES, MIGRATION):
                self._all(f"DROP TABLE {name}")
            if keeping and self._all("PRAGMA table_info(lapse_lobby)"):
                for statement in wording.SET_RECORDS_ASIDE:
                    self._all(statement)

    def _drop(self) -> None:
        with self._changing_places():
            for name in reversed(NAMES):
                self._all(f"DROP TABLE {OLD}{name}")
            for name in (BATCHES, MIGRATION):
                self._all(f"DROP TABLE {name}")

    @contextmanager
    def _changing_places(self) -> Iterator[None]:
        """Enter a transaction in which tables change places.

        Foreign keys are not followed meanwhile: what is dropped deletes nothing else. SQLite lets
        the references of Lapse's own tables follow a table that is renamed; they must stay with
        the name.
        """
        self._connection.execute("PRAGMA foreign_keys = OFF")
        lobby = self._all("SELECT sql FROM sqlite_master WHERE name = 'lapse_lobby'")
        with self._transaction():
            yield
            if lobby:
                self._connection.execute("PRAGMA writable_schema = ON")
                self._all(
                    "UPDATE sqlite_master SET sql = ? WHERE name = 'lapse_lobby'",
                    (lobby[0]["sql"],),
                )
                self._connection.execute("PRAGMA writable_schema = RESET")
        self._connection.execute("PRAGMA foreign_keys = ON")
