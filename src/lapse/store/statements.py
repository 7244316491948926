"""Named SQL statements and the types of their parameters, from the `.sql` files of all folders.

A slice's file is named for its dialect: `sqlite.sql`, or `find.sqlite.sql` if the slice has
several. The store's own files stand in one folder for each dialect. The preface of a file, the text
before its first name, declares the types of parameters and columns: `-- :site, :bucket varchar`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from lapse.store.operation import Dialect

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z_]+)")
_TYPES: Final = re.compile(r"^-- ((?::\w+(?:, )?)+) ([\w\[\]]+)$", re.MULTILINE)
_WRITE: Final = re.compile(r"\b(INSERT INTO|UPDATE \w+\s|DELETE FROM|pg_logical_emit_message)")
_COMMENT: Final = re.compile(r"--.*$", re.MULTILINE)
_PART: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Positional:
    """A statement with positional parameters (`$1`, `$2`, …), and their names in order.

    `sql` is empty for a no-op.
    """

    sql: str
    names: tuple[str, ...]
    writes: bool

    @classmethod
    def of(cls, statement: str, types: Mapping[str, str]) -> Positional:
        """Replace each `:name` of a statement by its position and its type: `$1::varchar`."""
        statement = _COMMENT.sub("", statement)
        names = tuple(dict.fromkeys(_PARAMETER.findall(statement)))
        sql = _PARAMETER.sub(
            lambda found: f"${names.index(found[1]) + 1}::{types[found[1]]}", statement
        )
        return cls(sql.strip(), names, writes=_WRITE.search(sql) is not None)


_COMMON: Final = frozenset(
    {"now", "enforced", "horizon", "extensible", "shortest_restore", "artifacts"}
)
"""The parameters that all items of a combined statement share."""


@dataclass(frozen=True, slots=True)
class Combined:
    """A statement with positional parameters that does the work of another one for many items.

    Its first parameters are arrays, `columns`, with a value of each item; all items share the
    others, `names`.
    """

    sql: str
    columns: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, statement: str, types: Mapping[str, str]) -> Combined:
        """Replace each `:name` by a column of the item `a`, or by a shared parameter."""
        statement = _COMMENT.sub("", statement)
        found = dict.fromkeys(_PARAMETER.findall(statement))
        columns = tuple(name for name in found if name not in _COMMON)
        names = tuple(name for name in found if name in _COMMON)

        def place(found: re.Match[str]) -> str:
            name = found[1]
            if name not in _COMMON:
                return f"a.{name}"
            return f"${len(columns) + names.index(name) + 1}::{types[name]}"

        arrays = (f"${n}::{types[name]}[]" for n, name in enumerate(columns, 1))
        sql = _PARAMETER.sub(place, statement)
        sql = sql.replace("@arrays", ", ".join(arrays)).replace("@columns", ", ".join(columns))
        return cls(sql.strip(), columns, names)


def read_script(dialect: Dialect, path: str) -> str:
    """Return the text of one of the store's own `.sql` files."""
    return resources.files("lapse.store").joinpath(dialect, path).read_text("utf-8")


@cache
def _files(dialect: Dialect) -> tuple[str, ...]:
    """Return the text of each file of named statements."""
    own = (read_script(dialect, f"{name}.sql") for name in ("sessions", "messages", "deadlines"))
    return (*own, *_of_the_slices(dialect))


def _of_the_slices(dialect: Dialect) -> Iterator[str]:
    for folder in resources.files("lapse").iterdir():
        if folder.is_dir():
            for file in folder.iterdir():
                if file.name == f"{dialect}.sql" or file.name.endswith(f".{dialect}.sql"):
                    yield file.read_text("utf-8")


def read_types(dialect: Dialect) -> Mapping[str, str]:
    """Return the type of each parameter that a dialect's files declare."""
    found: dict[str, str] = {}
    for script in _files(dialect):
        for names, kind in _TYPES.findall(_NAME.split(script)[0]):
            for name in names.replace(":", "").split(", "):
                assert found.setdefault(name, kind) == kind, f"two types of {name}"
    return found


def read_statements(dialect: Dialect, **replaced: str) -> Mapping[str, str]:
    """Return a dialect's statements by name, some of them replaced.

    `{name}` in a statement is replaced by the statement of that name, in parentheses, which may
    have such parts, too.
    """
    found: dict[str, str] = {}
    for script in _files(dialect):
        for name, body in _named(script):
            assert name not in found, f"two statements are named {name}"
            found[name] = body
    found |= replaced

    def whole(statement: str) -> str:
        return _PART.sub(lambda part: f"({whole(_COMMENT.sub('', found[part[1]]))})", statement)

    return {name: whole(statement) for name, statement in found.items()}


def _named(script: str) -> Iterator[tuple[str, str]]:
    """Return each statement of a file with its name."""
    _, *parts = _NAME.split(script)
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        yield name, body.strip().removesuffix(";")


def read_combined(dialect: Dialect, **replaced: str) -> Mapping[str, Combined]:
    """Return the combined statements of a dialect, each by the name of the one whose work it does.

    They are for calls that change no app or user state.
    """
    own = dict(_named(read_script(dialect, "combined.sql")))
    whole = read_statements(dialect, **{"has_room": "true", **own, **replaced})
    types = read_types(dialect)
    return {
        name.removesuffix("_many"): Combined.of(whole[name], types)
        for name in own
        if name.endswith("_many")
    }


def without_room(dialect: Dialect, **replaced: str) -> Mapping[str, str]:
    """Return the statements that ask whether shared state has room, without that question.

    They are for calls that change no app or user state, as most do.
    """
    asking = read_statements(dialect, **replaced)
    plain = read_statements(dialect, **{"has_room": "true", **replaced})
    return {name: text for name, text in plain.items() if text != asking[name]}


def changes_shared_state(params: Mapping[str, Any]) -> bool:
    """Return whether the parameters of a call change app or user state."""
    return params.get("app_delta") is not None or params.get("user_delta") is not None


def read_migrations(dialect: Dialect) -> Mapping[int, str]:
    """Return the scripts that build Lapse's own tables, by schema version, in order."""
    folder = resources.files("lapse.store").joinpath(dialect, "schema")
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return {int(name[:4]): read_script(dialect, f"schema/{name}") for name in files}
