"""Adopts the empty sessions of stock ADK in the background, as long as a server runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lapse.adoption.adopt import BATCH, Statistics, new_run
from lapse.adoption.settings import Adopt
from lapse.adoption.store import AdoptionStore, Batch, Selection
from lapse.core.background import Background
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.messages import UsedByRule
from lapse.store.database import Database

_PAUSE: Final = timedelta(milliseconds=250)
"""The pause between two batches of one round."""

_ROUND_PAUSE: Final = timedelta(seconds=30)
"""The pause between two rounds."""


class Adopter:
    """Examines ADK's sessions in rounds, and adopts empty ones that are older than the TTL.

    A younger one is left to ADK: Lapse would not have expired it yet either. An adopted session
    is restorable for a whole horizon from its adoption.

    Args:
        database: the database with ADK's tables and the lobby.
        feed: receives the changes.
        scope: NEW adopts sessions created since Lapse's tables were created; ALL adopts older
            ones, too. OFF is not expected here.
        ttl: the age at which a session is adopted, and its TTL.
        used_by: whose message makes the adopted sessions used.
        round_pause: the pause between two rounds.
    """

    def __init__(
        self,
        database: Database,
        feed: Feed,
        *,
        scope: Adopt,
        ttl: timedelta,
        used_by: UsedByRule = UsedByRule(),
        round_pause: timedelta = _ROUND_PAUSE,
    ) -> None:
        self._store = AdoptionStore(database)
        self._statistics = Statistics(database)
        self._feed = feed
        self._ttl = ttl
        self._used_by = used_by
        self._round_pause = round_pause
        self._run = f"server-{new_run()}"
        self._selection = Selection(older_than=ttl, since_prepared=scope is Adopt.NEW)
        self._after: SessionKey | None = None

    def running(self) -> Background:
        """Return the background work; it adopts from its start to its stop."""
        return Background("adoption", self.step)

    async def step(self) -> timedelta:
        """Adopt one batch, and return the pause before the next.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        part = await self._store.adopt(
            Batch(self._run, self._selection, self._ttl, self._after, BATCH, self._used_by)
        )
        self._feed.publish(part.changes)
        await self._statistics.grown(part.value.adopted)
        self._after = part.value.last
        return _PAUSE if self._after is not None else self._round_pause
