"""A program with workers that do little: `python working.py KIND FOLDER WORKERS`.

Each worker writes its process's id to FOLDER/NUMBER-PID, and the signals that it gets after it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lapse.cli.workers import Workers
from lapse.core.errors import SettingsError
from lapse.telemetry.logs import LogOptions, configure_logging


@dataclass(frozen=True)
class Job:
    kind: str
    folder: Path

    def __call__(self, number: int, on_started: Callable[[], None]) -> None:
        note = self.folder / f"{number}-{os.getpid()}"
        got: list[int] = []
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, lambda sent, _: got.append(sent))
        note.touch()
        match self.kind:
            case "refuses":
                raise SettingsError(["LAPSE_THIS: is wrong"])
            case "fails":
                raise ValueError("unforeseen")
            case "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "leaves":
                sys.exit(3)
        away = self.folder / "away"
        if away.exists() and len(list(self.folder.glob(f"{number}-*"))) > 1:
            raise SettingsError(["the store: is away"])
        on_started()
        if self.kind == "dies soon":
            return
        enough = 2 if self.kind == "needs two signals" else 1
        while len(got) < enough:
            time.sleep(0.01)
            note.write_text(" ".join(map(str, got)))
        note.write_text(" ".join(map(str, got)))  # the last may have come amid the line before


def main() -> None:
    kind, folder, number = sys.argv[1:]
    configure_logging(LogOptions())
    workers = Workers(
        Job(kind, Path(folder)),
        int(number),
        on_started=lambda: print("all serve", file=sys.stderr, flush=True),
        on_ended=lambda ended: print(f"ended {ended}", file=sys.stderr, flush=True),
        on_ending=lambda: print("all end", file=sys.stderr, flush=True),
        on_orphaned=(Path(folder) / "orphaned").touch,
    )
    failure = workers.run()
    workers.end_by_signals()
    if failure is not None:
        print(failure.text, file=sys.stderr)
        sys.exit(failure.status)


if __name__ == "__main__":
    main()
