"""Mutants are made of every statement, live while they are asked to, and their page is whole."""

import re
from pathlib import Path

import mutants
import sql_mutants
from sql_mutants import STATEMENTS, WORDED, Mutant

ROOT = Path(__file__).parents[3]


def worded(store, name):
    """Return what the process runs for a statement, in each of its wordings."""
    return [repr(one.run[name]) for one in WORDED[store] if name in one.run]


async def test_mutants_are_made_of_every_statement_of_both_stores():
    made = {(one.store, one.name) for one in await sql_mutants.mutants()}
    assert {name for store, name in made if store == "sqlite"} == set(STATEMENTS)
    assert {name for store, name in made if store == "postgres"} == set(STATEMENTS)
    assert {name for store, name in made if store == "combined"} == {
        "create",
        "first_message",
        "append",
    }


def test_a_mutant_lives_in_each_wording_of_its_statement_and_leaves_no_trace():
    """Seen to fail where the wording for calls that change no shared state stays whole."""
    for store, edge in (("sqlite", "json_array_length(held_events) "), ("postgres", "events) ")):
        text = WORDED[store][0].texts["hold_words"]
        start = text.index(f"{edge}< :most_events") + len(edge)
        before = worded(store, "hold_words")
        assert len(before) == 2
        with Mutant(store, "hold_words", start, start + 1, ">=").alive():
            assert all(f"{edge}>= " in one for one in worded(store, "hold_words"))
        assert worded(store, "hold_words") == before


def test_a_change_of_what_one_wording_lacks_leaves_that_one_whole():
    text = WORDED["postgres"][0].texts["hold_words"]
    start = text.index("<= :largest_shared_state")
    whole, plain = worded("postgres", "hold_words")
    with Mutant("postgres", "hold_words", start, start + 2, ">").alive():
        changed = worded("postgres", "hold_words")
        assert changed[0] != whole
        assert changed[1] == plain


def test_the_page_tells_what_survives_and_why():
    """Seen to fail with a survivor that nobody has looked at."""
    text = (ROOT / "bench" / "mutants.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    assert [name for name, *_ in rows] == list(mutants.STORES.values())
    for _, *counts in rows:
        judged, by_history, by_suite, alive = map(int, counts)
        assert judged == by_history + by_suite + alive
    assert "not explained" not in text
    assert "## The core" in text
