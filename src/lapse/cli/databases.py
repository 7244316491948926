"""The commands for existing ADK databases: `lapse report` and `lapse copy`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapse.cli.command import (
    JsonOption,
    one_store,
    open_settings,
    print_json,
    run_async,
)
from lapse.cli.progress import progress_bar
from lapse.core.errors import InvalidValueError

if TYPE_CHECKING:
    from lapse.databases.report import Report


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
) -> None:
    """Count the empty sessions of an ADK database, and change nothing."""
    from rich.console import Console

    from lapse.core.minutes import ttl_from_minutes
    from lapse.databases.report_table import show

    settings = open_settings(one_store(url, store), verbose=False)
    ttl = settings.ttl if ttl_minutes is None else ttl_from_minutes(ttl_minutes, field="--ttl")
    if png is not None:
        _check_png(png)
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
    store: SameStoreOption = None,
) -> None:
    """Copy a whole database into another store, and compare the two.

    If it is stopped, call it again to continue.
    """
    from lapse.databases.copy import copy_database

    settings = open_settings(one_store(target, store), verbose=False)
    with progress_bar("copying", None) as advance:
        done = run_async(copy_database(source, settings.store_url, on_progress=advance))
    if as_json:
        print_json({"tables": {part.table: asdict(part) for part in done}})
        return
    for part in done:
        typer.echo(f"{part.table}: {part.rows:,} rows, checksum {part.checksum[:16]} on both sides")


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
        raise InvalidValueError("--png", f"{path.parent}: there is no such folder")
