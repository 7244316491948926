"""What a part of the PostgreSQL store needs of the whole: to call it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from lapse.core.keys import SessionKey
from lapse.store.operation import NO_SESSION
from lapse.store.postgres.call import Call
from lapse.store.postgres.connections import Connections


@dataclass(slots=True)
class Known:
    """What a store remembers of its database between calls, by whatever clock they are made.

    Attributes:
        prepared: whether the schema was brought up to date.
        adopted: how many sessions were adopted.
        analyzed: how many they were when the statistics of the lobby were last renewed.
    """

    prepared: bool = False
    adopted: int = 0
    analyzed: int = 0


class PostgresPart(ABC):
    """Statements on the store's connections, about one session or about none."""

    _connections: Connections
    _known: Known

    @abstractmethod
    async def _call(self, key: SessionKey = NO_SESSION) -> Call: ...
