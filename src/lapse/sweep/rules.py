"""When a sweep stops before what cannot be undone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class BrakeOptions:
    """When a sweep stops before what cannot be undone.

    Attributes:
        share: where it would end more than this share of all sessions in the lobby's records
            for good; 1 never does.
        sessions: and more than this many.
        jump: or where the store's clock jumped ahead of the process's own by more than this.
    """

    share: float = 0.5
    sessions: int = 1000
    jump: timedelta = timedelta(minutes=5)
