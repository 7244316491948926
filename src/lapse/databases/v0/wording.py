"""The statements of a migration from version 0, which both kinds of database share."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

from lapse.databases.tables import PAGE, Table
from lapse.databases.v0.place import Span
from lapse.databases.v0.rows import (
    BATCHES,
    HAS_SESSION,
    METADATA,
    MIGRATION,
    NAMES,
    NEW,
    UNDONE,
    OldTable,
)
from lapse.store.operation import Dialect
from lapse.store.statements import read_script

Mark = Callable[[int], str]
"""Writes the parameter of a number: `$1`, or `?`."""

_ADK_NAME: Final = re.compile(rf"\b({'|'.join(NAMES)})\b")

NOTES: Final = f"""\
CREATE TABLE IF NOT EXISTS {MIGRATION} (
  began_at VARCHAR(40) NOT NULL, time_zone VARCHAR(64) NOT NULL, indexes TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS {BATCHES} (
  table_name VARCHAR(20) NOT NULL, after_key TEXT NOT NULL, last_key TEXT NOT NULL,
  row_count BIGINT NOT NULL, orphans BIGINT NOT NULL,
  old_sum CHAR(64) NOT NULL, new_sum CHAR(64) NOT NULL,
  PRIMARY KEY (table_name, after_key)
);
"""
"""A migration's own tables: one row for the migration, and one for each batch."""

_OF_SESSION: Final = "s.app_name = t.app_name AND s.user_id = t.user_id AND s.id = t.session_id"
_HAS_SESSION: Final = f"EXISTS (SELECT 1 FROM sessions AS s WHERE {_OF_SESSION}) AS {HAS_SESSION}"  # noqa: S608 - names of ours


def new_tables(dialect: Dialect) -> str:
    """Return the script that makes ADK's tables of version 1 under the names that NEW begins."""
    statements = [
        part for part in read_script(dialect, "adk_v1.sql").split(";") if METADATA not in part
    ]
    script = _ADK_NAME.sub(rf"{NEW}\1", ";".join(statements))
    return script.replace("INDEX IF NOT EXISTS idx_", f"INDEX IF NOT EXISTS {NEW}idx_")


def page_of_old(span: Span, present: Collection[str], mark: Mark) -> tuple[str, list[str]]:
    """Return the statement for the next rows of an old table, and its arguments."""
    table = span.table
    columns = [name if name in present else f"NULL AS {name}" for name, _ in table.old.columns]
    if table.name == "events":
        columns.append(_HAS_SESSION)
    return _page(", ".join(columns), table.name, span, mark)


def page_of_new(prefix: str, span: Span, mark: Mark) -> tuple[str, list[str]]:
    """Return the statement for the next rows of a new table, and its arguments."""
    return _page(span.table.new.names, f"{prefix}{span.table.name}", span, mark)


def _page(columns: str, name: str, span: Span, mark: Mark) -> tuple[str, list[str]]:
    where, arguments = _within(span, mark)
    key = ", ".join(span.table.key)
    sql = f"SELECT {columns} FROM {name} AS t WHERE {where} ORDER BY {key} LIMIT {PAGE}"  # noqa: S608 - names of ours
    return sql, arguments


def _within(span: Span, mark: Mark) -> tuple[str, list[str]]:
    key = ", ".join(f"t.{name}" for name in span.table.key)
    conditions, arguments = ["1 = 1"], list[str]()
    for sign, limit in ((">", span.after), ("<=", span.upto)):
        if limit is not None:
            marks = ", ".join(mark(len(arguments) + number + 1) for number in range(len(limit)))
            conditions.append(f"({key}) {sign} ({marks})")
            arguments += limit
    return " AND ".join(conditions), arguments


def delete_gone(span: Span, mark: Mark) -> tuple[str, list[str]]:
    """Return the statement that takes those rows from a new table that the old one lacks."""
    where, arguments = _within(span, mark)
    same = " AND ".join(f"o.{name} = t.{name}" for name in span.table.key)
    sql = (
        f"DELETE FROM {NEW}{span.table.name} AS t WHERE {where} "  # noqa: S608 - names of ours
        f"AND NOT EXISTS (SELECT 1 FROM {span.table.name} AS o WHERE {same})"
    )
    return sql, arguments


def write_new(table: OldTable, mark: Mark) -> str:
    """Return the statement that writes a row of a new table, whether it is there or not."""
    columns = [name for name, _ in table.new.columns]
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in table.key)
    return (
        f"{_insert(f'{NEW}{table.name}', columns, mark)} "
        f"ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {changed}"
    )


_BATCH: Final = (
    "table_name", "after_key", "last_key", "row_count", "orphans", "old_sum", "new_sum",
)  # fmt: skip


def note_batch(mark: Mark) -> str:
    """Return the statement that notes a batch."""
    changed = ", ".join(f"{name} = excluded.{name}" for name in _BATCH[2:])
    return (
        f"{_insert(BATCHES, _BATCH, mark)} "
        f"ON CONFLICT (table_name, after_key) DO UPDATE SET {changed}"
    )


BATCHES_SO_FAR: Final = f"SELECT {', '.join(_BATCH)} FROM {BATCHES}"  # noqa: S608 - names of ours


def forget_batch(mark: Mark) -> str:
    """Return the statement that forgets a batch."""
    return f"DELETE FROM {BATCHES} WHERE table_name = {mark(1)} AND after_key = {mark(2)}"  # noqa: S608 - names of ours


def begin_migration(mark: Mark) -> str:
    """Return the statement that notes the beginning of a migration."""
    return _insert(MIGRATION, ("began_at", "time_zone", "indexes"), mark)


def _insert(name: str, columns: Sequence[str], mark: Mark) -> str:
    marks = ", ".join(mark(number + 1) for number in range(len(columns)))
    return f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names of ours


def key_of_new(table: OldTable, row: Sequence[str]) -> tuple[str, ...]:
    """Return the key of a row of a new table, in the order of the old one's key."""
    at = _places(table.new)
    return tuple(row[at[name]] for name in table.key)


def _places(table: Table) -> dict[str, int]:
    return {name: number for number, (name, _) in enumerate(table.columns)}


_WITHOUT_SESSION: Final = """\
lapse_lobby AS l WHERE l.used_id IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM sessions AS s
  WHERE s.app_name = l.app_name AND s.user_id = l.user_id AND s.id = l.used_id
)"""

SET_RECORDS_ASIDE: Final = (
    f"CREATE TABLE {UNDONE}lobby AS SELECT l.* FROM {_WITHOUT_SESSION}",  # noqa: S608 - names of ours
    f"DELETE FROM {_WITHOUT_SESSION}",  # noqa: S608 - names of ours
)
"""Set the records aside whose used sessions an undo sets aside: they go with their sessions."""
