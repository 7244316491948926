"""Records of acts as JSON and CSV, for the command line, the pages and the API alike."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any, Final

from lapse.audit.store import Act
from lapse.core.clock import iso

_COLUMNS: Final = ("number", "at", "by", "action", "appName", "session", "detail")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""The beginnings of a cell that a spreadsheet takes for a formula."""


def act_json(act: Act) -> dict[str, Any]:
    """Return an act as JSON; `session` is the beginning of the session's id."""
    return {
        "number": act.number,
        "at": iso(act.at),
        "by": act.by,
        "action": act.action,
        "appName": act.app_name,
        "session": act.session,
        "detail": dict(act.detail),
    }


def acts_csv_head() -> str:
    """Return the line of CSV that names the columns of `act_csv`."""
    return _csv_line(_COLUMNS)


def act_csv(act: Act) -> str:
    """Return an act as a line of CSV, in which a spreadsheet finds no formula."""
    number, *rest, detail = act_json(act).values()
    texts = (*rest, json.dumps(detail) if detail else "")
    return _csv_line([str(number), *(_inert(text or "") for text in texts)])


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
