"""The commands for existing ADK databases: `lapse report` and `lapse copy`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapse.cli.command import (
    JsonOption,
    QuietOption,
    check_conversations,
    one_store,
    open_settings,
    print_json,
    run_async,
)
from lapse.cli.progress import progress_bar, waiting
from lapse.core.errors import InvalidValueError, NotWithThisServiceError

if TYPE_CHECKING:
    from lapse.databases.report import Report
    from lapse.settings import Settings


UrlArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="URL",
        help="sqlite:///FILE, postgresql://… or mysql://…; by default LAPSE_STORE_URL.",
    ),
]
SameStoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="The same as the argument.")
]


def report(
    url: UrlArgument = None,
    ttl_minutes: Annotated[
        float | None,
        typer.Option("--ttl", help="The TTL in minutes; by default SESSION_CLEANUP_TTL_MINUTES."),
    ] = None,
    as_json: JsonOption = False,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw the report (needs lapse\\[plot])."),
    ] = None,
    artifacts: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also count artifacts without a session in this folder: that of ADK's file "
            "artifact service, or of the agents.",
        ),
    ] = None,
    store: SameStoreOption = None,
    conversations: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Count the sessions of this session service instead, through its API; by default "
            "LAPSE_CONVERSATIONS_URI, if no database is named.",
        ),
    ] = None,
    apps: Annotated[
        list[str] | None,
        typer.Option("--app", help="With --conversations: an app to count; repeatable."),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(min=0.1, help="With --conversations: sessions read per second, at most."),
    ] = 50,
) -> None:
    """Count the empty sessions of an ADK database or session service, and change nothing."""
    from rich.console import Console

    from lapse.core.minutes import ttl_from_minutes
    from lapse.databases.report_table import show

    named = one_store(url, store)
    if named is not None and conversations is not None:
        raise typer.BadParameter("name a database, or --conversations")
    settings = open_settings(named, verbose=False, conversations_uri=conversations)
    ttl = settings.ttl if ttl_minutes is None else ttl_from_minutes(ttl_minutes, field="--ttl")
    if png is not None:
        _check_png(png)
    if settings.conversations_uri and named is None:
        found = _report_of_service(settings, apps or (), ttl, rate, artifacts)
    else:
        with waiting("counting"):
            found = run_async(report_of(settings.store_url, ttl, artifacts=artifacts))
    if as_json:
        print_json(found.document())
    else:
        show(found, Console())
    if png is not None:
        from lapse.databases.report_table import draw

        draw(found, png)


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The database to copy.")],
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TO",
            help="The store to fill: sqlite:///FILE or postgresql://…; by default LAPSE_STORE_URL.",
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    store: SameStoreOption = None,
) -> None:
    """Copy a whole database into another store, and compare the two.

    If it is stopped, call it again to continue.
    """
    from lapse.databases.copy import copy_database

    if quiet and as_json:
        raise typer.BadParameter("give only one of --quiet and --json")
    settings = open_settings(one_store(target, store), verbose=False, quiet=quiet)
    check_conversations(settings, "copy")
    with ExitStack() as stack:

        def bar(rows: int) -> Callable[[int], None]:
            return stack.enter_context(progress_bar("copying", rows, quiet=quiet))

        done = run_async(copy_database(source, settings.store_url, on_counted=bar))
    if as_json:
        print_json({"tables": {part.table: asdict(part) for part in done}})
        return
    for part in () if quiet else done:
        typer.echo(f"{part.table}: {part.rows:,} rows, checksum {part.checksum[:16]} on both sides")


def _report_of_service(
    settings: Settings, apps: Sequence[str], ttl: timedelta, rate: float, artifacts: Path | None
) -> Report:
    from lapse.adk.conversations_uri import service_from_uri
    from lapse.adk.elsewhere import Elsewhere
    from lapse.databases.conversations import report_of_service

    if not apps:
        raise InvalidValueError("--app", "name each app to count: a service lists sessions by app")
    if artifacts is not None:
        raise NotWithThisServiceError("`lapse report --artifacts` compares files with a database")
    uri = str(settings.conversations_uri)
    service = Elsewhere(service_from_uri(uri), settings.conversation_bounds)

    async def counted() -> Report:
        with ExitStack() as stack:

            def bar(sessions: int) -> Callable[[int], None]:
                return stack.enter_context(progress_bar("reading", sessions))

            try:
                return await report_of_service(service, uri, apps, ttl, rate=rate, on_listed=bar)
            finally:
                await service.close()

    return run_async(counted())


async def report_of(
    url: str,
    ttl: timedelta,
    *,
    older_than: timedelta = timedelta(0),
    artifacts: Path | None = None,
) -> Report:
    """Return the report of a database; with a folder of artifacts, also count their orphans."""
    from dataclasses import replace

    from lapse.databases.orphans import count_orphans
    from lapse.databases.readers import reader_of

    reader = reader_of(url)
    found = await reader.report(ttl, older_than)
    if artifacts is None:
        return found
    return replace(found, orphans=await count_orphans(artifacts, reader))


def _check_png(path: Path) -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise InvalidValueError("--png", "needs matplotlib: pip install 'lapse[plot]'")
    if not path.parent.is_dir():
        raise InvalidValueError(
            "--png", f"{path.parent}: there is no such folder; name one that exists"
        )
