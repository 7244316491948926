"""Opening a SQLite database: checking its schema, and creating what is missing."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from lapse.core.ages import bucket_of
from lapse.core.documents import read_metadata, segment_of, stays_within, update_document
from lapse.core.errors import StoreRefusedError
from lapse.core.messages import awaits_answer, is_message, is_message_of_user
from lapse.store.operation import Dialect
from lapse.store.schemas import TABLES, Found, missing_script
from lapse.store.sqlite.values import from_text, to_micros

BUSY_TIMEOUT: Final = timedelta(seconds=5)
"""How long to wait for another process that writes to the same file."""

_BUSY_PAUSE: Final = timedelta(milliseconds=20)

_log = logging.getLogger(__name__)


def connect(path: str, *, cache: int) -> sqlite3.Connection:
    """Return a connection with autocommit, durable commits and the functions of `set_up`.

    `path` is a file's path or `:memory:`; `cache` is its page cache in KiB.
    """
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT.total_seconds(),
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    set_up(connection)
    # FULL: an acknowledged message survives a power cut, not only a crash of the process.
    for pragma in ("foreign_keys = ON", "synchronous = FULL", f"cache_size = -{cache}"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def set_up(connection: sqlite3.Connection) -> None:
    """Give a connection rows by name, and the functions that Lapse's statements use."""
    connection.row_factory = sqlite3.Row
    for name, arguments, function in _FUNCTIONS:
        connection.create_function(name, arguments, function, deterministic=True)


def _of_event(says: Callable[[Mapping[str, Any]], bool], text: str | None) -> bool:
    return says(json.loads(text or "{}") or {})


def _key_digest(app_name: str, user_id: str, session_id: str) -> bytes:
    """Return the digest of a purged session's key, as PostgreSQL's statements compute it, too."""
    return hashlib.sha256(f"{app_name}\x1f{user_id}\x1f{session_id}".encode()).digest()


_FUNCTIONS: Final[tuple[tuple[str, int, Callable[..., Any]], ...]] = (
    ("update_document", 2, update_document),
    ("stays_within", 3, stays_within),
    ("is_message", 1, partial(_of_event, is_message)),
    ("is_message_of_user", 1, partial(_of_event, is_message_of_user)),
    ("awaits", 1, partial(_of_event, awaits_answer)),
    ("segment_of", 1, lambda metadata: segment_of(read_metadata(metadata))),
    ("age_bucket", 1, lambda micros: bucket_of(timedelta(microseconds=micros))),
    ("key_digest", 3, _key_digest),
    ("bytes_of", 1, bytes.fromhex),
    ("micros_of", 1, lambda text: None if text is None else to_micros(from_text(text))),
)
"""The Python functions that statements call: name, number of arguments, body."""


def prepare(path: str) -> None:
    """Make the database at `path` ready: switch it to WAL, create ADK's tables and Lapse's own.

    Tables are created in one transaction, so that any number of processes may start at once.

    Raises:
        StoreRefusedError: the file is not a database, is locked, cannot be written, or holds
            tables of another version or tables that are not ADK's.
    """
    is_new = not Path(path).exists()
    give_up = time.monotonic() + BUSY_TIMEOUT.total_seconds()
    while True:
        try:
            connection = connect(path, cache=2000)
            try:
                prepare_connection(connection, path)
            finally:
                connection.close()
            break
        except sqlite3.Error as error:
            # If several processes switch a new file to WAL, SQLite lets one do it and fails the
            # others at once: its own busy timeout does not cover this.
            if not _is_busy(error) or time.monotonic() >= give_up:
                raise StoreRefusedError(f"{path}: {explain(error)}") from error
            time.sleep(_BUSY_PAUSE.total_seconds() * random.random())
    if is_new:
        # Whoever starts in another folder finds another store, or none.
        _log.info("a new store was created: %s", Path(path).absolute())


def prepare_connection(connection: sqlite3.Connection, path: str) -> None:
    """Make the database of an open connection ready, as `prepare` does; SQLite's errors pass."""
    # The check comes before the first write: a refused file keeps even its journal mode.
    missing_in(connection, path)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode not in {"wal", "memory"}:
        raise StoreRefusedError(
            f"{path}: cannot be switched to write-ahead logging (it stays in mode {mode!r}); "
            "put the file on a local disk"
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        _run_script(connection, missing_in(connection, path))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def missing_in(connection: sqlite3.Connection | None, path: str) -> str:
    """Return the SQL that `prepare` would run on a database; empty if it is ready.

    Without a connection, the file does not exist yet.

    Raises:
        StoreRefusedError: the database cannot be used as it is; the error names `path`.
    """
    if connection is None:
        return missing_script(Dialect.SQLITE, Found(dict.fromkeys(TABLES, ()), None, 0), path)
    if is_of_adk_web(connection):
        raise StoreRefusedError(
            f"{path}: is a session file of `adk web` (SqliteSessionService), another format than "
            "DatabaseSessionService's; give Lapse a file of its own, and `lapse copy` this one "
            "into it"
        )
    return missing_script(Dialect.SQLITE, look(connection), path)


def is_of_adk_web(connection: sqlite3.Connection) -> bool:
    """Return whether a database has the other format, that of ADK's SqliteSessionService."""
    columns = {row["name"]: row["type"] for row in _columns(connection, "sessions")}
    return columns.get("update_time") == "REAL"


def look(connection: sqlite3.Connection) -> Found:
    """Return the schema that a database has."""
    columns = {table: {row["name"] for row in _columns(connection, table)} for table in TABLES}
    version, newest = None, 0
    if {"key", "value"} <= columns["adk_internal_metadata"]:
        query = "SELECT value FROM adk_internal_metadata WHERE key = 'schema_version'"
        row = connection.execute(query).fetchone()
        version = row["value"] if row else None
    if columns["lapse_schema"]:
        query = "SELECT coalesce(max(version), 0) FROM lapse_schema"
        (newest,) = connection.execute(query).fetchone()
    return Found(columns, version, newest)


def _columns(connection: sqlite3.Connection, table: str) -> sqlite3.Cursor:
    return connection.execute(f"PRAGMA table_info({table})")


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    # Not executescript: it would commit the transaction that the script must be a part of.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def explain(error: sqlite3.Error) -> str:
    """Return what is wrong with a file, and what to do about it."""
    match getattr(error, "sqlite_errorname", ""):
        case _ if _is_busy(error):
            return (
                f"is locked by another process ({BUSY_TIMEOUT.total_seconds():.0f} s waited); "
                "stop that process, or use another file"
            )
        case "SQLITE_NOTADB":
            return "is not an SQLite database; name another file"
        case "SQLITE_CANTOPEN":
            return "cannot be opened; does its directory exist, and may this user write there?"
        case name if name.startswith("SQLITE_READONLY"):
            return "cannot be written; check the permissions of the file and its directory"
        case _:
            return f"cannot be used: {error}"
