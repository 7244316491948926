"""`lapse sweep`: what a server's sweeper does, by itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lapse.commands.starting import StoreOption, VerboseOption, fail, open_settings, open_store

if TYPE_CHECKING:
    from lapse.settings import Settings

_WATCH_SLEEP: Final = timedelta(seconds=1)
"""A sweeper by itself hears of no deadline that others make; looking is cheap."""


def sweep(
    store: StoreOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on sweeping until stopped by a signal.")
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Expire what is due and purge what is past restoring, and say what was done."""
    settings = open_settings(store, verbose=verbose)
    if not settings.cleanup_enabled:
        fail("SESSION_CLEANUP_ENABLED is false: nothing may be swept")
    asyncio.run(_watch(settings) if watch else _sweep(settings))


async def _sweep(settings: Settings) -> None:
    from lapse.braking import Brakes
    from lapse.changes import Feed
    from lapse.logs import log_change
    from lapse.sweeper import sweep_once

    store = open_store(settings)
    feed = Feed()
    feed.subscribe(log_change)
    brakes = Brakes(settings.brakes)
    expired = purged = kept = 0
    try:
        while True:
            report = await sweep_once(store, feed, brakes=brakes)
            expired, purged, kept = (
                expired + report.expired,
                purged + report.purged,
                kept + report.kept,
            )
            if not report.full:
                break
    finally:
        await store.close()
    typer.echo(f"expired {expired}, purged {purged}, kept {kept}")
    if report.braking.brake is not None:
        fail("the brake is set: nothing was purged; look, then `lapse sweep --confirm`")


async def _watch(settings: Settings) -> None:
    from lapse.adopt.continuous import Adopter
    from lapse.changes import Feed
    from lapse.logs import log_change, log_sweep
    from lapse.policy import TtlPolicy
    from lapse.settings import Adopt
    from lapse.sweeper import Sweeper

    store = open_store(settings)
    await store.open()
    feed = Feed()
    feed.subscribe(log_change)
    policy = TtlPolicy(store, settings.targets, settings.ttl_policy, feed)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(
                Sweeper(
                    store,
                    feed,
                    on_report=log_sweep,
                    brakes=settings.brakes,
                    longest_sleep=_WATCH_SLEEP,
                )
            )
            if settings.adopt is not Adopt.OFF:
                adopter = Adopter(store, feed, scope=settings.adopt, ttl=settings.ttl)
                await stack.enter_async_context(adopter.running())
            await policy.start()
            typer.echo("sweeping until stopped", err=True)
            await stop.wait()
    finally:
        await policy.stop()
        await store.close()
