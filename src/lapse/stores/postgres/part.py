"""What a part of the PostgreSQL store needs of the whole: to call it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from lapse.lifecycle import SessionKey
from lapse.stores.postgres.call import NO_SESSION, Call
from lapse.stores.postgres.connections import Connections


class PostgresPart(ABC):
    """Statements on the store's connections, about one session or about none."""

    _connections: Connections

    @abstractmethod
    async def _at(self, now: datetime | None, key: SessionKey = NO_SESSION) -> Call: ...
