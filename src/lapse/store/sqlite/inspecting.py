"""How an SQLite store is, before anybody opens it; see `lapse.check.store`."""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from lapse.check.store import MOST_COUNTED, Inspection
from lapse.core.clock import utc_now
from lapse.core.errors import StoreRefusedError
from lapse.core.lifecycle import Rules
from lapse.store.schemas import missing_indexes, newest_version
from lapse.store.sqlite import values as rows
from lapse.store.sqlite.schema import explain, find_fault, look, set_up
from lapse.store.sqlite.transaction import Transaction


class SqliteInspected(ABC):
    """The part of the SQLite store that is `Inspected`."""

    @abstractmethod
    async def _inspect(self, inspect: Callable[[sqlite3.Connection], Inspection]) -> Inspection: ...

    async def inspect(self) -> Inspection:
        """Look at the store as it is, and change nothing."""
        return await self._inspect(_inspection)


async def inspect_file(
    path: str, inspect: Callable[[sqlite3.Connection], Inspection]
) -> Inspection:
    """Return what `inspect` finds in a file, which is not created where there is none."""
    return await asyncio.to_thread(_in_file, path, inspect)


def _in_file(path: str, inspect: Callable[[sqlite3.Connection], Inspection]) -> Inspection:
    file = Path(path)
    if not file.exists():
        if not file.absolute().parent.is_dir():
            raise StoreRefusedError(
                f"{path}: its directory does not exist; create {file.absolute().parent}"
            )
        return Inspection(utc_now(), 0, newest_version("sqlite"))
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True)) as connection:
            set_up(connection)
            find_fault(connection, path)
            return inspect(connection)
    except sqlite3.Error as error:
        raise StoreRefusedError(f"{path}: {explain(error)}") from error


def _inspection(connection: sqlite3.Connection) -> Inspection:
    version = look(connection).lapse_version
    now = utc_now()
    newest = newest_version("sqlite")
    if not version:
        return Inspection(now, version, newest)
    ask = Transaction(connection, Rules(), rows.to_micros(now))
    sessions = ask.first("inspect_sessions", most=MOST_COUNTED)
    assert sessions is not None
    return Inspection(
        now,
        version,
        newest,
        missing_indexes("sqlite", version, {row["name"] for row in ask.run("indexes")}),
        **sessions,
    )
