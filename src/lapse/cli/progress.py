"""Progress bars on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def waiting(title: str, *, quiet: bool = False) -> Iterator[None]:
    """Show how long the block has run, for work of a database that reports no progress.

    It shows nothing unless stderr is a terminal, or if `quiet` is true.
    """
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(title, total=None)
        yield


@contextmanager
def progress_bar(
    title: str, total: int | None, *, quiet: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar while the block runs, if stderr is a terminal and `quiet` is false.

    The block calls the function it gets with the amount done so far.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)

        def advance(done: int) -> None:
            over = total is not None and done > total
            progress.update(task, completed=done, total=done if over else total)

        yield advance
