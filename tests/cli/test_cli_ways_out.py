"""What a command says when it fails names a way out: what is right, or what to run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from sentences import WAY_OUT, called, is_sentence, sources, text_of

EVERYWHERE = {"StoreRefusedError", "NotWithThisServiceError", "BadParameter", "fail"}
"""Errors that people at a command line meet, wherever they are raised."""

OF_COMMANDS = {"InvalidValueError", "NoSuchSessionError", "SettingsError"}
"""Errors that are met there if a command, or what only commands use, raises them."""

FOLDERS = ("cli/", "databases/", "export/", "ttl/simulation/")
REASONS = {"databases/v0/rows.py: InvalidValueError", "databases/v0/values.py: InvalidValueError"}
"""Why a row cannot be migrated; `converted` in rows.py makes a sentence of it, with its way out."""

SERVED = ("adk/", "dashboard/")
"""What only requests meet, which have answers of their own."""


def sentences() -> Iterator[tuple[str, str]]:
    """Yield where each error is made, and what it says; none that only passes a text on."""
    for place, module in sources(without=SERVED):
        names = EVERYWHERE | (OF_COMMANDS if place.startswith(FOLDERS) else set())
        for node in ast.walk(module):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = called(node)
            # The first argument of an InvalidValueError is the field.
            said = text_of(node.args[-1] if name == "InvalidValueError" else node.args[0])
            is_whole = f"{place}: {name}" not in REASONS
            if name in names and is_whole and is_sentence(said):
                yield f"{place}: {name}", said


@pytest.mark.parametrize(("place", "said"), list(sentences()), ids=lambda text: text[:60])
def test_an_error_of_the_command_line_says_what_to_do_next(place, said):
    """Seen to fail with `there is no such folder of agents`, and 16 others as they were."""
    assert WAY_OUT.search(said), (place, said)


def test_the_sentences_are_found():
    assert len(list(sentences())) > 60
