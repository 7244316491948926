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
"""How a cell begins that a spreadsheet would work out."""


def act_json(act: Act) -> dict[str, Any]:
    """Return what somebody did; `session` is the beginning of an id."""
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
    """Return the first line of acts as CSV."""
    return _csv_line(_COLUMNS)


def act_csv(act: Act) -> str:
    """Return what somebody did as a line of CSV, in which a spreadsheet finds no formula."""
    number, *rest, detail = act_json(act).values()
    texts = (*rest, json.dumps(detail) if detail else "")
    return _csv_line([str(number), *(_inert(text or "") for text in texts)])


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
