"""Adopting what stock ADK leaves behind, for as long as a server runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from lapse.adoption.adopt import new_run
from lapse.adoption.settings import Adopt
from lapse.adoption.store import Batch, Selection
from lapse.core.background import Background
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.store.protocol import Store

_AT_ONCE: Final = 500
_PAUSE: Final = timedelta(milliseconds=250)
"""Between two batches of one round."""

_ROUND_PAUSE: Final = timedelta(seconds=30)


class Adopter:
    """Looks through ADK's sessions, round after round, and adopts those nobody spoke to.

    One is taken once it is older than the TTL: so old, Lapse would have expired it had it been
    its own. It is restorable for a whole horizon from then.

    Args:
        store: the database.
        feed: where the changes are published.
        scope: NEW takes what was created since Lapse's tables were; ALL takes older ones, too.
        ttl: the TTL.
        round_pause: between the end of one round and the next.
    """

    def __init__(
        self,
        store: Store,
        feed: Feed,
        *,
        scope: Adopt,
        ttl: timedelta,
        round_pause: timedelta = _ROUND_PAUSE,
    ) -> None:
        self._store = store
        self._feed = feed
        self._scope = scope
        self._ttl = ttl
        self._round_pause = round_pause
        self._run = f"server-{new_run()}"
        self._selection: Selection | None = None
        self._after: SessionKey | None = None

    def running(self) -> Background:
        """Return the context inside which it works."""
        return Background("adoption", self.step)

    async def step(self) -> timedelta:
        """Adopt one batch, and return how long to wait for the next.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        if self._selection is None:
            since = await self._store.prepared_at() if self._scope is Adopt.NEW else None
            self._selection = Selection(older_than=self._ttl, since=since)
        part = await self._store.adopt(
            Batch(self._run, self._selection, self._ttl, self._after, _AT_ONCE)
        )
        self._feed.publish(part.changes)
        self._after = part.last
        return _PAUSE if part.last is not None else self._round_pause
