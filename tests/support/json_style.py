"""The one style of Lapse's JSON: camelCase names, and times in UTC with `Z`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_NAME = re.compile(r"[a-z][a-zA-Z0-9]*")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*")

OTHERS = {"metadata", "state", "stateDelta"}
"""What stands below these names is the users' own."""

NAMED_BY_DATA = {"apps", "tables", "days", "policies", "firstMessageWithinSeconds"}
"""The names in an object of these names are data: apps, tables, days, policies, shares."""


def faults(document: Any, where: str = "") -> Iterator[str]:
    """Yield where a document departs from the style."""
    if isinstance(document, dict):
        of_data = where.rpartition(".")[2] in NAMED_BY_DATA
        for name, value in document.items():
            place = f"{where}.{name}"
            if not of_data and not _NAME.fullmatch(name):
                yield f"{place}: not camelCase"
            if name not in OTHERS:
                yield from faults(value, place)
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from faults(value, f"{where}[{number}]")
    elif isinstance(document, str) and _TIME.fullmatch(document) and not document.endswith("Z"):
        yield f"{where}: {document} is no time in UTC with Z"
