"""The privileges on a prepared database that the role of a server needs, and no others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Final

import asyncpg

from lapse.core.errors import StoreRefusedError
from lapse.store.operation import Dialect
from lapse.store.statements import read_migrations, read_script

_MOST: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
_FEWER: Final[Mapping[str, Sequence[str]]] = {
    "adk_internal_metadata": ("SELECT",),
    "lapse_audit": ("SELECT", "INSERT"),  # so no server can change what is recorded
    "lapse_schema": ("SELECT",),
}
_MADE: Final = re.compile(r"^CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+)", re.MULTILINE)
_DROPPED: Final = re.compile(r"^DROP TABLE (?:IF EXISTS )?(\w+)", re.MULTILINE)

_CALLED: Final = ("lapse_webhooks_on", "lapse_webhooks_off")
"""The functions that act as the tables' owner."""

_MISSING: Final = """\
SELECT c.relname AS name, asked.privilege
FROM unnest($1::text[], $2::text[]) AS asked(name, privilege)
JOIN pg_class AS c ON c.oid = to_regclass(asked.name)
WHERE NOT has_table_privilege(c.oid, asked.privilege)
UNION ALL
SELECT p.proname, 'EXECUTE'
FROM unnest($3::text[]) AS called(name)
JOIN pg_proc AS p ON p.oid = to_regproc(called.name)
WHERE NOT has_function_privilege(p.oid, 'EXECUTE')
ORDER BY 1, 2
"""


@cache
def _needed() -> Mapping[str, Sequence[str]]:
    """Return the privileges that a server needs on each table."""
    scripts = (
        read_script(Dialect.POSTGRES, "adk_v1.sql"),
        *read_migrations(Dialect.POSTGRES).values(),
    )
    whole = "\n".join(scripts)
    gone = set(_DROPPED.findall(whole))
    return {name: _FEWER.get(name, _MOST) for name in _MADE.findall(whole) if name not in gone}


def grants_to(role: str) -> str:
    """Return the SQL that gives a role what a server needs; the role need not exist yet."""
    quoted = '"' + role.replace('"', '""') + '"'
    literal = "'" + role.replace("'", "''") + "'"
    usage = f"format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), {literal})"
    lines = [f"DO $grant$ BEGIN EXECUTE {usage}; END $grant$;"]
    by_privileges = sorted(_needed().items(), key=lambda one: (one[1], one[0]))
    for privileges, tables in groupby(by_privileges, key=lambda one: one[1]):
        names = ", ".join(name for name, _ in tables)
        lines.append(f"GRANT {', '.join(privileges)} ON {names} TO {quoted};")
    called = ", ".join(f"{name}()" for name in _CALLED)
    lines.append(f"GRANT EXECUTE ON FUNCTION {called} TO {quoted};")
    return "\n".join(lines) + "\n"


async def check_privileges(connection: asyncpg.Connection, place: str) -> None:
    """Refuse a role that may not do what a server needs on the tables that exist.

    Raises:
        StoreRefusedError: privileges are missing. It names them, the role and `place`.
    """
    missing = await _missing(connection)
    if not missing:
        return
    role = await connection.fetchval("SELECT current_user")
    raise StoreRefusedError(
        f"{place}: the role {role} lacks {missing}; run `lapse migrate --store URL --role {role}` "
        "as the owner of the tables"
    )


async def _missing(connection: asyncpg.Connection) -> str:
    """Return what this connection's role may not do, as `INSERT on events`; empty: nothing."""
    asked = [(name, one) for name, privileges in _needed().items() for one in privileges]
    rows = await connection.fetch(_MISSING, *map(list, zip(*asked, strict=True)), _CALLED)
    return "; ".join(
        f"{', '.join(row['privilege'] for row in of_table)} on {name}"
        for name, of_table in groupby(rows, key=lambda row: row["name"])
    )
