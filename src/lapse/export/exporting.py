"""Exporting a user: everything that a store keeps of them, as it is at one moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final

from lapse.core.errors import NotWithThisServiceError
from lapse.core.keys import SessionKey, check_key
from lapse.export.artifacts import Artifacts
from lapse.export.manifest import MANIFEST, FileEntry, Manifest, Sum
from lapse.export.places import ARTIFACTS_FILE, PLACES, Place
from lapse.export.sinks import Sink
from lapse.export.store import Cursor, ExportStore
from lapse.store.database import Snapshot

_PAGE: Final = 200
"""Rows in memory at a time; an event may have some hundred KiB."""


class Export:
    """One export of a user.

    Args:
        snapshot: the store as it is at one moment.
        user_id: the user.
        app_name: the only app to export; None: all.
        artifacts: the user's artifacts; None: they are not exported.
        at: when the snapshot was opened.
        lapse: the version of this Lapse.

    Raises:
        InvalidValueError: no user, or no app, has such a name.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        user_id: str,
        *,
        app_name: str | None,
        artifacts: Artifacts | None,
        at: datetime,
        lapse: str,
    ) -> None:
        check_key(SessionKey("-" if app_name is None else app_name, user_id, "-"))
        self._store = ExportStore(snapshot)
        self._user = user_id
        self._app = app_name
        self._artifacts = artifacts
        self._at, self._lapse = at, lapse
        self.manifest: Manifest | None = None
        """What was exported; None until it is complete."""

    async def write(self, sink: Sink) -> AsyncGenerator[int, None]:
        """Write all files to a sink, the manifest last; yield, after each page, the lines so far.

        Raises:
            NotWithThisServiceError: another session service has sessions of the user.
            StoreUnavailableError: the store or the artifact service does not answer.
        """
        apps = await self._store.apps_of(self._user) if self._app is None else [self._app]
        for app in apps:
            if await self._store.is_elsewhere(app, self._user):
                raise NotWithThisServiceError(
                    "it has used sessions of this user, and an export reads ADK's tables; export "
                    "them from the service itself"
                )
        files = [(place.file, self._lines(place, apps)) for place in PLACES]
        if self._artifacts is not None:
            files.append((ARTIFACTS_FILE, self._artifact_lines(self._artifacts, apps)))
        try:
            async with aclosing(self._written(sink, files)) as written:
                async for done in written:
                    yield done
        finally:
            sink.release()

    async def _written(
        self, sink: Sink, files: Sequence[tuple[str, AsyncIterator[Sequence[bytes]]]]
    ) -> AsyncGenerator[int, None]:
        entries: list[FileEntry] = []
        before = 0
        for name, pages in files:
            found = Sum()
            await asyncio.to_thread(sink.begin, name)
            async for lines in pages:
                await asyncio.to_thread(lambda: sink.write(found.add(lines)))  # noqa: B023 - awaited
                yield before + found.lines
            await asyncio.to_thread(sink.end)
            entries.append(found.entry(name))
            before += found.lines
        self.manifest = Manifest(self._user, self._app, self._at, self._lapse, tuple(entries))
        await asyncio.to_thread(_write_manifest, sink, self.manifest)
        yield before

    async def _lines(self, place: Place, apps: Sequence[str]) -> AsyncIterator[Sequence[bytes]]:
        for app in apps:
            user = SessionKey(app, self._user, "")
            if not place.of_session:
                async for lines in self._pages(place, user):
                    yield lines
                continue
            async for session in self._sessions(user):
                async for lines in self._pages(place, session):
                    yield lines

    async def _pages(self, place: Place, key: SessionKey) -> AsyncIterator[Sequence[bytes]]:
        after: Cursor | None = Cursor()
        while after is not None:
            page = await self._store.page(place, key, after, limit=_PAGE)
            if page.lines:
                yield page.lines
            after = page.next

    async def _sessions(self, user: SessionKey) -> AsyncIterator[SessionKey]:
        after = ""
        while ids := await self._store.ids(user.app_name, user.user_id, after=after, limit=_PAGE):
            for one in ids:
                yield user._replace(session_id=one)
            after = ids[-1]

    async def _artifact_lines(
        self, artifacts: Artifacts, apps: Sequence[str]
    ) -> AsyncIterator[Sequence[bytes]]:
        for app in apps:
            user = SessionKey(app, self._user, "")
            async for line in artifacts.lines(user):
                yield [line]
            async for session in self._sessions(user):
                async for line in artifacts.lines(session):
                    yield [line]


def _write_manifest(sink: Sink, manifest: Manifest) -> None:
    sink.begin(MANIFEST)
    sink.write(manifest.text().encode())
    sink.end()
