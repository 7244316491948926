"""`lapse serve`, which also writes down each read of its watcher: when, of how many sessions."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from lapse.cli import main as cli
from lapse.notices.store import NoticeStore


def write_down_reads(file: Path) -> None:
    """Have each batched read write a line."""
    plain: Any = NoticeStore.records
    log = file.open("a", buffering=1)

    async def records(self, keys):
        log.write(f"{time.time()} {len(keys)}\n")
        return await plain(self, keys)

    NoticeStore.records = records


if __name__ == "__main__":
    write_down_reads(Path(sys.argv.pop(1)))
    cli.main()
