"""The part of a store that says how it is, before anybody works in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

MOST_COUNTED: Final = 100_000
"""How far an inspection counts."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """How a store is.

    Attributes:
        now: its clock.
        version: its schema's version; 0 where Lapse has created nothing yet.
        newest: the version that this Lapse brings it up to when it opens it.
        missing_indexes: those that its version should have and it has not, or that are invalid.
        expire: sessions that the next sweep expires; counted up to MOST_COUNTED.
        purge: expired sessions that the next sweep deletes for good; likewise.
        used_but_expired: sessions that count as expired although they had a message, which must
            never be; likewise.
    """

    now: datetime
    version: int
    newest: int
    missing_indexes: Sequence[str] = ()
    expire: int = 0
    purge: int = 0
    used_but_expired: int = 0


class Inspected(Protocol):
    """What can be said of a store that is not open."""

    async def inspect(self) -> Inspection:
        """Look at the store as it is, and change nothing: not its schema, nor make its file.

        It reads each expired session's row: for checks, not for requests.

        Raises:
            StoreRefusedError: it cannot be used as it is: as `Store.open`.
        """
        ...
