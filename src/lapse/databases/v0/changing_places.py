"""How tables change their places in PostgreSQL, with names, owners, grants and references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from lapse.databases.v0.rows import METADATA, NAMES
from lapse.store.postgres.transaction import transaction

_INDEXES: Final = """\
SELECT c.relname AS name FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass($1)
"""

_CONSTRAINTS: Final = """\
SELECT conname AS name FROM pg_constraint WHERE conrelid = to_regclass($1)
"""

_REFERENCES: Final = """\
SELECT quote_ident(r.relname) AS table, quote_ident(c.conname) AS name,
  pg_get_constraintdef(c.oid) AS definition
FROM pg_constraint AS c JOIN pg_class AS r ON r.oid = c.conrelid
WHERE c.contype = 'f' AND c.confrelid = ANY($1::regclass[]) AND starts_with(r.relname, 'lapse_')
  AND r.relname <> ALL($2)
"""

_GRANTS: Final = """\
SELECT format('ALTER TABLE %I OWNER TO %I', n.relname, pg_get_userbyid(o.relowner))
FROM pg_class AS o, pg_class AS n
WHERE o.oid = to_regclass($1) AND n.oid = to_regclass($2) AND o.relowner <> n.relowner
UNION ALL
SELECT format(
  'GRANT %s ON %I TO %s%s', a.privilege_type, n.relname,
  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
)
FROM pg_class AS o CROSS JOIN aclexplode(o.relacl) AS a, pg_class AS n
WHERE o.oid = to_regclass($1) AND n.oid = to_regclass($2) AND a.grantee <> o.relowner
  AND a.privilege_type = ANY($3)
"""

_OF_TABLES: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key of one of Lapse's own tables on one of ADK's."""

    table: str
    name: str
    definition: str


async def references(connection: asyncpg.Connection) -> Sequence[Reference]:
    """Drop the references of Lapse's own tables; they must refer to names and follow no table."""
    mine = [f"{prefix}{name}" for prefix in ("lapse_v0_", "lapse_v1_") for name in NAMES]
    rows = await connection.fetch(_REFERENCES, list(NAMES), mine)
    found = [Reference(row["table"], row["name"], row["definition"]) for row in rows]
    for one in found:
        await connection.execute(f"ALTER TABLE {one.table} DROP CONSTRAINT {one.name}")
    return found


async def refer_again(connection: asyncpg.Connection, taken: Sequence[Reference]) -> None:
    """Add references again; rows that break them stay, and new rows must not break them."""
    for one in taken:
        definition = one.definition.removesuffix(" NOT VALID")
        await connection.execute(
            f"ALTER TABLE {one.table} ADD CONSTRAINT {one.name} {definition} NOT VALID"
        )
        try:
            async with transaction(connection):
                await connection.execute(f"ALTER TABLE {one.table} VALIDATE CONSTRAINT {one.name}")
        except asyncpg.ForeignKeyViolationError:
            continue


async def set_aside(connection: asyncpg.Connection, prefix: str) -> None:
    """Give ADK's tables and their indexes names that begin with a prefix."""
    for name in NAMES:
        for row in await connection.fetch(_INDEXES, name):
            index = row["name"]
            await connection.execute(
                f"ALTER INDEX {_quoted(index)} RENAME TO {_quoted(f'{prefix}{index}')}"
            )
        await connection.execute(f"ALTER TABLE {name} RENAME TO {prefix}{name}")


async def put_in_place(connection: asyncpg.Connection, prefix: str) -> None:
    """Take a prefix from the names of tables, and of their indexes and constraints."""
    for name in NAMES:
        table = f"{prefix}{name}"
        for row in await connection.fetch(_INDEXES, table):
            index = row["name"]
            if index.startswith(prefix):
                await connection.execute(
                    f"ALTER INDEX {_quoted(index)} RENAME TO {_quoted(index.removeprefix(prefix))}"
                )
        for row in await connection.fetch(_CONSTRAINTS, table):
            constraint = row["name"]
            if constraint.startswith(prefix):
                new = _quoted(constraint.removeprefix(prefix))
                await connection.execute(
                    f"ALTER TABLE {table} RENAME CONSTRAINT {_quoted(constraint)} TO {new}"
                )
        await connection.execute(f"ALTER TABLE {table} RENAME TO {name}")


async def give_as(connection: asyncpg.Connection, prefix: str) -> None:
    """Give the tables to the owner, and to the roles, that the old ones belong to.

    Who may read sessions may read the version of the schema.
    """
    pairs = [(f"{prefix}{name}", name, _OF_TABLES) for name in NAMES]
    for old, new, privileges in (*pairs, (f"{prefix}sessions", METADATA, ("SELECT",))):
        for row in await connection.fetch(_GRANTS, old, new, list(privileges)):
            await connection.execute(row[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
