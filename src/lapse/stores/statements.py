"""Named SQL statements, read from the `.sql` files beside this module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def read_script(dialect: str, path: str) -> str:
    """Return the text of one `.sql` file of a dialect."""
    return resources.files("lapse.stores").joinpath("sql", dialect, path).read_text("utf-8")


def read_statements(dialect: str) -> Mapping[str, str]:
    """Return a dialect's statements by name; the text before the first name is its preface."""
    _, *parts = _NAME.split(read_script(dialect, "statements.sql"))
    return {
        name: body.strip().removesuffix(";")
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def read_migrations(dialect: str) -> Mapping[int, str]:
    """Return the scripts that build Lapse's own tables, by schema version, in order."""
    folder = resources.files("lapse.stores").joinpath("sql", dialect, "schema")
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return {int(name[:4]): read_script(dialect, f"schema/{name}") for name in files}
