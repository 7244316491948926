"""Opening a PostgreSQL database: checking its schema, and creating what is missing."""

from __future__ import annotations

from typing import Final

import asyncpg

from lapse.core.errors import StoreRefusedError
from lapse.store.operation import Dialect
from lapse.store.options import PostgresFeature
from lapse.store.postgres.grants import check_privileges
from lapse.store.postgres.transaction import transaction
from lapse.store.postgres.wording import worded
from lapse.store.schemas import TABLES, Found, missing_script
from lapse.store.statements import read_migrations

_LOCK: Final = 0x6C61707365
"""The advisory lock "lapse", with which all replicas change the schema one after the other."""

_LOCKS: Final = 19
"""The migration that creates the table of locks."""

_LOCK_BY_ROW: Final = """\
INSERT INTO lapse_locks AS l (place) VALUES (0) ON CONFLICT (place) DO UPDATE SET turn = l.turn + 1
"""

_COLUMNS: Final = """\
SELECT c.relname AS table_name, a.attname AS column_name
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.oid = to_regclass(c.relname) AND c.relname = ANY($1) AND a.attnum > 0
  AND NOT a.attisdropped
"""


async def prepare(
    connection: asyncpg.Connection, place: str, without: frozenset[PostgresFeature] = frozenset()
) -> None:
    """Make a database ready: create ADK's tables and Lapse's own.

    If nothing is missing, nothing is written, so that a role without the right to create tables
    can work on a prepared schema. Otherwise all is created in one transaction under a lock, so that
    any number of replicas may start at once: an advisory lock, or a row's if the server is without.

    Raises:
        StoreRefusedError: the database holds tables of another version or tables that are not
            ADK's, or tables are missing and this role may not create them, or it may not work on
            them. The error names `place`.
    """
    await check_privileges(connection, place)
    if not await pending_script(connection, place, without):
        return
    try:
        if PostgresFeature.ADVISORY_LOCKS in without:
            await _create_locks(connection)
        async with transaction(connection):
            if PostgresFeature.ADVISORY_LOCKS in without:
                await connection.execute(_LOCK_BY_ROW)
            else:
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            script = await pending_script(connection, place, without)
            if script:
                await connection.execute(script)
    except asyncpg.InsufficientPrivilegeError as error:
        raise StoreRefusedError(
            f"{place}: tables are missing and this role may not create them ({error}); run "
            "`lapse migrate --store URL --role ROLE` as a role that may, where ROLE is this one"
        ) from error


async def _create_locks(connection: asyncpg.Connection) -> None:
    """Create the table of locks, outside any transaction: others must see it before it locks."""
    script = read_migrations(Dialect.POSTGRES)[_LOCKS]
    try:
        await connection.execute(script)
    except (
        asyncpg.DuplicateTableError,
        asyncpg.DuplicateObjectError,  # its row type
        asyncpg.UniqueViolationError,
    ):
        # Somebody else has created it in this moment, which IF NOT EXISTS does not foresee.
        await connection.execute(script)


async def pending_script(
    connection: asyncpg.Connection, place: str, without: frozenset[PostgresFeature] = frozenset()
) -> str:
    """Return the SQL that `prepare` would run on a database; empty if it is ready.

    Raises:
        StoreRefusedError: the database holds tables of another version, or tables that are not
            ADK's.
    """
    return worded(missing_script(Dialect.POSTGRES, await look(connection), place), without)


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
