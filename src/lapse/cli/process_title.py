"""Hides passwords from the list of processes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import typer

_PASSWORD: Final = re.compile(r"(://[^:@/]*:).*(?=@)|((?:^|[?&])password=)[^&]*")


def hide_passwords(arguments: Sequence[str]) -> None:
    """Replace passwords in URLs in the process title, which `ps` shows, and print a warning.

    They were visible until now, so the warning names environment variables to use instead.
    """
    shown = [_PASSWORD.sub(r"\1\2***", argument) for argument in arguments]
    if shown == list(arguments):
        return
    from setproctitle import setproctitle

    setproctitle(" ".join(shown))
    typer.echo(
        "lapse: the list of processes showed the password on the command line; it is hidden from "
        "now on. Put the URL into LAPSE_STORE_URL, or the password into PGPASSWORD",
        err=True,
    )
