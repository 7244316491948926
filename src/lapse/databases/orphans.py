"""Artifacts whose sessions are not in a database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey
from lapse.databases.readers import Reader
from lapse.databases.report import Orphans


async def count_orphans(folder: Path, reader: Reader) -> Orphans:
    """Count the artifacts in a folder whose sessions are not in a database.

    Args:
        folder: where ADK's file artifact service keeps them: its own root, or a folder of
            agents, each with its `.adk/artifacts`.
        reader: reads the database.

    Raises:
        InvalidValueError: there is no such folder.
    """
    if not await asyncio.to_thread(folder.is_dir):
        raise InvalidValueError(
            "--artifacts", f"{folder}: there is no such folder; name one that exists"
        )
    sessions = artifacts = 0
    stored = await asyncio.to_thread(lambda: dict(_stored(folder)))
    for key in await reader.missing(list(stored)):
        sessions += 1
        artifacts += stored[key]
    return Orphans(sessions, artifacts)


def _stored(folder: Path) -> Iterator[tuple[SessionKey, int]]:
    """Yield each session that has artifacts in a folder, and how many."""
    for pattern in ("apps/*", ".adk/artifacts/apps/*", "*/.adk/artifacts/apps/*"):
        for app in folder.glob(pattern):
            for session in app.glob("users/*/sessions/*"):
                count = sum(1 for _ in session.glob("artifacts/**/versions"))
                if count:
                    yield SessionKey(app.name, session.parents[1].name, session.name), count
