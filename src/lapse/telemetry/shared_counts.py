"""Counts that the worker processes of one server share, so that each of them shows the sum.

It is the multi-process mode of prometheus_client: each worker counts in files of a folder that all
of them have mapped, and a scrape of any worker adds up the files. What a killed worker counted
stays in its files; the worker that takes its place has the same number, and counts on in them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client import values
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

LIVE: Final = "livesum"
"""The mode of a gauge of what is open in a process: the sum over the workers that live."""

_OWN: Final = "lapse_"
"""Agents may count with prometheus_client, too, and then do so in the same folder."""

_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The library reads the name of the folder from this variable."""

_shared: list[Path] = []
"""The folder, once this process is a worker."""


def share_counts(folder: Path, worker: int) -> None:
    """Have this process count in a folder from now on, as the worker of this number.

    It must be called before a metric is made, and no two living processes may have one number.
    """
    os.environ[_FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]
    _shared[:] = [folder]


def forget_gauges(folder: Path, worker: int) -> None:
    """Remove what was open in a worker that has ended; its counters and histograms stay."""
    mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


class Summed(Collector):
    """What one process shows, with the sums over all workers in place of what it counted itself."""

    def __init__(self, shown: Iterable[Metric], summed: Iterable[Metric]) -> None:
        self._shown = shown
        self._summed = {family.name: family for family in summed if family.name.startswith(_OWN)}

    def collect(self) -> Iterable[Metric]:
        """Return the families that the process shows, each with the samples of all workers."""
        for family in self._shown:
            yield self._summed.get(family.name, family)


async def with_sums(shown: Collector) -> Collector:
    """Return what to show in place of this process's own counts; these, if it is no worker."""
    if not _shared:
        return shown
    return Summed(shown.collect(), await asyncio.to_thread(_read, _shared[0]))


def _read(folder: Path) -> list[Metric]:
    files = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
    return list(files.collect())  # type: ignore[no-untyped-call]
