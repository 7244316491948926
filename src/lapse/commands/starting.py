"""What every command begins with: settings, logs and a store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from lapse.settings import Settings
    from lapse.store import Store

StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="Where sessions live.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Log at DEBUG, too.")]


def open_settings(store: str | None, *, verbose: bool) -> Settings:
    """Return the settings, and have logs written as they say."""
    from lapse.logs import configure_logging
    from lapse.settings import load_settings

    settings = load_settings(store_url=store)
    configure_logging(settings.log_format, verbose=verbose)
    return settings


def open_store(settings: Settings) -> Store:
    """Return the store that the settings name, not opened yet."""
    from lapse.stores import store_from_url

    return store_from_url(settings.store_url, settings.rules, settings.connection)


def fail(sentence: str) -> NoReturn:
    """Say what is wrong and end with status 1."""
    typer.echo(f"lapse: {sentence}", err=True)
    sys.exit(1)
