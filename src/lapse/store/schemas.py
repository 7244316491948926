"""The schema that a store needs, and what a database lacks of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from lapse.core.errors import StoreRefusedError
from lapse.store.operation import Dialect
from lapse.store.statements import read_migrations, read_script

ADK_VERSION: Final = "1"

ADK_COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    "sessions": frozenset({"app_name", "user_id", "id", "state", "create_time", "update_time"}),
    "events": frozenset(
        {"id", "app_name", "user_id", "session_id", "invocation_id", "timestamp", "event_data"}
    ),
    "app_states": frozenset({"app_name", "state", "update_time"}),
    "user_states": frozenset({"app_name", "user_id", "state", "update_time"}),
    "adk_internal_metadata": frozenset({"key", "value"}),
}


_INDEX: Final = re.compile(r"^CREATE (?:UNIQUE )?INDEX (?:IF NOT EXISTS )?(\w+)", re.MULTILINE)

TABLES: Final = (*ADK_COLUMNS, "lapse_schema")
"""The tables that a store checks before it opens."""


@dataclass(frozen=True, slots=True)
class Found:
    """The schema that a database has.

    Attributes:
        columns: the columns of each of TABLES; none if the table is missing.
        adk_version: the version in ADK's metadata; None if there is none.
        lapse_version: the newest of Lapse's own schema versions; 0 if there is none.
    """

    columns: Mapping[str, Collection[str]]
    adk_version: str | None
    lapse_version: int


def missing_script(dialect: Dialect, found: Found, place: str) -> str:
    """Return the SQL that would make a database ready; empty if it is ready.

    Raises:
        StoreRefusedError: the database holds tables of another version, or tables that are not
            ADK's. The error names `place`.
    """
    check_adk(found, place)
    migrations = read_migrations(dialect)
    if found.lapse_version > max(migrations):
        raise StoreRefusedError(
            f"{place}: was written by a newer Lapse (schema {found.lapse_version}, this one knows "
            f"{max(migrations)}); upgrade Lapse"
        )
    complete = all(found.columns[table] for table in ADK_COLUMNS)
    scripts = [] if complete else [read_script(dialect, "adk_v1.sql")]
    for number, script in migrations.items():
        if number > found.lapse_version:
            scripts += [script, f"INSERT INTO lapse_schema (version) VALUES ({number});\n"]  # noqa: S608 - a number of ours
    return "\n".join(scripts)


def newest_version(dialect: Dialect) -> int:
    """Return the schema version to which this Lapse migrates a database."""
    return max(read_migrations(dialect))


def missing_indexes(dialect: Dialect, version: int, present: Collection[str]) -> list[str]:
    """Return the indexes that the schema has at a version and that are not present."""
    scripts = [script for number, script in read_migrations(dialect).items() if number <= version]
    expected = _INDEX.findall("\n".join([read_script(dialect, "adk_v1.sql"), *scripts]))
    return [name for name in expected if name not in present]


def check_adk(found: Found, place: str) -> None:
    """Raise StoreRefusedError if a database's tables are of another version, or not ADK's."""
    events = found.columns["events"]
    if "actions" in events and "event_data" not in events:
        raise StoreRefusedError(
            f"{place}: holds ADK's schema version 0; stop its servers, and migrate it in place: "
            "`lapse migrate --from-v0 --store URL` (on MySQL, ADK's `adk migrate session`)"
        )
    for table, expected in ADK_COLUMNS.items():
        columns = set(found.columns[table])
        if columns and not expected <= columns:
            raise StoreRefusedError(
                f"{place}: has a table {table!r} that is not ADK's "
                f"(no column {', '.join(sorted(expected - columns))}); "
                "give Lapse a database of its own"
            )
    if found.columns["adk_internal_metadata"] and found.adk_version != ADK_VERSION:
        raise StoreRefusedError(
            f"{place}: has ADK's schema version {found.adk_version!r}; Lapse knows version "
            f"{ADK_VERSION!r}; use a Lapse that knows it, or copy it to version {ADK_VERSION} with "
            "ADK's own `adk migrate session`"
        )
