"""What errors say, read from the source, and whether it names a way out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parents[2] / "src" / "lapse"

WAY_OUT: Final = re.compile(
    r"`lapse |--[a-z]|LAPSE_[A-Z]|pip install|\bmust\b|\bneeds?\b|\bwrite %2F|\bis for\b|"
    r"; (?:\w+ )*?(?:run|use|set|give|name|put|let|look|export|upgrade|try|point|restore|ask|"
    r"copy|move|stop|start|restart|bring|delete|say|free|change|choose|create|remove|wait|"
    r"send|read|repeat|close|check|release|go|come|begin|mend|call)\b|"
    r"^(?:name|say|give)\b|: (?:name|say|give|pick|use|go|look)\b|\bADK looks for\b|"
    r"\b(?:goes?|give) (?:only|with|none|one)\b"
)
"""What is right, or what to do: of a command line and of an answer over HTTP."""


def text_of(node: ast.expr) -> str:
    """Return the text of a literal; what is filled in is `{}`."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(text_of, parts))
        case ast.FormattedValue():
            return "{}"
        case ast.BinOp(left=left, right=right):
            return text_of(left) + text_of(right)
        case ast.IfExp(body=one, orelse=other):
            return text_of(one) + text_of(other)
        case _:
            return ""


def is_sentence(text: str) -> bool:
    """Return whether a text has words of its own, besides what is filled in."""
    return re.search(r"[a-z]{3}.* [a-z]{3}", text) is not None


def sources(*, without: tuple[str, ...] = ()) -> Iterator[tuple[str, ast.Module]]:
    """Yield the place of each file of the source below `lapse/`, and what it says, parsed."""
    for file in sorted(SOURCE.rglob("*.py")):
        place = str(file.relative_to(SOURCE))
        if not place.startswith(without):
            yield place, ast.parse(file.read_text("utf-8"))


def called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    return str(getattr(node.func, "id", getattr(node.func, "attr", "")))
