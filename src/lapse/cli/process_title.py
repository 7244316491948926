"""What a list of processes shows of a command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import typer

_PASSWORD: Final = re.compile(r"(://[^:@/]*:).*(?=@)|((?:^|[?&])password=)[^&]*")


def hide_passwords(arguments: Sequence[str]) -> None:
    """Take the passwords of URLs out of what `ps` shows, and say that they were there.

    Whoever looked before this ran has seen them: the way out is the environment.
    """
    shown = [_PASSWORD.sub(r"\1\2***", argument) for argument in arguments]
    if shown == list(arguments):
        return
    from setproctitle import setproctitle

    setproctitle(" ".join(shown))
    typer.echo(
        "lapse: a password on the command line shows in the list of processes; it is hidden "
        "from now on. Put the URL into LAPSE_STORE_URL, or the password into PGPASSWORD",
        err=True,
    )
