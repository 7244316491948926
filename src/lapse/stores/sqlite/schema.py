"""Opening an SQLite database: what it must be, and what is created where it is missing."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import Final

from lapse.documents import update_document
from lapse.errors import StoreRefusedError
from lapse.stores.statements import read_migrations, read_script

BUSY_TIMEOUT: Final = timedelta(seconds=5)
"""How long to wait for another process that writes to the same file."""

_ADK_COLUMNS: Final = {
    "sessions": {"app_name", "user_id", "id", "state", "create_time", "update_time"},
    "events": {
        "id",
        "app_name",
        "user_id",
        "session_id",
        "invocation_id",
        "timestamp",
        "event_data",
    },
    "app_states": {"app_name", "state", "update_time"},
    "user_states": {"app_name", "user_id", "state", "update_time"},
    "adk_internal_metadata": {"key", "value"},
}


def connect(path: str, *, cache: int) -> sqlite3.Connection:
    """Return a connection set up as every one of Lapse's: autocommit, durable commits.

    `path` is a file's path or `:memory:`; `cache` is its page cache in KiB.
    """
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT.total_seconds(),
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.row_factory = sqlite3.Row
    connection.create_function("update_document", 2, update_document, deterministic=True)
    # FULL: an acknowledged message survives a power cut, not only a crash of the process.
    for pragma in ("foreign_keys = ON", "synchronous = FULL", f"cache_size = -{cache}"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def prepare(path: str) -> None:
    """Make the database at `path` ready: WAL, ADK's tables, Lapse's own.

    One transaction, so that any number of processes may start at once.

    Raises:
        StoreRefusedError: it is no database, is locked, cannot be written, or holds tables of
            another version or of somebody else.
    """
    try:
        connection = connect(path, cache=2000)
        try:
            prepare_connection(connection, path)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreRefusedError(f"{path}: {_explain(error)}") from error


def prepare_connection(connection: sqlite3.Connection, path: str) -> None:
    """Do for one open connection what `prepare` does; errors of SQLite pass through."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode not in {"wal", "memory"}:
        raise StoreRefusedError(
            f"{path}: cannot be switched to write-ahead logging (it stays in mode {mode!r}); "
            "put the file on a local disk"
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        _check_adk_tables(connection, path)
        _run_script(connection, read_script("sqlite", "adk_v1.sql"))
        _migrate(connection, path)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _check_adk_tables(connection: sqlite3.Connection, path: str) -> None:
    columns = {
        table: {
            name: kind for _, name, kind, *_ in connection.execute(f"PRAGMA table_info({table})")
        }
        for table in _ADK_COLUMNS
    }
    events = columns["events"]
    if "actions" in events and "event_data" not in events:
        raise StoreRefusedError(
            f"{path}: holds ADK's schema version 0; migrate it with ADK's own command first: "
            "adk migrate session --source_db_url=sqlite:///OLD --dest_db_url=sqlite:///NEW"
        )
    if columns["sessions"].get("update_time") == "REAL":
        raise StoreRefusedError(
            f"{path}: is a session file of `adk web` (SqliteSessionService), another format than "
            "DatabaseSessionService's; give Lapse a file of its own"
        )
    for table, expected in _ADK_COLUMNS.items():
        if columns[table] and not expected <= set(columns[table]):
            missing = ", ".join(sorted(expected - set(columns[table])))
            raise StoreRefusedError(
                f"{path}: has a table {table!r} that is not ADK's (no column {missing}); "
                "give Lapse a file of its own"
            )
    if columns["adk_internal_metadata"]:
        row = connection.execute(
            "SELECT value FROM adk_internal_metadata WHERE key = 'schema_version'"
        ).fetchone()
        version = row["value"] if row else None
        if version != "1":
            raise StoreRefusedError(
                f"{path}: is of ADK's schema version {version!r}; Lapse knows version '1'"
            )


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS lapse_schema "
        "(version INTEGER PRIMARY KEY, applied_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    )
    (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM lapse_schema").fetchone()
    migrations = read_migrations("sqlite")
    newest = max(migrations)
    if version > newest:
        raise StoreRefusedError(
            f"{path}: was written by a newer Lapse (schema {version}, this one knows {newest}); "
            "upgrade Lapse"
        )
    for number, script in migrations.items():
        if number > version:
            _run_script(connection, script)
            connection.execute("INSERT INTO lapse_schema (version) VALUES (?)", (number,))


def _run_script(connection: sqlite3.Connection, script: str) -> None:
    # Not executescript: it commits the transaction that this must be part of.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def _explain(error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorname", ""):
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
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
