"""PNG plots with matplotlib, which is imported only when a plot is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lapse.core.errors import InvalidValueError


@contextmanager
def figure(path: Path, *, rows: int = 1) -> Iterator[tuple[Any, ...]]:
    """Yield the axes of a figure, one for each row, and write the figure to `path` at the end.

    Raises:
        InvalidValueError: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        reason = "a plot needs matplotlib: pip install 'lapse[plot]'"
        raise InvalidValueError("--png", reason) from error
    drawn = Figure(figsize=(8, 3 * rows), layout="constrained")
    axes = drawn.subplots(rows, 1, squeeze=False)
    yield tuple(axes[:, 0])
    try:
        drawn.savefig(path, format="png", dpi=120)
    except OSError as error:
        reason = f"cannot write {path} ({error.strerror or error}); give another file"
        raise InvalidValueError("--png", reason) from error
