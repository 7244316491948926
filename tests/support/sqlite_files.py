"""SQLite files with all tables, made once: a copy is there in no time."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import scratch
from postgres import prepare


@cache
def _prepared() -> Path:
    file = scratch.folder("sqlite") / "lapse.db"
    prepare(f"sqlite:///{file}")
    return file


def empty_store(file: Path) -> str:
    """Make a file with Lapse's and ADK's tables, all empty, and return the URL of its store."""
    shutil.copyfile(_prepared(), file)
    return f"sqlite:///{file}"
