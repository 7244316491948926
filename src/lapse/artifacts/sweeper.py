"""Deleting the artifacts of sessions that ended before their first message: uploads never sent.

ADK's artifact service deletes them, at least once: the transaction that ends a session writes it
into the store's outbox, which keeps it until its artifacts are deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Protocol

from lapse.artifacts.outbox import Outbox, OutboxEntry
from lapse.core.background import Background
from lapse.store.database import Database

_AT_ONCE: Final = 50
_PAUSE: Final = timedelta(seconds=5)
_TIMEOUT: Final = timedelta(minutes=10)
"""How long the artifacts of _AT_ONCE sessions may take, wherever they are."""

_MOST_ATTEMPTS: Final = 1000
"""After so many attempts, in about six weeks, a session is given up: the outbox must not grow for
ever."""

_OF_THE_USER: Final = "user:"

_log = logging.getLogger(__name__)


class ArtifactService(Protocol):
    """What is needed of ADK's BaseArtifactService."""

    async def list_artifact_keys(
        self, *, app_name: str, user_id: str, session_id: str | None = None
    ) -> list[str]:
        """Return a session's artifacts, and its user's."""
        ...

    async def list_artifact_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[Any]:
        """Return the versions of an artifact, each with its `create_time` in seconds."""
        ...

    async def delete_artifact(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> None:
        """Delete an artifact with all its versions."""
        ...


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
        self._outbox = Outbox(database)
        self._artifacts = artifacts
        self._serves = serves

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
            if not self._serves(entry.key.app_name) and entry.attempts < _MOST_ATTEMPTS:
                continue
            try:
                await self._delete(entry)
            except Exception as error:  # noqa: BLE001 - the session is taken again
                # Its text is not logged: that may hold the whole id, in a path.
                _log.warning(
                    "artifacts of session %s… were not deleted (attempt %d), and will be: %s",
                    entry.key.short,
                    entry.attempts,
                    type(error).__name__,
                )
                if entry.attempts < _MOST_ATTEMPTS:
                    continue
            await self._outbox.settle_outbox(entry)
        return timedelta(0) if len(taken) == _AT_ONCE else _PAUSE

    async def _delete(self, entry: OutboxEntry) -> None:
        if entry.lives or not self._serves(entry.key.app_name):
            # A new session has the same key, and the artifacts may be its own.
            return
        scope = entry.key._asdict()
        for filename in await self._artifacts.list_artifact_keys(**scope):
            if filename.startswith(_OF_THE_USER):
                continue
            versions = await self._artifacts.list_artifact_versions(**scope, filename=filename)
            if all(version.create_time <= entry.ended_at.timestamp() for version in versions):
                await self._artifacts.delete_artifact(**scope, filename=filename)
