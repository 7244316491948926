"""Opening a PostgreSQL database: checking its schema, and creating what is missing."""

from __future__ import annotations

from typing import Final

import asyncpg

from lapse.core.errors import StoreRefusedError
from lapse.store.operation import Dialect
from lapse.store.schemas import TABLES, Found, missing_script

_LOCK: Final = 0x6C61707365
"""The advisory lock "lapse", with which all replicas change the schema one after the other."""

_COLUMNS: Final = """\
SELECT c.relname AS table_name, a.attname AS column_name
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.oid = to_regclass(c.relname) AND c.relname = ANY($1) AND a.attnum > 0
  AND NOT a.attisdropped
"""


async def prepare(connection: asyncpg.Connection, place: str) -> None:
    """Make a database ready: create ADK's tables and Lapse's own.

    If nothing is missing, nothing is written, so that a role without the right to create tables
    can work on a prepared schema. Otherwise all is created in one transaction under an advisory
    lock, so that any number of replicas may start at once.

    Raises:
        StoreRefusedError: the database holds tables of another version or tables that are not
            ADK's, or tables are missing and this role may not create them. The error names
            `place`.
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
                f"{place}: tables are missing and this role may not create them ({error}); run "
                "`lapse migrate --store URL` as a role that may"
            ) from error


async def pending_script(connection: asyncpg.Connection, place: str) -> str:
    """Return the SQL that `prepare` would run on a database; empty if it is ready.

    Raises:
        StoreRefusedError: the database holds tables of another version, or tables that are not
            ADK's.
    """
    return missing_script(Dialect.POSTGRES, await look(connection), place)


async def look(connection: asyncpg.Connection) -> Found:
    """Return the schema that a database has."""
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
