"""How much of running one process does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How much of running one process does.

    Attributes:
        per_process: runs in flight in one process, at most.
        per_user: runs in flight of one user in one app, in all processes, at most.
        duration: a run that takes longer is ended.
        grace: how long runs may take to finish when their process is to stop.
        queue: requests per session that wait for their turn in one process, at most.
    """

    per_process: int = 100
    per_user: int = 10
    duration: timedelta = timedelta(minutes=10)
    grace: timedelta = timedelta(seconds=10)
    queue: int = 4
