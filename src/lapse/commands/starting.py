"""What every command begins with: settings, logs, a store, and errors in one sentence."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
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
    """Return the settings and have logs written as they say; end with a sentence if wrong."""
    from lapse.errors import SettingsError
    from lapse.logs import configure_logging
    from lapse.settings import load_settings

    try:
        settings = load_settings(store_url=store)
    except SettingsError as error:
        fail(str(error))
    configure_logging(settings.log_format, verbose=verbose)
    return settings


def open_store(settings: Settings) -> Store:
    """Return the store that the settings name, not opened yet."""
    from lapse.stores import store_from_url

    return store_from_url(settings.store_url, settings.rules, settings.connection)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn Lapse's own errors into one sentence and exit status 1."""
    from lapse.errors import LapseError

    try:
        yield
    except LapseError as error:
        fail(str(error))


def fail(sentence: str) -> NoReturn:
    """Say what is wrong and end with status 1."""
    typer.echo(f"lapse: {sentence}", err=True)
    sys.exit(1)
