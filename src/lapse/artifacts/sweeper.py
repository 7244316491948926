"""Deleting the artifacts of ended sessions: deleted ones, and those that were never used.

ADK's artifact service deletes them, at least once: the transaction that ends a session writes it
into the store's outbox, which keeps it until its artifacts are deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from lapse.artifacts.outbox import Outbox, OutboxEntry
from lapse.artifacts.uploads import Upload, UploadStore
from lapse.core.arguments import check
from lapse.core.artifacts import ArtifactService, own_artifacts
from lapse.core.background import Background
from lapse.core.errors import StoreUnavailableError
from lapse.core.keys import SessionKey
from lapse.store.database import Database, check_store

_AT_ONCE: Final = 50
_PAUSE: Final = timedelta(seconds=5)
_TIMEOUT: Final = timedelta(minutes=10)
"""How long the artifacts of _AT_ONCE sessions may take, wherever they are."""

_MOST_ATTEMPTS: Final = 1000
"""After so many attempts, in about six weeks, a session is given up: the outbox must not grow for
ever."""

_AT_CREATION: Final = timedelta(seconds=10)
"""How long a creation waits for the deletion of what an earlier session of its key has left."""

_log = logging.getLogger(__name__)


class ArtifactSweeper:
    """Deletes the artifacts of the sessions in a store's outbox.

    Args:
        database: the store.
        artifacts: the service that keeps the artifacts.
        serves: whether the service has an app's artifacts; other processes delete those of
            other apps.
    """

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactService,
        *,
        serves: Callable[[str], bool] = lambda _: True,
    ) -> None:
        check_store(database=database)
        check(artifacts=(artifacts, ArtifactService), serves=(serves, Callable))
        self._outbox = Outbox(database)
        self._uploads = UploadStore(database)
        self._artifacts = artifacts
        self._serves = serves

    @property
    def service(self) -> ArtifactService:
        """Return the service that keeps the artifacts."""
        return self._artifacts

    @property
    def serves(self) -> Callable[[str], bool]:
        """Return what tells whether the service has an app's artifacts."""
        return self._serves

    def running(self) -> Background:
        """Return the work that deletes artifacts until it is stopped."""
        return Background("deleting artifacts", self.step, timeout=_TIMEOUT)

    async def step(self) -> timedelta:
        """Delete the artifacts of a few sessions, and return how long to wait for the next.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        taken = await self._outbox.take_outbox(_AT_ONCE)
        for entry in taken:
            await self._settle(entry)
        return timedelta(0) if len(taken) == _AT_ONCE else _PAUSE

    async def delete_before(self, key: SessionKey) -> None:
        """Delete what an earlier session of a new session's key has left.

        If that fails, or takes longer than ten seconds, the next steps do it.
        """
        try:
            async with asyncio.timeout(_AT_CREATION.total_seconds()):
                entry = await self._outbox.take_outbox_of(key)
                if entry is not None:
                    await self._settle(entry)
        except (StoreUnavailableError, TimeoutError) as error:
            _log.warning(
                "a new session %s may see artifacts of an earlier one until they are deleted: %s",
                key.named,
                str(error) or type(error).__name__,
            )

    async def holds_any(self, key: SessionKey) -> bool:
        """Return whether a waiting session has artifacts of its own, however they were saved.

        If it has, that is recorded as an upload, so that no creation returns the session. It also
        returns True if the artifact service does not answer within ten seconds.
        """
        if not self._serves(key.app_name):
            return False
        try:
            async with asyncio.timeout(_AT_CREATION.total_seconds()):
                own = await own_artifacts(self._artifacts, key)
        except Exception as error:  # noqa: BLE001 - a new session is right in any case
            _log.warning(
                "session %s is not reused: the artifact service did not tell whether it has "
                "artifacts: %s",
                key.named,
                type(error).__name__,
            )
            return True
        if not own:
            return False
        await self._uploads.note_upload(Upload.of(key, own[0], 0))
        return True

    async def _settle(self, entry: OutboxEntry) -> None:
        if not self._serves(entry.key.app_name) and entry.attempts < _MOST_ATTEMPTS:
            return
        try:
            await self._delete(entry)
        except Exception as error:  # noqa: BLE001 - the session is taken again
            # Its text is not logged: that may hold the whole id, in a path.
            _log.warning(
                "artifacts of session %s were not deleted (attempt %d): %s",
                entry.key.named,
                entry.attempts,
                type(error).__name__,
            )
            if entry.attempts < _MOST_ATTEMPTS:
                return
        await self._outbox.settle_outbox(entry)

    async def _delete(self, entry: OutboxEntry) -> None:
        """Delete what was saved before the end; anything later is of a new session of the key."""
        if not self._serves(entry.key.app_name):
            return
        scope = entry.key._asdict()
        for filename in await own_artifacts(self._artifacts, entry.key):
            versions = await self._artifacts.list_artifact_versions(**scope, filename=filename)
            if all(version.create_time <= entry.ended_at.timestamp() for version in versions):
                await self._artifacts.delete_artifact(**scope, filename=filename)
