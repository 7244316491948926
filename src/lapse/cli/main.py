"""The command line: all commands, and how errors end them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lapse.cli.adoption import adopt, undo
from lapse.cli.audit import audit
from lapse.cli.check import check
from lapse.cli.command import Exit, fail, run_async
from lapse.cli.databases import copy, report
from lapse.cli.erase import erase
from lapse.cli.expire import expire, resurrect
from lapse.cli.export import export, import_
from lapse.cli.hold import hold_commands
from lapse.cli.migrate import migrate
from lapse.cli.process_title import hide_passwords
from lapse.cli.progress import progress_bar
from lapse.cli.retention import retention_commands
from lapse.cli.serve import serve
from lapse.cli.sessions import sessions, show, stats
from lapse.cli.simulate import simulate
from lapse.cli.sweep import sweep
from lapse.cli.ttl import ttl_commands
from lapse.core.errors import LapseError, NoSuchSessionError

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
app.command()(migrate)


@app.command()
def verify(
    url: Annotated[
        str | None,
        typer.Option(help="Use this running server instead of starting a temporary one."),
    ] = None,
) -> None:
    """Run the scenarios of a session's life on a server, and print which of them hold."""
    from lapse.testing import play

    raise typer.Exit(run_async(play(url, bar=progress_bar)))


for command in (report, adopt, undo, copy, simulate, audit):
    app.command()(command)
app.command()(export)
app.command("import")(import_)
app.command()(erase)
app.add_typer(ttl_commands, name="ttl")
app.add_typer(retention_commands, name="retention")
app.add_typer(hold_commands, name="hold")


def main() -> None:
    """Run the command line. Lapse's errors end it with one sentence and a status of `Exit`."""
    hide_passwords(sys.orig_argv)
    try:
        app()
    except NoSuchSessionError as error:
        fail(str(error), Exit.NOT_FOUND)
    except LapseError as error:
        fail(str(error))
