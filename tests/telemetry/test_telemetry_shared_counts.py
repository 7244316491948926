"""Real processes that count in one folder, one after another, as the workers of a server do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lapse.telemetry.shared_counts import forget_gauges
from serving import environment

WORKER = """
import asyncio, json, sys
from datetime import timedelta
from pathlib import Path

from lapse.core.documents import StateDelta
from lapse.core.errors import TooManyCreatesError
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.notices.metrics import count_streams
from lapse.notices.watcher import Watcher
from lapse.quotas.admission import Admission
from lapse.quotas.metrics import QuotaMetrics
from lapse.quotas.rules import Quotas
from lapse.store import store_from_url
from lapse.sweep.metrics import SweepMetrics
from lapse.telemetry.metrics import Metrics
from lapse.telemetry.shared_counts import share_counts

class Page:
    def hear(self, notices): pass
    def beat(self): pass
    def end(self): pass

async def main(folder, number, refused, streams):
    share_counts(Path(folder), int(number))
    metrics, store = Metrics(), store_from_url("sqlite:///:memory:")
    admission = Admission(store, Quotas(creates_per_user=1))
    QuotaMetrics(metrics.registry, admission)
    watcher = Watcher(store, Feed())
    count_streams(metrics.registry, watcher)
    for create in range(1 + int(refused)):
        try:
            key = SessionKey("app", "ada", f"s{create}")
            await admission.create(key, state=StateDelta(), ttl=timedelta(hours=1), metadata={})
        except TooManyCreatesError:
            metrics._lateness.labels("app").observe_all([0.0, 0.5])
    for stream in range(int(streams)):
        watcher.watch(SessionKey("app", "ada", f"s{stream}"), Page())
    lines = (await metrics.render()).decode().splitlines()
    print(json.dumps({k: float(v) for k, _, v in (
        line.rpartition(" ") for line in lines if not line.startswith("#"))}))
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""
REFUSED = 'lapse_creates_refused_total{limit="user"}'
LATE = 'lapse_expiry_lateness_seconds_count{app="app"}'
AT_ONCE = 'lapse_expiry_lateness_seconds_bucket{app="app",le="0.005"}'
STREAMS = "lapse_streams_open"


def worker(folder, number, *, refused, streams):
    """Be a worker that is refused so many creations and opens streams; return what it shows."""
    ended = subprocess.run(
        [sys.executable, "-c", WORKER, str(folder), str(number), str(refused), str(streams)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.long
def test_each_worker_shows_the_sum_and_a_successor_counts_on(tmp_path):
    """Seen to fail with collectors that read what their own process has counted."""
    first = worker(tmp_path, 1, refused=2, streams=1)
    assert (first[REFUSED], first[LATE], first[AT_ONCE], first[STREAMS]) == (2, 4, 2, 1)
    other = worker(tmp_path, 2, refused=3, streams=2)
    assert (other[REFUSED], other[LATE], other[AT_ONCE], other[STREAMS]) == (5, 10, 5, 3)
    for ended in (1, 2):
        forget_gauges(tmp_path, ended)
    again = worker(tmp_path, 1, refused=1, streams=1)
    assert (again[REFUSED], again[LATE], again[AT_ONCE], again[STREAMS]) == (6, 12, 6, 1)
    assert sorted(file.name for file in tmp_path.glob("counter_*")) == [
        "counter_1.db",
        "counter_2.db",
    ]
