"""Named SQL statements, read from the `.sql` files beside this module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z_]+)")
_WRITE: Final = re.compile(r"\b(INSERT INTO|UPDATE \w+ |DELETE FROM)")
_COMMENT: Final = re.compile(r"--.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Positional:
    """A statement whose parameters are positions, `$1` and on, and their names in order."""

    sql: str
    names: tuple[str, ...]
    writes: bool

    @classmethod
    def of(cls, statement: str, types: Mapping[str, str]) -> Positional:
        """Turn each `:name` of a statement into the position of that name, and its type."""
        statement = _COMMENT.sub("", statement)
        names = tuple(dict.fromkeys(_PARAMETER.findall(statement)))
        sql = _PARAMETER.sub(
            lambda found: f"${names.index(found[1]) + 1}::{types[found[1]]}", statement
        )
        return cls(sql, names, writes=_WRITE.search(sql) is not None)


def read_script(dialect: str, path: str) -> str:
    """Return the text of one `.sql` file of a dialect."""
    return resources.files("lapse.stores").joinpath("sql", dialect, path).read_text("utf-8")


def read_statements(dialect: str) -> Mapping[str, str]:
    """Return a dialect's statements by name; the text before a file's first name is a preface.

    They stand in `statements.sql` and in the files of its form beside it.
    """
    folder = resources.files("lapse.stores").joinpath("sql", dialect)
    found = dict[str, str]()
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            _, *parts = _NAME.split(file.read_text("utf-8"))
            for name, body in zip(parts[::2], parts[1::2], strict=True):
                found[name] = body.strip().removesuffix(";")
    return found


def read_migrations(dialect: str) -> Mapping[int, str]:
    """Return the scripts that build Lapse's own tables, by schema version, in order."""
    folder = resources.files("lapse.stores").joinpath("sql", dialect, "schema")
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return {int(name[:4]): read_script(dialect, f"schema/{name}") for name in files}
