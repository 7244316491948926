"""`lapse audit`: prints the audit log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lapse.cli.command import (
    StoreOption,
    narrow_table,
    open_settings,
    ready_store,
    run_async,
)

if TYPE_CHECKING:
    from lapse.audit.store import Act, AuditLog
    from lapse.settings import Settings

_PAGE: Final = 1000
_SHOWN: Final = 50


class _Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def audit(
    store: StoreOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one record per line.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    newest: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Maximum number of records; default {_SHOWN}, or all with --json or --csv."
        ),
    ] = None,
    before: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Only records below this number.")
    ] = None,
) -> None:
    """Print who resurrected, expired, deleted or amended sessions by hand, the latest first."""
    if as_json and as_csv:
        raise typer.BadParameter("give only one of --json and --csv")
    settings = open_settings(store, verbose=False)
    shape = _Format.JSON if as_json else _Format.CSV if as_csv else _Format.TABLE
    if shape is _Format.TABLE and newest is None:
        newest = _SHOWN
    run_async(_audit(settings, shape, newest, before))


async def _audit(
    settings: Settings, shape: _Format, newest: int | None, before: int | None
) -> None:
    from lapse.audit.json import act_csv, act_json, acts_csv_head
    from lapse.audit.store import AuditLog

    async with ready_store(settings) as store:
        acts = _acts(AuditLog(store), newest, before)
        match shape:
            case _Format.TABLE:
                _print_table([act async for act in acts])
            case _Format.JSON:
                async for act in acts:
                    typer.echo(json.dumps(act_json(act)))
            case _Format.CSV:
                typer.echo(acts_csv_head(), nl=False)
                async for act in acts:
                    typer.echo(act_csv(act), nl=False)


async def _acts(log: AuditLog, newest: int | None, before: int | None) -> AsyncIterator[Act]:
    """Yield the newest records, read page by page; all of them if `newest` is None."""
    left = newest
    while left is None or left > 0:
        newest_of_page = _PAGE if left is None else min(_PAGE, left)
        page = await log.acts(newest=newest_of_page, before=before)
        for act in page:
            yield act
        if not page:
            return
        left, before = None if left is None else left - len(page), page[-1].number


def _print_table(acts: Sequence[Act]) -> None:
    from rich.console import Console
    from rich.text import Text

    titles = ("when", "who", "what", "app", "session", "detail")
    table = narrow_table(*titles, whole=("when", "session"))
    for act in acts:
        detail = ", ".join(f"{name} {value}" for name, value in act.detail.items())
        cells = (act.by, act.action, act.app_name or "", act.session or "", detail)
        table.add_row(f"{act.at:%Y-%m-%d %H:%M:%SZ}", *(Text(_printable(cell)) for cell in cells))
    Console().print(table)
    if not acts:
        typer.echo("nothing is recorded")


def _printable(text: str) -> str:
    """Return text without control characters, which a terminal would obey."""
    return "".join(one if one.isprintable() else "�" for one in text)
