"""What metrics count, how their labels are bounded, and what they show without a store."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI

from backends import NO_STATE, T0, create, key
from lapse import LapseSessionService, Settings, mount
from lapse.core.lifecycle import Change, ChangeKind, Rules
from lapse.overview.metrics import StoreMetrics
from lapse.telemetry.labels import MOST_APPS, OTHER
from lapse.telemetry.metrics import Metrics
from parts import store_with_parts


@pytest.fixture
async def store():
    store = store_with_parts("sqlite:///:memory:")
    await store.open()
    yield store
    await store.close()


def counting(store):
    """Return metrics that also show what the store says."""
    metrics = Metrics()
    stored = StoreMetrics(store, metrics)
    metrics.registry.register(stored)
    metrics.before_scrape(stored.refresh)
    return metrics


async def samples(metrics) -> dict[str, float]:
    text = (await metrics.render()).decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    assert len({name for name, _, _ in lines}) == len(lines), "each sample stands once"
    return {name: float(value) for name, _, value in lines}


async def test_only_used_sessions_that_expire_count_as_used_sessions_expired(store):
    """Seen to fail with the record's status looked at, which is `expired` by then."""
    metrics = counting(store)
    name = "lapse_used_sessions_expired_total"
    await create(store, now=T0)
    swept = await store.at(T0 + timedelta(hours=1)).expire_due(1)
    (expired,) = swept.changes
    metrics.count_change(expired)
    assert (await samples(metrics))[name] == 0
    wrong = replace(expired.record, first_message_at=T0)
    metrics.count_change(Change(ChangeKind.EXPIRED, T0, wrong))
    metrics.count_change(Change(ChangeKind.PURGED, T0, wrong))
    assert (await samples(metrics))[name] == 2


async def test_apps_beyond_the_first_fifty_are_counted_together(store):
    """Seen to fail with a sample for each tally, as two of them are then named alike."""
    metrics = counting(store)
    many = MOST_APPS + 7
    for number in range(many):
        created = await store.create(
            key(app=f"app{number}"), state=NO_STATE, ttl=timedelta(hours=1), metadata={}
        )
        metrics.count_change(created.changes[0])
    found = await samples(metrics)
    for metric in ("lapse_sessions_created_total", "lapse_sessions"):
        of_apps = {name: value for name, value in found.items() if name.startswith(metric + "{")}
        assert len(of_apps) == MOST_APPS + 1
        assert sum(of_apps.values()) == many
    assert found[f'lapse_sessions_created_total{{app="{OTHER}"}}'] == 7


async def test_the_metrics_show_the_longest_overdue_session_and_the_last_sweep(store):
    await create(store, now=T0 - timedelta(days=9999))
    before = await samples(counting(store))
    assert before["lapse_overdue_seconds"] > 3600
    assert "lapse_last_sweep_age_seconds" not in before
    await store.mark_swept()
    after = await samples(counting(store))
    assert 0 <= after["lapse_last_sweep_age_seconds"] < 60
    assert after['lapse_brake{reason="share"}'] == 0


async def test_the_metrics_show_nothing_overdue_while_clean_up_is_disabled():
    store = store_with_parts("sqlite:///:memory:", Rules(enforced=False))
    await create(store, now=T0 - timedelta(days=9999))
    found = await samples(counting(store))
    assert found["lapse_overdue_seconds"] == found["lapse_cleanup_enabled"] == 0
    await store.close()


async def test_if_the_store_does_not_answer_the_metrics_say_so_and_show_no_old_values(
    store, monkeypatch
):
    metrics = counting(store)
    await create(store, now=None)
    assert (await samples(metrics))["lapse_store_up"] == 1
    await store.close()
    monkeypatch.setattr("lapse.overview.metrics._CACHED_FOR", timedelta(0))
    found = await samples(metrics)
    assert found["lapse_store_up"] == 0
    assert found['lapse_store_errors_total{where="scrape"}'] == 1
    assert not [name for name in found if re.match(r"lapse_(sessions\{|overdue|brake\{)", name)]


async def test_a_request_that_fails_for_the_store_is_counted(store):
    app = FastAPI()
    mount(app, LapseSessionService(store), Settings(sweeper=False), apps=["a"])
    await store.close()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://lapse") as client:
        answer = await client.get("/apps/a/users/u/sessions/s/lifecycle")
        assert answer.status_code == 503
        shown = (await client.get("/metrics")).text
    assert 'lapse_store_errors_total{where="request"} 1.0' in shown
