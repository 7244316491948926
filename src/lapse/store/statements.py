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
_PART: Final = re.compile(r"\{(\w+)\}")


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
    return resources.files("lapse.store").joinpath(dialect, path).read_text("utf-8")


def read_statements(dialect: str) -> Mapping[str, str]:
    """Return a dialect's statements by name, from the files of all slices.

    A slice's file is named for the dialect: `sqlite.sql`, or `finding.sqlite.sql` where it has
    several. The text before a file's first name is its preface. `{name}` in a statement stands for
    another one, which is a part of it.
    """
    scripts = [read_script(dialect, "sessions.sql")]
    for folder in resources.files("lapse").iterdir():
        if folder.is_dir():
            scripts += [
                file.read_text("utf-8")
                for file in folder.iterdir()
                if file.name == f"{dialect}.sql" or file.name.endswith(f".{dialect}.sql")
            ]
    found: dict[str, str] = {}
    for script in scripts:
        _, *parts = _NAME.split(script)
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            assert name not in found, f"two statements are named {name}"
            found[name] = body.strip().removesuffix(";")

    def whole(statement: str) -> str:
        return _PART.sub(lambda part: f"({_COMMENT.sub('', found[part[1]])})", statement)

    return {name: whole(statement) for name, statement in found.items()}


def read_migrations(dialect: str) -> Mapping[int, str]:
    """Return the scripts that build Lapse's own tables, by schema version, in order."""
    folder = resources.files("lapse.store").joinpath(dialect, "schema")
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return {int(name[:4]): read_script(dialect, f"schema/{name}") for name in files}
