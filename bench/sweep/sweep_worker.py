"""Measures sweeps of one database: with nothing due, draining, draining beside other work."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import asyncpg

from bench.support.children import Answer, Request, answer_requests, freeze
from bench.support.figures import quantile
from bench.support.peers import file_of
from lapse.adk.service import LapseSessionService
from lapse.core.feed import Feed
from lapse.core.lifecycle import Change, ChangeKind, Expiries
from lapse.store import store_from_url
from lapse.store.database import Database
from lapse.sweep.brake import Brakes
from lapse.sweep.logs import log_sweep
from lapse.sweep.metrics import SweepMetrics
from lapse.sweep.sweeper import Sweeper, SweepReport, sweep_once
from lapse.telemetry.logs import LogOptions, configure_logging, log_change, log_expiries
from lapse.telemetry.metrics import Metrics

# What expire_due does to a row, for all due rows at once, on a plain connection.
_BARE = """
UPDATE lapse_lobby SET status = 'expired', expired_at = :now, restorable_until = :restorable
WHERE status = 'waiting' AND expires_at <= :now
"""
_BARE_POSTGRES = """
UPDATE lapse_lobby SET status = 'expired', expired_at = now(), restorable_until = now() + $1
WHERE status = 'waiting' AND expires_at <= now()
"""
_DAY = 24 * 3600 * 1_000_000


async def handle(request: Request) -> Answer:
    """Answer the requests idle, bare, drain and beside."""
    if request["do"] == "bare":
        url = request["url"]
        return await _bare_postgres(url) if url.startswith("postgresql") else _bare(url)
    async with AsyncExitStack() as stack:
        store = store_from_url(request["url"])
        service = await stack.enter_async_context(LapseSessionService(store))
        freeze()
        match request["do"]:
            case "idle":
                return await _idle(store, request["sweeps"])
            case "drain":
                return await _drain(store, _feed())
            case _:
                return await _beside(service, request)


def _bare(url: str) -> Answer:
    connection = sqlite3.connect(file_of(url), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    now = time.time_ns() // 1000
    began, cpu = time.perf_counter(), time.process_time()
    changed = connection.execute(_BARE, {"now": now, "restorable": now + _DAY}).rowcount
    took, used = time.perf_counter() - began, time.process_time() - cpu
    connection.close()
    return {"rate": changed / took, "cpu": used / changed, "expired": changed}


async def _bare_postgres(url: str) -> Answer:
    connection = await asyncpg.connect(url)
    began, cpu = time.perf_counter(), time.process_time()
    status = await connection.execute(_BARE_POSTGRES, timedelta(days=1))
    took, used = time.perf_counter() - began, time.process_time() - cpu
    await connection.close()
    changed = int(status.split()[1])
    return {"rate": changed / took, "cpu": used / changed, "expired": changed}


async def _idle(store: Database, sweeps: int) -> Answer:
    feed, times, brakes = _feed(), [], Brakes()
    await sweep_once(store, feed, brakes=brakes)
    for _ in range(sweeps):
        began = time.perf_counter()
        report = await sweep_once(store, feed, brakes=brakes)
        times.append(time.perf_counter() - began)
        assert not report.did_something
    return {"p50": quantile(times, 0.5), "p99": quantile(times, 0.99)}


async def _drain(store: Database, feed: Feed) -> Answer:
    expired, brakes = 0, Brakes()
    began, cpu = time.perf_counter(), time.process_time()
    while True:
        report = await sweep_once(store, feed, brakes=brakes)
        expired += report.expired
        if not report.full:
            break
    took, used = time.perf_counter() - began, time.process_time() - cpu
    return {"rate": expired / took, "cpu": used / expired, "expired": expired}


async def _beside(service: LapseSessionService, request: Request) -> Answer:
    """Let callers create sessions and send first messages: for a while, then beside a drain."""
    feed, drained, expired = service.feed, asyncio.Event(), 0
    metrics = SweepMetrics(_consume(feed))

    def count(change: Change) -> None:
        add(change.kind is ChangeKind.EXPIRED)

    def count_many(expiries: Expiries) -> None:
        add(len(expiries))

    def add(number: int) -> None:
        nonlocal expired
        expired += number
        if expired >= request["due"]:
            drained.set()

    def report(swept: SweepReport) -> None:
        metrics.count_sweep(swept)
        log_sweep(swept)

    feed.subscribe(count, of_many=count_many)
    foreground = Foreground(service, callers=request["callers"], pause=request["pause"])
    await foreground.run(_after(1))
    idle = await foreground.run(_after(request["seconds"]))
    began = time.perf_counter()
    async with Sweeper(service.store, feed, on_report=report):
        during = await foreground.run(drained)
    took = time.perf_counter() - began
    return {"idle": idle, "during": during, "rate": expired / took}


class Foreground:
    """Callers that create a session and send it its first message, again and again."""

    def __init__(self, service: LapseSessionService, *, callers: int, pause: float) -> None:
        self._service = service
        self._callers = callers
        self._pause = pause

    async def run(self, end: asyncio.Event) -> dict[str, Any]:
        """Go on until `end` and return the latencies of both operations."""
        times: dict[str, list[float]] = {"create": [], "message": []}
        await asyncio.gather(*(self._call(n, end, times) for n in range(self._callers)))
        return {
            name: {
                "p50": quantile(found, 0.5),
                "p99": quantile(found, 0.99),
                "operations": len(found),
            }
            for name, found in times.items()
        }

    async def _call(self, number: int, end: asyncio.Event, times: dict[str, list[float]]) -> None:
        from bench.services.service_worker import message

        while not end.is_set():
            began = time.perf_counter()
            session = await self._service.create_session(app_name="bench", user_id=f"c-{number}")
            times["create"].append(time.perf_counter() - began)
            await asyncio.sleep(self._pause)
            began = time.perf_counter()
            await self._service.append_event(session, message())
            times["message"].append(time.perf_counter() - began)
            await asyncio.sleep(self._pause)


def _after(seconds: float) -> asyncio.Event:
    end = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, end.set)
    return end


def _feed() -> Feed:
    feed = Feed()
    _consume(feed)
    return feed


def _consume(feed: Feed) -> Metrics:
    """Count and log changes as the server does; the log goes to a file."""
    metrics = Metrics()
    feed.subscribe(metrics.count_change, of_many=metrics.count_expiries)
    feed.subscribe(log_change, of_many=log_expiries)
    return metrics


if __name__ == "__main__":
    configure_logging(LogOptions())
    answer_requests(handle)
