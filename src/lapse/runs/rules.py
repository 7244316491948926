"""The limits of runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The limits of runs.

    Attributes:
        per_process: the most runs in flight in one process.
        per_user: the most runs in flight of one user in one app, in all processes together.
        duration: the time after which a run is ended.
        grace: how long a process that shuts down waits for its runs to finish.
        queue: the most requests that wait in the queue of one session in one process.
        live_per_user: the most sockets of `/run_live` of one user in one process.
    """

    per_process: int = 100
    per_user: int = 10
    duration: timedelta = timedelta(minutes=10)
    grace: timedelta = timedelta(seconds=10)
    queue: int = 4
    live_per_user: int = 10
