"""How long servers take from the start of the process to the first answer."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.http.servers import SERVERS, Server, free_port, running, wait_for
from bench.support.places import Places
from bench.support.processes import cpu_of, resident_of
from bench.support.scale import Scale


def measure(scale: Scale, scratch: Path, places: Places) -> dict[str, Any]:
    """Return medians by server, each as its users run it: time, CPU, and memory at that moment.

    The first start of each is not counted: it writes bytecode and fills the system's caches.
    """
    servers = [server for server in SERVERS[places.store] if server.plain is not None]
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(scale.starts + 1):
        turn = number % len(servers)
        for server in servers[turn:] + servers[:turn]:
            with places.fresh() as url:
                sample = _started(server, scratch, url)
            if number:
                found[server.name].append(sample)
    return {
        name: {what: median(sample[what] for sample in samples) for what in samples[0]}
        for name, samples in found.items()
    }


def _started(server: Server, scratch: Path, url: str) -> dict[str, float]:
    assert server.plain is not None
    port = free_port()
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        command = server.plain(port, url)
        began = time.perf_counter()
        with running(command, Path(directory)) as pid:
            wait_for(port)
            took = time.perf_counter() - began
            return {"seconds": took, "cpu": cpu_of(pid), "resident": resident_of(pid)}
