"""`lapse stats`, `lapse sessions` and `lapse show`: print what a store holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lapse.cli.command import (
    JsonOption,
    StoreOption,
    narrow_table,
    open_settings,
    print_json,
    ready_store,
    run_async,
)
from lapse.cli.keys import KeyArgument, find_key, shown, shown_part
from lapse.core.numbers import sessions as sessions_in_words

if TYPE_CHECKING:
    from lapse.core.lifecycle import Lifecycle
    from lapse.overview.store import Overview, Query
    from lapse.retention.state import RetentionState
    from lapse.settings import Settings

_LARGEST_PAGE: Final = 500


def stats(
    store: StoreOption = None,
    hours: Annotated[
        float,
        typer.Option(
            min=0.1, max=840, help="Count the changes of the last HOURS hours.", metavar="HOURS"
        ),
    ] = 24,
    as_json: JsonOption = False,
) -> None:
    """Print the numbers of sessions, of recent changes, and how long anything is overdue."""
    settings = open_settings(store, verbose=False)
    since = timedelta(hours=hours)
    overview, unrecorded, retention = run_async(_overview(settings, since))
    from lapse.overview.json import overview_json
    from lapse.retention.json import standing_json

    document = overview_json(overview, since, unrecorded=unrecorded)
    document["retention"] = None if retention is None else standing_json(retention)
    if as_json:
        print_json(document)
    else:
        _print_stats(document, overview, hours)
        if retention is not None:
            _print_retention(retention)
        if not settings.cleanup_enabled:
            typer.echo("clean-up is switched off: SESSION_CLEANUP_ENABLED is false")


def sessions(
    store: StoreOption = None,
    status: Annotated[
        str | None,
        typer.Option(
            help="Only sessions with this stored status: waiting, used, expired or archived."
        ),
    ] = None,
    app_name: Annotated[
        str | None, typer.Option("--app", help="Only sessions of this app.")
    ] = None,
    user_id: Annotated[
        str | None, typer.Option("--user", help="Only sessions of this user.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Only sessions whose id begins with this.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="Maximum number of sessions.")
    ] = 50,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Continue where an earlier list ended.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the sessions that Lapse has records of, for example those with --status waiting."""
    from lapse.core.lifecycle import Status
    from lapse.overview.store import Query

    if status not in {None, Status.WAITING, Status.USED, Status.EXPIRED, Status.ARCHIVED}:
        raise typer.BadParameter(f"--status {status!r}: must be waiting, used, expired or archived")
    settings = open_settings(store, verbose=False)
    query = Query(
        None if status is None else Status(status), app_name, user_id, prefix, after=after
    )
    records, cursor, now = run_async(_list(settings, query, limit))
    if as_json:
        from lapse.overview.json import record_json

        found = [record_json(record, now) for record in records]
        print_json({"sessions": found, "next": cursor})
    else:
        _print_list(records, cursor)


def show(key: KeyArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Print the life of one session, whatever its status."""
    settings = open_settings(store, verbose=False)
    record, now = run_async(_show(settings, key))
    if as_json:
        from lapse.overview.json import record_json

        print_json(record_json(record, now))
    else:
        _print_record(record, now)


async def _overview(
    settings: Settings, since: timedelta
) -> tuple[Overview, int, RetentionState | None]:
    from lapse.overview.store import OverviewStore
    from lapse.retention.state import read_state

    async with ready_store(settings) as store:
        counts = OverviewStore(store)
        overview, unrecorded = await counts.overview(since=since), await counts.unrecorded()
        if settings.conversations_uri:
            return overview, unrecorded, None
        return overview, unrecorded, await read_state(store, settings.retention_file)


async def _list(
    settings: Settings, query: Query, limit: int
) -> tuple[list[Lifecycle], str | None, datetime]:
    """Return the first `limit` sessions of a query, the cursor of the next page, and the time."""
    from dataclasses import replace

    from lapse.core.clock import utc_now
    from lapse.overview.store import OverviewStore

    found: list[Lifecycle] = []
    async with ready_store(settings) as store:
        while True:
            size = min(limit - len(found), _LARGEST_PAGE)
            page = await OverviewStore(store).find(replace(query, size=size))
            found += page.records
            query = replace(query, after=page.next)
            if page.next is None or len(found) >= limit:
                return found, page.next, utc_now()


async def _show(settings: Settings, text: str) -> tuple[Lifecycle, datetime]:
    from lapse.core.errors import NoSuchSessionError
    from lapse.notices.store import NoticeStore

    async with ready_store(settings) as store:
        key = await find_key(store, text)
        snapshot = await NoticeStore(store).records([key])
    if key not in snapshot.records:
        raise NoSuchSessionError(
            f"session {key.named} does not exist: never created, purged or deleted; "
            "`lapse sessions` lists what there is"
        )
    return snapshot.records[key], snapshot.at


def _print_stats(document: dict[str, Any], overview: Overview, hours: float) -> None:
    from rich.console import Console

    titles = ("app", "waiting", "used", "expired", "created", "first\nmessages", "resurrected")
    table = narrow_table(*titles, whole=titles[1:])
    for column in table.columns[1:]:
        column.justify = "right"
    for part in (*document["apps"], document):
        levels, changes = part["sessions"], part["changes"]
        table.add_row(
            shown_part(part["appName"]) if "appName" in part else "all",
            *(f"{levels[status]:,}" for status in ("waiting", "used", "expired")),
            *(f"{changes[kind]:,}" for kind in ("created", "used", "resurrected")),
            end_section=part is document["apps"][-1] if document["apps"] else False,
        )
    console = Console()
    console.print(table)
    console.print(f"created, first messages, resurrected: in the last {hours:g} h", style="dim")
    if document["agentOnly"]:
        typer.echo(f"in {document['agentOnly']:,} of the waiting sessions only the agent spoke")
    if document["unrecorded"]:
        typer.echo(
            f"not among these: {document['unrecorded']:,} sessions of ADK's tables without a "
            "record, written by stock ADK or before Lapse; `lapse report` tells what they hold"
        )
    overdue = overview.overdue
    typer.echo(
        "nothing is overdue"
        if not overdue
        else f"the longest overdue session has been waiting for a sweep for {words(overdue)}"
    )
    typer.echo(
        "no sweeper has ever run on this store"
        if overview.swept_at is None
        else f"a sweeper worked {words(overview.now - overview.swept_at)} ago"
    )
    if overview.brake is not None:
        typer.echo(
            f"a brake ({overview.brake.reason}) holds every purge since "
            f"{overview.brake.since:%Y-%m-%d %H:%M:%S} UTC; review with `lapse sweep --dry-run`, "
            "then `lapse sweep --confirm`"
        )


def _print_retention(state: RetentionState) -> None:
    levels = state.levels
    if levels.archived or levels.pinned or levels.holds:
        typer.echo(
            f"archived: {levels.archived:,}; pinned: {levels.pinned:,}; holds: {levels.holds:,}"
        )
    if state.file is None:
        return
    typer.echo(
        "the retention policy is in force"
        if state.is_in_force
        else "the retention policy is not confirmed, so nothing is taken: `lapse retention check`"
    )
    if state.due:
        typer.echo(
            f"{sessions_in_words(state.due)} wait for a sweep by it, the first for "
            f"{words(state.overdue)}"
        )


def _print_list(records: list[Lifecycle], cursor: str | None) -> None:
    if not records:
        typer.echo("no such sessions", err=True)
    rows = [
        (
            str(record.status),
            _at(record.created_at),
            "-" if record.expires_at is None else _at(record.expires_at),
            shown(record.key),
        )
        for record in records
    ]
    if sys.stdout.isatty():
        _print_table(("status", "created", "deadline", "key"), rows)
    else:  # for cut and grep: never shortened, one tab between fields
        for row in rows:
            typer.echo("\t".join(row))
    if cursor is not None:
        typer.echo(f"there are more: --after {cursor}", err=True)


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console

    table = narrow_table(*titles, whole=titles[:-1])
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _print_record(record: Lifecycle, now: datetime) -> None:
    """Print a session's life as a timeline."""
    typer.echo(f"{shown(record.key)}: {record.status}")
    moments = [
        (record.created_at, "created"),
        (record.first_message_at, "had its first message"),
        (record.expired_at, "expired"),
        (record.expires_at if record.expired_at is None else None, "its deadline"),
        (record.restorable_until if record.expired_at else None, "can be resurrected until"),
        (record.archived_at, "archived"),
        (record.restorable_until if record.archived_at else None, "can be restored until"),
        (now, "now"),
    ]
    before: datetime | None = None
    for moment, what in sorted((at, what) for at, what in moments if at is not None):
        apart = "" if before is None else f"+{words(moment - before)}"
        typer.echo(f"  {_at(moment)}  {apart:>10}  {what}")
        before = moment
    if record.ttl is not None:
        times = "once" if record.resurrections == 1 else f"{record.resurrections} times"
        typer.echo(f"  TTL {words(record.ttl)}, resurrected {times}")
    if record.pinned or record.on_hold:
        exempt = ("pinned" * record.pinned, "on hold" * record.on_hold)
        typer.echo(f"  {' and '.join(filter(None, exempt))}: retention does not apply")
    if record.agent_spoke and not record.has_messages:
        typer.echo("  only the agent spoke; a message of the user makes it used")
    from lapse.overview.json import record_json

    if metadata := record_json(record, now)["metadata"]:
        typer.echo(_wrapped(json.dumps(metadata)))


def _wrapped(metadata: str) -> str:
    from textwrap import fill

    first, more = "  metadata ", " " * 11
    return fill(metadata, 80, initial_indent=first, subsequent_indent=more, break_on_hyphens=False)


def words(duration: timedelta) -> str:
    """Return a duration in its largest unit: `1.5 s`, `90 s`, `2.0 h`."""
    seconds = max(duration.total_seconds(), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - digits


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
