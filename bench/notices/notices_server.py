"""`lapse serve`, which also writes down each read of its watcher: when, of how many sessions."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from lapse.cli import main as cli
from lapse.store.postgres import PostgresDatabase
from lapse.store.sqlite import SqliteDatabase


def write_down_reads(kind: Any, file: Path) -> None:
    """Let a kind of store write a line for each batched read."""
    plain = kind.records
    log = file.open("a", buffering=1)

    async def records(self, keys, **more):
        log.write(f"{time.time()} {len(keys)}\n")
        return await plain(self, keys, **more)

    kind.records = records


if __name__ == "__main__":
    reads = Path(sys.argv.pop(1))
    for each in (SqliteDatabase, PostgresDatabase):
        write_down_reads(each, reads)
    cli.main()
