"""Opening a PostgreSQL database: what it must be, and what is created where it is missing."""

from __future__ import annotations

from typing import Final

import asyncpg

from lapse.core.errors import StoreRefusedError
from lapse.store.operation import Dialect
from lapse.store.schemas import TABLES, Found, missing_script

_LOCK: Final = 0x6C61707365
"""One schema change at a time among all replicas: the advisory lock "lapse"."""

_COLUMNS: Final = """\
SELECT c.relname AS table_name, a.attname AS column_name
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.oid = to_regclass(c.relname) AND c.relname = ANY($1) AND a.attnum > 0
  AND NOT a.attisdropped
"""


async def prepare(connection: asyncpg.Connection, place: str) -> None:
    """Make a database ready: ADK's tables, Lapse's own.

    Nothing is written where nothing is missing, so that a role without the right to create
    tables can work on a prepared schema. Else it is one transaction under an advisory lock, so
    that any number of replicas may start at once.

    Raises:
        StoreRefusedError: it holds tables of another version or of somebody else, or tables
            are missing and this role may not create them. It names `place`.
    """
    if not await pending_script(connection, place):
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        script = await pending_script(connection, place)
        try:
            if script:
                await connection.execute(script)
        except asyncpg.InsufficientPrivilegeError as error:
            raise StoreRefusedError(
                f"{place}: tables are missing and this role may not create them ({error}); let "
                "one that may run `lapse migrate --store URL`"
            ) from error


async def pending_script(connection: asyncpg.Connection, place: str) -> str:
    """Return the SQL that `prepare` would run on a database; empty when it is ready.

    Raises:
        StoreRefusedError: it holds tables of another version or of somebody else.
    """
    return missing_script(Dialect.POSTGRES, await look(connection), place)


async def look(connection: asyncpg.Connection) -> Found:
    """Return what is in a database."""
    columns: dict[str, set[str]] = {table: set() for table in TABLES}
    for row in await connection.fetch(_COLUMNS, list(TABLES)):
        columns[row["table_name"]].add(row["column_name"])
    version, newest = None, 0
    if {"key", "value"} <= columns["adk_internal_metadata"]:
        query = "SELECT value FROM adk_internal_metadata WHERE key = 'schema_version'"
        version = await connection.fetchval(query)
    if columns["lapse_schema"]:
        query = "SELECT coalesce(max(version), 0) FROM lapse_schema"
        newest = await connection.fetchval(query)
    return Found(columns, version, newest)
