"""Importing an export: nothing that exists is changed, and the store gets all of it or nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from lapse.core.errors import InvalidValueError, LapseError, StoreRefusedError
from lapse.core.keys import SessionKey, check_key
from lapse.core.lifecycle import Status
from lapse.export.artifacts import Artifacts
from lapse.export.manifest import Manifest, verified
from lapse.export.places import ARTIFACTS_FILE, PLACES, Place, Values, values_of
from lapse.export.store import AlreadyStoredError, ImportStore
from lapse.store.database import Database

Page = tuple[Place, Sequence[Values]]
"""Rows of a place that are written together."""

_PAGE: Final = 200
_STATUSES: Final = frozenset({Status.WAITING, Status.USED, Status.EXPIRED, Status.ARCHIVED})


class Import:
    """One import of a folder.

    `verify` comes first, then `check`, then `put`.

    Args:
        store: where it is imported to.
        folder: the export.
        artifacts: where its artifacts are saved; None: they are left out.
    """

    def __init__(self, store: Database, folder: Path, *, artifacts: Artifacts | None) -> None:
        self._store = ImportStore(store)
        self._folder = folder
        self._artifacts = artifacts
        self._manifest: Manifest | None = None

    async def verify(self) -> Manifest:
        """Check every file against the manifest, and return it.

        Raises:
            StoreRefusedError: the folder is no whole export, or not as it was written.
        """
        known = (*(place.file for place in PLACES), ARTIFACTS_FILE)
        self._manifest = await asyncio.to_thread(verified, self._folder, known)
        return self._manifest

    async def check(self) -> None:
        """Check that nothing of the export exists, except for artifacts that are the same.

        Raises:
            AlreadyStoredError: the store has some of it.
            StoreRefusedError: a line is wrong, or the artifact service keeps another artifact.
        """
        found: list[str] = []
        pages = self._pages()
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            found += await self._store.existing(*page)
        if found:
            raise AlreadyStoredError(list(dict.fromkeys(found)))
        await self._each_artifact(self._checked)

    async def put(self, on_progress: Callable[[int], None]) -> Mapping[str, int]:
        """Save the artifacts, then write all rows in one transaction; return the number of each.

        The files are read before the transaction begins, so that nobody waits for a disk while it
        holds its locks; they are in memory as a whole then. If it is stopped, it can be done again:
        artifacts that are saved are left alone, and no row is written before all are.

        Raises:
            AlreadyStoredError: the store has got some of it since; no row was written.
            StoreRefusedError: the store cannot hold a value, or a line is wrong.
        """
        await self._each_artifact(self._saved)
        pages = await asyncio.to_thread(lambda: list(self._pages()))
        return await self._store.put(lambda: _counted(pages, on_progress))

    async def _checked(self, line: bytes) -> None:
        assert self._artifacts is not None
        await self._artifacts.check(line)

    async def _saved(self, line: bytes) -> None:
        assert self._artifacts is not None
        if not await self._artifacts.check(line):
            await self._artifacts.save(line)

    async def _each_artifact(self, do: Callable[[bytes], Awaitable[None]]) -> None:
        assert self._manifest is not None, "verify comes first"
        if self._artifacts is None or not self._manifest.lines.get(ARTIFACTS_FILE):
            return
        path = self._folder / ARTIFACTS_FILE
        with await asyncio.to_thread(path.open, "rb") as file:
            number = 0
            while line := await asyncio.to_thread(file.readline):
                number += 1
                try:
                    self._check_owner(*_owner_of(line))
                    await do(line)
                except LapseError:
                    raise
                except (ValueError, KeyError, TypeError) as error:
                    raise _wrong(path, number, error) from error

    def _pages(self) -> Iterator[Page]:
        assert self._manifest is not None, "verify comes first"
        for place in PLACES:
            if place.file in self._manifest.lines:
                yield from self._pages_of(place)

    def _pages_of(self, place: Place) -> Iterator[Page]:
        path = self._folder / place.file
        page: list[Values] = []
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    page.append(self._checked_values(place, line))
                except (ValueError, KeyError, TypeError) as error:
                    raise _wrong(path, number, error) from error
                if len(page) == _PAGE:
                    yield place, page
                    page = []
        if page:
            yield place, page

    def _checked_values(self, place: Place, line: bytes) -> Values:
        values = values_of(place, line)
        named = dict(zip((name for name, _ in place.columns), values, strict=True))
        session = named.get("session_id", named.get("id", "-"))
        key = SessionKey(named["app_name"], named["user_id"], session)
        self._check_owner(*check_key(key)[:2])
        if place.name == "lobby" and named["status"] not in _STATUSES:
            raise InvalidValueError(
                "status", f"must be one that an export has, not {named['status']!r:.40}"
            )
        return values

    def _check_owner(self, app_name: str, user_id: str) -> None:
        assert self._manifest is not None
        if user_id != self._manifest.user_id:
            raise InvalidValueError("userId", "must be the user of the manifest")
        if self._manifest.app_name not in {None, app_name}:
            raise InvalidValueError("appName", "must be the app of the manifest")


def _counted(pages: Iterable[Page], on_progress: Callable[[int], None]) -> Iterator[Page]:
    done = 0
    for place, rows in pages:
        yield place, rows
        done += len(rows)
        on_progress(done)


def _owner_of(line: bytes) -> tuple[str, str]:
    document = json.loads(line)
    return document["appName"], document["userId"]


def _wrong(path: Path, number: int, error: Exception) -> StoreRefusedError:
    reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
    return StoreRefusedError(f"{path}:{number}: {reason:.200}; export again")
