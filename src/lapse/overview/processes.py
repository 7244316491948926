"""The processes that serve or sweep: each reports every few minutes, so that operators see it."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final

from lapse.store.database import Database
from lapse.store.operation import Asking, Part, operation, rows

FORGOTTEN_AFTER: Final = timedelta(days=1)
"""A process that has not reported for this long is forgotten."""

MOST_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Process:
    """A process that uses the store.

    Attributes:
        host: the host's name.
        pid: the process's number on its host.
        program: the command, for example `lapse serve`; without its arguments, which may be secret.
        version: the version of Lapse.
        sweeps: whether it sweeps.
        started_at: when it first reported, by the store's clock.
        seen_at: when it last reported.
    """

    host: str
    pid: int
    program: str
    version: str
    sweeps: bool
    started_at: datetime
    seen_at: datetime


class ProcessStore(Part):
    """What processes report of themselves."""

    @operation(flushed=False)
    def report_process(
        self, process: str, host: str, pid: int, program: str, *, sweeps: bool
    ) -> Asking[None]:
        """Record that a process works now, and forget those that have been silent for a day.

        A repeat records it again.
        """
        yield from rows(
            "report_process",
            process=process,
            host=host[:64],
            pid=pid,
            program=program[:64],
            release=version("lapse")[:32],
            sweeps=sweeps,
        )
        yield from rows("forget_processes", silence=FORGOTTEN_AFTER)

    @operation(writes=False)
    def processes(self) -> Asking[Sequence[Process]]:
        """Return at most MOST_SHOWN processes, the one that reported last first."""
        found = yield from rows("processes", most=MOST_SHOWN)
        return [
            Process(
                row["host"],
                row["pid"],
                row["program"],
                row["version"],
                bool(row["sweeps"]),
                row["started_at"],
                row["seen_at"],
            )
            for row in found
        ]


class Heartbeat:
    """Reports this process to the store, each time it is asked to."""

    def __init__(self, database: Database, *, sweeps: bool) -> None:
        self._store = ProcessStore(database)
        self._sweeps = sweeps
        self._process = secrets.token_hex(8)

    async def beat(self) -> None:
        """Report this process; after a fork it is another."""
        name = f"{self._process}-{os.getpid()}"
        host, program = socket.gethostname(), program_of(sys.argv)
        await self._store.report_process(name, host, os.getpid(), program, sweeps=self._sweeps)


def program_of(arguments: Sequence[str]) -> str:
    """Return the name of the program, with the command if it is `lapse`, and no other argument."""
    name = Path(arguments[0]).name if arguments else ""
    if name in {"lapse", "__main__.py"} and arguments[1:] and arguments[1].isalpha():
        return f"lapse {arguments[1]}"
    return name or "python"
