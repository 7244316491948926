"""Says that used sessions live in another service, where no service is configured."""

from __future__ import annotations

import logging

from lapse.conversations.store import HandOverStore
from lapse.store.database import Database

_log = logging.getLogger(__name__)


class Unreachable:
    """Looks whether the lobby has sessions that only another service could show."""

    def __init__(self, database: Database) -> None:
        self._store = HandOverStore(database)
        self._has_told = False

    async def look(self) -> None:
        """Log once that there are some."""
        if self._has_told or not await self._store.has_elsewhere():
            return
        if not self._has_told:
            self._has_told = True
            _log.warning(
                "used sessions of this store live in another session service, and nobody can read "
                "them here: set LAPSE_CONVERSATIONS_URI"
            )
