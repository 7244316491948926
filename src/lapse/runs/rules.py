"""The limits of runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from lapse.core.arguments import check_fields


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The limits of runs.

    Attributes:
        per_process: the most runs in flight in one process, detached or not; also the most readers
            of runs.
        per_user: the most runs in flight of one user in one app: the detached runs of all
            processes and the others of one process; also the most readers in one process.
        duration: the time after which a run is ended.
        grace: how long a process that shuts down waits for its runs to finish.
        queue: the most requests that wait in the queue of one session in one process.
    """

    per_process: int = 100
    per_user: int = 10
    duration: timedelta = timedelta(minutes=10)
    grace: timedelta = timedelta(seconds=10)
    queue: int = 4

    def __post_init__(self) -> None:
        check_fields(self)
