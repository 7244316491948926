"""Records of acts as JSON and CSV, for the command line, the pages and the API alike."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from typing import Any, Final

from lapse.audit.store import Act
from lapse.core.clock import iso
from lapse.core.keys import visible

_COLUMNS: Final = (
    "number",
    "at",
    "by",
    "action",
    "appName",
    "session",
    "sessionDigest",
    "detail",
)
_FORMULA: Final = re.compile("(?:^|(?<=[,;|]))(?=[=+@\uff1d\uff0b\uff20\uff0d-])")
"""The places where a spreadsheet may see a formula begin: at the beginning of a cell, and behind
what some spreadsheets take for the end of one, whatever the quotes say. Signs of full width count,
too."""


def act_json(act: Act) -> dict[str, Any]:
    """Return an act as JSON.

    `session` is the beginning of the session's id; `sessionDigest` tells sessions apart whose ids
    begin alike.
    """
    return {
        "number": act.number,
        "at": iso(act.at),
        "by": act.by,
        "action": act.action,
        "appName": act.app_name,
        "session": act.session,
        "sessionDigest": act.digest,
        "detail": dict(act.detail),
    }


def acts_csv_head() -> str:
    """Return the line of CSV that names the columns of `act_csv`."""
    return _csv_line(_COLUMNS)


def act_csv(act: Act) -> str:
    """Return an act as a line of CSV, in which a spreadsheet finds no formula.

    Characters that cannot be seen stand as their escapes.
    """
    number, *rest, detail = act_json(act).values()
    texts = (*rest, json.dumps(detail) if detail else "")
    return _csv_line([str(number), *(_inert(visible(text or "")) for text in texts)])


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(cells)
    return line.getvalue()


def _inert(cell: str) -> str:
    return _FORMULA.sub("'", cell)
