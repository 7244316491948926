"""The command line: all commands, and how errors end them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lapse.cli.adoption import adopt, undo
from lapse.cli.audit import audit
from lapse.cli.check import check
from lapse.cli.command import Exit, StoreOption, fail, open_settings, open_store, run_async
from lapse.cli.databases import copy, report
from lapse.cli.expire import expire, resurrect
from lapse.cli.process_title import hide_passwords
from lapse.cli.serve import serve
from lapse.cli.sessions import sessions, show, stats
from lapse.cli.simulate import simulate
from lapse.cli.sweep import sweep
from lapse.cli.ttl import ttl_commands
from lapse.core.errors import LapseError, NoSuchSessionError

if TYPE_CHECKING:
    from lapse.store.database import Database

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # ADK's commands spell options with underscores.
    context_settings={"token_normalize_func": lambda token: token.replace("_", "-")},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from lapse import __version__

        typer.echo(f"lapse {__version__}")
        raise typer.Exit


@app.callback()
def lapse(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """The session life-cycle layer for agents built with Google's ADK."""


app.command()(serve)
app.command()(sweep)
for operate in (check, stats, sessions, show, resurrect, expire):
    app.command()(operate)


@app.command()
def migrate(
    store: StoreOption = None,
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the SQL instead of running it.")
    ] = False,
) -> None:
    """Create or upgrade a store's tables, for servers whose database role may not do that."""
    settings = open_settings(store, verbose=False)
    run_async(_migrate(open_store(settings), print_only=print_only))


@app.command()
def verify(
    url: Annotated[
        str | None,
        typer.Option(help="Use this running server instead of starting a temporary one."),
    ] = None,
) -> None:
    """Run the scenarios of a session's life on a server, and print which of them hold."""
    from lapse.verify import play

    raise typer.Exit(run_async(play(url)))


for command in (report, adopt, undo, copy, simulate, audit):
    app.command()(command)
app.add_typer(ttl_commands, name="ttl")


def main() -> None:
    """Run the command line. Lapse's errors end it with one sentence and a status of `Exit`."""
    hide_passwords(sys.orig_argv)
    try:
        app()
    except NoSuchSessionError as error:
        fail(str(error), Exit.NOT_FOUND)
    except LapseError as error:
        fail(str(error))


async def _migrate(store: Database, *, print_only: bool) -> None:
    try:
        script = (await store.inspect()).script
        if print_only:
            typer.echo(script, nl=False)
            return
        await store.open()
        typer.echo("the tables were brought up to date" if script else "nothing to do")
    finally:
        await store.close()
