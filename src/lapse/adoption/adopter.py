"""Adopting what stock ADK leaves behind, for as long as a server runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lapse.adoption.adopt import Statistics, new_run
from lapse.adoption.settings import Adopt
from lapse.adoption.store import AdoptionStore, Batch, Selection
from lapse.core.background import Background
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.store.database import Database

_AT_ONCE: Final = 500
_PAUSE: Final = timedelta(milliseconds=250)
"""Between two batches of one round."""

_ROUND_PAUSE: Final = timedelta(seconds=30)


class Adopter:
    """Looks through ADK's sessions, round after round, and adopts those nobody spoke to.

    One is taken once it is older than the TTL: so old, Lapse would have expired it had it been
    its own. It is restorable for a whole horizon from then.

    Args:
        database: where.
        feed: where the changes are published.
        scope: NEW takes what was created since Lapse's tables were; ALL takes older ones, too.
        ttl: the TTL.
        round_pause: between the end of one round and the next.
    """

    def __init__(
        self,
        database: Database,
        feed: Feed,
        *,
        scope: Adopt,
        ttl: timedelta,
        round_pause: timedelta = _ROUND_PAUSE,
    ) -> None:
        self._store = AdoptionStore(database)
        self._statistics = Statistics(database)
        self._feed = feed
        self._ttl = ttl
        self._round_pause = round_pause
        self._run = f"server-{new_run()}"
        self._selection = Selection(older_than=ttl, since_prepared=scope is Adopt.NEW)
        self._after: SessionKey | None = None

    def running(self) -> Background:
        """Return the context inside which it works."""
        return Background("adoption", self.step)

    async def step(self) -> timedelta:
        """Adopt one batch, and return how long to wait for the next.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        part = await self._store.adopt(
            Batch(self._run, self._selection, self._ttl, self._after, _AT_ONCE)
        )
        self._feed.publish(part.changes)
        await self._statistics.grown(len(part.changes))
        self._after = part.value.last
        return _PAUSE if self._after is not None else self._round_pause
