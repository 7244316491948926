"""What commands share: their options, settings, store, output and exit statuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from lapse.settings import Settings
    from lapse.store.database import Database

T = TypeVar("T")

StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="The store of the sessions.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Log from DEBUG on.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but problems.")]


class Exit(IntEnum):
    """The exit statuses of every command; 2 is typer's, for a wrong command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ATTENTION = 3
    """The command worked, but needs attention: a check found problems, or a brake is set."""
    NOT_FOUND = 4


def open_settings(
    store: str | None, *, verbose: bool, quiet: bool = False, **overrides: object
) -> Settings:
    """Return the settings, and configure logging by them; `quiet`: from WARNING on at least.

    `overrides` are what options of the command give, by the settings' fields; None: not given.
    """
    import logging

    from lapse.settings import load_settings
    from lapse.telemetry.logs import LogLevel, configure_logging

    level = overrides.pop("log_level", None) or (LogLevel.DEBUG if verbose else None)
    settings = load_settings(store_url=store, log_level=level, **overrides)
    log = settings.log
    if quiet:
        log = replace(log, level=max(log.level, LogLevel.WARNING, key=logging.getLevelName))
    configure_logging(log)
    return settings


def one_store(url: str | None, store: str | None) -> str | None:
    """Return the URL that a command got, as its argument or by `--store`; None: by the settings."""
    if url is not None and store is not None and url != store:
        raise typer.BadParameter("name one store: by its URL, or by --store")
    return store if url is None else url


def open_store(settings: Settings) -> Database:
    """Return the configured store, not opened yet."""
    from lapse.store import store_from_url

    return store_from_url(settings.store_url, settings.rules, settings.connection)


def check_conversations(settings: Settings, command: str) -> None:
    """Refuse a command that works on ADK's tables, if the settings name another session service.

    Raises:
        NotWithThisServiceError: they do.
    """
    if settings.conversations_uri:
        from lapse.core.errors import NotWithThisServiceError

        raise NotWithThisServiceError(
            f"`lapse {command}` works on ADK's tables in the store, and LAPSE_CONVERSATIONS_URI "
            "names another session service for used sessions"
        )


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine. asyncio is imported here, because `lapse --help` does not need it."""
    import asyncio

    return asyncio.run(work)


@asynccontextmanager
async def ready_store(settings: Settings) -> AsyncIterator[Database]:
    """Provide the configured store inside the block, and close it. It never creates tables.

    Raises:
        StoreRefusedError: the store has no tables yet, or those of an older version.
    """
    from lapse.core.errors import StoreRefusedError
    from lapse.store.urls import place_of

    store = open_store(settings)
    try:
        if (await store.inspect()).script:
            raise StoreRefusedError(
                f"{place_of(settings.store_url)}: this store is empty or of an older version; is "
                "it the right one? A server creates or upgrades its tables at the start, or run "
                "`lapse migrate`"
            )
        yield store
    finally:
        await store.close()


def print_json(document: Any) -> None:
    """Print a document as indented JSON."""
    typer.echo(json.dumps(document, indent=2))


def narrow_table(*titles: str, whole: Collection[str]) -> Table:
    """Return a table for a terminal of 80 columns; the cells under `whole` stay on one line."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title in whole)
    return table


def acting_as() -> str:
    """Return the name for the audit log: `cli:USER@HOST`."""
    import getpass
    import socket

    from lapse.auth.principals import LONGEST_NAME

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())  # a container's user need not have a name
    return f"cli:{user}@{socket.gethostname()}"[:LONGEST_NAME]


def fail(sentence: str, status: Exit = Exit.FAILED) -> NoReturn:
    """Print `lapse: SENTENCE` to stderr, and exit with a status."""
    typer.echo(f"lapse: {sentence}", err=True)
    sys.exit(status)
