"""`lapse sweep`: does the work of a server's sweeper, once or until it is stopped."""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lapse.cli.command import (
    Exit,
    JsonOption,
    QuietOption,
    StoreOption,
    VerboseOption,
    acting_as,
    fail,
    open_settings,
    print_json,
    ready_store,
    run_async,
)
from lapse.cli.ports import address, listen, within_files
from lapse.cli.progress import progress_bar
from lapse.core.numbers import sessions

if TYPE_CHECKING:
    import socket

    from lapse.settings import Settings
    from lapse.store.database import Database
    from lapse.sweep.rules import Brake, Dues
    from lapse.sweep.sweeper import SweepReport

_MOST_COUNTED: Final = 1_000_000
_LONG: Final = 1000
"""A sweep of more sessions shows a progress bar."""


def sweep(
    store: StoreOption = None,
    once: Annotated[
        bool, typer.Option("--once", help="Sweep until nothing is due; this is the default.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Sweep until a signal comes.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")
    ] = False,
    host: Annotated[str, typer.Option(help="The address of --port.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="With --watch: answer at /livez, /readyz and /metrics on this port.",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Answer beyond this machine, to whoever asks."),
    ] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Release the brake before the sweep.")
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Expire and purge the sessions that are due, and print what was done.

    `--verbose` also logs a line for each session, as servers do.

    Exits with status 3 if a brake stops the purge.
    """
    if once + watch + dry_run > 1:
        raise typer.BadParameter("give only one of --once, --watch and --dry-run")
    if dry_run and confirm:
        raise typer.BadParameter("give only one of --dry-run, which changes nothing, and --confirm")
    if port is not None and not watch:
        raise typer.BadParameter("--port needs --watch: another sweep ends before anybody asks it")
    if watch and as_json:
        raise typer.BadParameter("--watch prints no JSON; set LAPSE_LOG_FORMAT=json for its log")
    if quiet and (verbose or watch or dry_run or as_json):
        raise typer.BadParameter("--quiet excludes --verbose, --watch, --dry-run and --json")
    settings = open_settings(store, verbose=verbose, quiet=quiet)
    if not settings.cleanup_enabled:
        fail("SESSION_CLEANUP_ENABLED is false, so nothing is swept; set it to true")
    if dry_run:
        _print_dues(run_async(_dues(settings)), as_json=as_json)
        return
    if confirm:
        run_async(_confirm(settings))
    if watch:
        with _listening(host, port, settings, insecure=insecure) as listener:
            run_async(_watch(settings, listener))
    else:
        total = run_async(_sweep(settings, verbose=verbose, quiet=quiet))
        _print_total(total, as_json=as_json, quiet=quiet)


def _listening(
    host: str, port: int | None, settings: Settings, *, insecure: bool
) -> AbstractContextManager[socket.socket | None]:
    """Return the socket of `--port`, if there is one.

    It ends the command if whoever reaches it could read the metrics, and nobody has said so.
    """
    from lapse.auth.addresses import is_loopback

    if port is None:
        return nullcontext()
    is_open = settings.sweepers_metrics is None and not settings.metrics_open
    if is_open and not insecure and not is_loopback(host):
        fail(
            f"--host {host}: without a token everybody who reaches this address could read the "
            "metrics; set LAPSE_METRICS_TOKEN (see docs/metrics.md), listen on 127.0.0.1, or give "
            "--insecure"
        )
    return listen(host, port)


async def _dues(settings: Settings) -> Dues:
    from lapse.sweep.store import SweepStore

    async with ready_store(settings) as store:
        return await SweepStore(store).dues(most=_MOST_COUNTED)


def _print_dues(dues: Dues, *, as_json: bool) -> None:
    from lapse.overview.json import brake_json, dues_json

    if as_json:
        brake = None if dues.brake is None else brake_json(dues.brake)
        print_json({"dryRun": True, **dues_json(dues), "brake": brake})
    else:
        more = " or more" if max(dues.expire, dues.purge) >= _MOST_COUNTED else ""
        typer.echo(
            f"would expire {dues.expire:,} and purge {dues.purge:,}{more}, of {dues.stored:,}"
        )
    if dues.brake is not None:
        typer.echo(f"lapse: {_held(dues.brake)}", err=True)
        raise typer.Exit(Exit.ATTENTION)


async def _confirm(settings: Settings) -> None:
    from lapse.audit.store import AuditLog
    from lapse.sweep.brake import confirm

    by = acting_as()
    async with ready_store(settings) as store:
        brake = await confirm(store, by)
        if brake is None:
            typer.echo("no brake is set", err=True)
            return
        detail = {"reason": str(brake.reason), "sessions": brake.sessions}
        await AuditLog(store).record_act(by, "confirmed", detail)
    typer.echo(f"released the brake ({brake.reason})", err=True)


async def _sweep(settings: Settings, *, verbose: bool, quiet: bool) -> SweepReport:
    import logging

    from lapse.app import Lapse
    from lapse.audit.store import AuditLog
    from lapse.sweep.store import SweepStore
    from lapse.sweep.sweeper import SweepReport

    lapse, total = Lapse(settings=settings, notes_artifacts=True), SweepReport(full=True)
    store = lapse.store
    try:
        ahead = None if verbose or quiet else await _ahead(store)
        if not verbose:  # the summary says it in one line
            logging.getLogger("lapse.changes").setLevel(logging.WARNING)
            logging.getLogger("lapse.sweeps").setLevel(logging.WARNING)
        with progress_bar("sweeping", ahead) if ahead else nullcontext() as advance:
            while total.full:
                total += await lapse.sweeper.sweep()
                if advance is not None:
                    advance(sum(total.counts().values()))
        await SweepStore(store).mark_swept()
        await lapse.maintenance.run()
        if total.did_something:
            await AuditLog(store).record_act(acting_as(), "swept", total.counts())
    finally:
        await store.close()
    return total


async def _ahead(store: Database) -> int | None:
    """Return how many sessions are due, or None if no progress bar is worth showing."""
    from lapse.sweep.store import SweepStore

    if not sys.stderr.isatty():
        return None
    dues = await SweepStore(store).dues(most=_MOST_COUNTED)
    due = dues.expire + (0 if dues.brake else dues.purge)
    return due if due > _LONG else None


def _print_total(total: SweepReport, *, as_json: bool, quiet: bool) -> None:
    brake = total.braking.brake
    if as_json:
        from lapse.overview.json import brake_json

        print_json({**total.counts(), "brake": None if brake is None else brake_json(brake)})
    elif not quiet:
        typer.echo(f"expired {total.expired}, purged {total.purged}, kept {total.kept}")
    if brake is not None:
        fail(_held(brake), Exit.ATTENTION)


def _held(brake: Brake) -> str:
    """Return one sentence on a brake: until when, why, and what to do."""
    from lapse.sweep.rules import BrakeReason

    match brake.reason:
        case BrakeReason.SHARE:
            why = f"{sessions(brake.sessions)} would be purged, a large share of all"
        case BrakeReason.CLOCK:
            why = f"the store's clock jumped ahead by {brake.jump}"
    return (
        f"a brake is set, and nothing is purged before {brake.until:%Y-%m-%d %H:%M:%S} UTC: {why}; "
        "review with `lapse sweep --dry-run`, then `lapse sweep --confirm`"
    )


async def _watch(settings: Settings, listener: socket.socket | None) -> None:
    import asyncio

    from lapse.app import Lapse
    from lapse.sweep.sweeper import SHORT_SLEEP

    # `lapse sweep` sweeps also with LAPSE_SWEEPER=off, which is meant for servers.
    swept = settings.model_copy(update={"sweeper": True})
    lapse = Lapse(settings=swept, notes_artifacts=True)
    lapse.sweeper.longest_sleep = SHORT_SLEEP
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    answers: AbstractAsyncContextManager[None] = nullcontext()
    told = "sweeping until stopped"
    if listener is not None:
        from lapse.cli.answering import answering

        answers = answering(lapse.sweeper_app(), listener, within_files(settings.bounds))
        told = f"{told}; {address(listener)} has /livez, /readyz and /metrics"
    async with lapse, answers:
        typer.echo(told, err=True)
        await stop.wait()
