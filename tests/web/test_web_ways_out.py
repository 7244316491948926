"""What an answer over HTTP says that refuses a request names a way out, and so does every error.

`tests/cli/test_cli_ways_out.py` says the same of the command line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

import pytest

from sentences import WAY_OUT, called, is_sentence, sources, text_of

AT_A_COMMAND_LINE = ("cli/", "databases/", "export/", "demo/", "ttl/simulation/")
"""What no request and no program meets; the command line has its own guard."""

ANSWERS = {
    "HTTPException": 1,
    "Refusal": 1,
    "Fault": 1,
    "too_large": 0,
    "_refuse": 1,
    "_answer": 1,
    "_fault": 1,
    "_wrong_status": 1,
    "NotAuthenticatedError": 0,
}
"""Calls that make an answer, and which argument is the text."""

ADKS = {
    "Session not found",
    "Session with id {} already exists.",
    "Session {} not found.",
    "App not found: {}",
    "Agent not found: {}.",
    "has a key already bound by the endpoint: {}",
    "app_name is required when ADK_DEFAULT_APP_NAME is not set",
}
"""ADK's own words, which its clients know."""

INSIDE = {"LostError", "LaneClosedError", "RefusedError"}
"""Errors that are caught before anybody reads them."""

OF_TWO_PARTS = {"session {} is {}: {}"}
"""What the way out is added to, by another call of `ANSWERS`."""

NO_SENTENCES = {"adk/v0.py"}
"""Why a row cannot be migrated; `converted` of databases/v0/rows.py makes a sentence of it."""


def errors() -> Mapping[str, int]:
    """Return the names of Lapse's errors, and which argument of each is its text."""
    bases: dict[str, set[str]] = {}
    for _, module in sources():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base) for base in node.bases}
    found = {"LapseError": 0, "InvalidValueError": 1}
    while more := {
        name: max(found[base] for base in of & found.keys())
        for name, of in bases.items()
        if name not in found and of & found.keys()
    }:
        found |= more
    return {name: place for name, place in found.items() if name not in INSIDE}


def texts_of(node: ast.expr, module: ast.Module) -> Iterator[str]:
    """Yield what an argument says: a literal, each literal that a name stands for."""
    if isinstance(node, ast.IfExp):
        yield from texts_of(node.body, module)
        yield from texts_of(node.orelse, module)
    elif not isinstance(node, ast.Name):
        yield text_of(node)
    else:
        for one in ast.walk(module):
            targets = one.targets if isinstance(one, ast.Assign) else [getattr(one, "target", None)]
            named = any(isinstance(target, ast.Name) and target.id == node.id for target in targets)
            if named and isinstance(value := getattr(one, "value", None), ast.expr):
                yield from texts_of(value, module) if not isinstance(value, ast.Name) else ()


def sentences() -> Iterator[tuple[str, str]]:
    """Yield where each refusal is made, and what it says; none that only passes a text on."""
    places = {**errors(), **ANSWERS}
    for place, module in sources(without=AT_A_COMMAND_LINE):
        for node in ast.walk(module):
            said: ast.expr | None = None
            if isinstance(node, ast.Call) and (which := places.get(called(node))) is not None:
                texts = {word.arg: word.value for word in node.keywords}
                said = node.args[which] if len(node.args) > which else texts.get("detail")
            elif isinstance(node, ast.Dict):
                keys = [text_of(key) if key else "" for key in node.keys]
                said = node.values[keys.index("detail")] if "detail" in keys else None
            if said is None or place in NO_SENTENCES:
                continue
            for text in texts_of(said, module):
                if is_sentence(text) and text not in ADKS | OF_TWO_PARTS:
                    yield place, text


@pytest.mark.parametrize(("place", "said"), list(sentences()), ids=lambda text: text[:60])
def test_a_refusal_says_what_to_do_next(place, said):
    """Seen to fail with `users may not call this`, and 93 others as they were."""
    assert WAY_OUT.search(said), (place, said)


def test_the_sentences_are_found():
    assert len(list(sentences())) > 150
