"""What every command begins with: settings, logs and a store; and how it ends."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from lapse.settings import Settings
    from lapse.store.database import Database

T = TypeVar("T")

StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="Where sessions live.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Also log at DEBUG.")]


class Exit(IntEnum):
    """The exit statuses of every command; 2 is typer's, for a wrong command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ATTENTION = 3
    """It was done, and somebody has to look: a check found problems, a brake holds a sweep."""
    NOT_FOUND = 4


def open_settings(store: str | None, *, verbose: bool) -> Settings:
    """Return the settings, and have logs written as they say."""
    from lapse.settings import load_settings
    from lapse.telemetry.logs import configure_logging

    settings = load_settings(store_url=store)
    configure_logging(settings.log_format, verbose=verbose)
    return settings


def open_store(settings: Settings) -> Database:
    """Return the store that the settings name, not opened yet."""
    from lapse.store import store_from_url

    return store_from_url(settings.store_url, settings.rules, settings.connection)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Do a command's work; `lapse --help` needs no event loop, whose import is a fifth of it."""
    import asyncio

    return asyncio.run(work)


@asynccontextmanager
async def ready_store(settings: Settings) -> AsyncIterator[Database]:
    """Hold the store that the settings name, which is there: who only looks creates nothing.

    Raises:
        StoreRefusedError: nothing is there yet, or it is of an older version.
    """
    from lapse.core.errors import StoreRefusedError

    store = open_store(settings)
    try:
        if (await store.inspect()).script:
            raise StoreRefusedError(
                "the store is empty or of an older version; is it the right one? A server brings "
                "it up to date when it starts, or `lapse migrate`"
            )
        yield store
    finally:
        await store.close()


def print_json(document: Any) -> None:
    """Print what a script reads."""
    typer.echo(json.dumps(document, indent=2))


def acting_as() -> str:
    """Return who acts, as it is recorded: who is logged in, on which host."""
    import getpass
    import socket

    from lapse.auth.principals import LONGEST_NAME

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())  # a container's user need not have a name
    return f"cli:{user}@{socket.gethostname()}"[:LONGEST_NAME]


def fail(sentence: str, status: Exit = Exit.FAILED) -> NoReturn:
    """Say what is wrong and end."""
    typer.echo(f"lapse: {sentence}", err=True)
    sys.exit(status)
