"""What the kernel says of processes."""

from __future__ import annotations

import os
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int, *, ended: bool = False) -> float:
    """Return the seconds of CPU of a process; with `ended`, also those of its ended children.

    A process that has ended has used none.
    """
    fields = _told_of(pid)
    return sum(map(int, fields[11:15] if ended else fields[11:13])) * _TICK


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that run."""
    others = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [other for other in others if _told_of(other)[1:2] == [str(pid)]]


def _told_of(pid: int) -> list[str]:
    """Return what stands in a process's `stat` after its name; nothing, if it has ended."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return told.rpartition(")")[2].split()


def resident_of(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
