"""JSON documents, state by scope, metadata and the TTL in minutes."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapse.core.documents import (
    LARGEST_METADATA,
    StateDelta,
    check_metadata,
    encode,
    merge_state,
    split_state,
    update_document,
)
from lapse.core.errors import InvalidValueError
from lapse.core.minutes import minutes_of, ttl_from_minutes

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
JSON = st.recursive(
    SCALARS.filter(lambda value: value not in {float("inf"), float("-inf")}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=4)


@given(JSON)
def test_a_document_reads_back_and_is_encoded_as_adk_encodes_it(value):
    text = encode(value, what="state")
    assert json.loads(text) == value
    assert text == json.dumps(value)
    assert text.isascii()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": "x\0y"}, "NUL"),
        ({"a\0": 1}, "NUL"),
        ({"a": ["\\\0"]}, "NUL"),
        ({"a": float("nan")}, "must be expressible as JSON"),
        ([float("inf")], "must be expressible as JSON"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": "\udc00 \ud83d"}, "surrogate"),
        ({"a": object()}, "must be expressible as JSON"),
        ({"a": b"bytes"}, "must be expressible as JSON"),
    ],
)
def test_a_value_that_not_every_store_can_hold_is_refused(value, reason):
    with pytest.raises(InvalidValueError, match=reason) as refused:
        encode(value, what="state")
    assert refused.value.field == "state"


def test_a_value_that_contains_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(InvalidValueError):
        encode(value, what="state")


@pytest.mark.parametrize("value", ["\\u0000", "\\\\u0000", "😀", "\\ud800", "x\\"])
def test_a_harmless_value_that_looks_dangerous_is_kept(value):
    assert json.loads(encode(value, what="state")) == value


def test_state_is_split_by_scope_and_temporary_keys_are_dropped():
    state = {"a": 1, "app:b": 2, "user:c": 3, "temp:d": 4, "app:": 5, "application:e": 6}
    delta = split_state(state)
    assert delta == StateDelta({"b": 2, "": 5}, {"c": 3}, {"a": 1, "application:e": 6})


@given(OBJECTS, OBJECTS, OBJECTS)
def test_merged_state_can_be_split_into_its_scopes_again(session, app, user):
    session = {"own " + name: value for name, value in session.items()}
    assert split_state(merge_state(session, app, user)) == StateDelta(app, user, session)


@given(st.none() | OBJECTS, OBJECTS)
def test_a_document_is_updated_by_its_top_level_keys(old, change):
    text = None if old is None else json.dumps(old)
    assert json.loads(update_document(text, json.dumps(change))) == {**(old or {}), **change}


def test_metadata_may_be_as_large_as_the_limit_and_no_larger():
    filling = LARGEST_METADATA - len('{"a": ""}')
    assert check_metadata({"a": "x" * filling})
    with pytest.raises(InvalidValueError, match=f"{LARGEST_METADATA} bytes"):
        check_metadata({"a": "x" * (filling + 1)})


@pytest.mark.parametrize("value", [None, [], "text", 7, {1: 2}, {"a": "\0"}, {"a": {1, 2}}])
def test_metadata_that_is_not_a_json_object_is_refused(value):
    with pytest.raises(InvalidValueError) as refused:
        check_metadata(value)
    assert refused.value.field == "metadata"


@pytest.mark.parametrize(
    ("minutes", "ttl"),
    [
        (30, timedelta(minutes=30)),
        (0.05, timedelta(seconds=3)),
        (1 / 60_000, timedelta(milliseconds=1)),
        (43_200, timedelta(days=30)),
    ],
)
def test_a_ttl_is_read_and_written_in_minutes(minutes, ttl):
    assert ttl_from_minutes(minutes, field="ttl") == ttl
    assert minutes_of(ttl) == pytest.approx(minutes)


def test_whole_minutes_are_written_as_integers():
    assert repr(minutes_of(timedelta(minutes=30))) == "30"
    assert repr(minutes_of(timedelta(seconds=90))) == "1.5"


@pytest.mark.parametrize(
    "minutes",
    [0, -1, 1e-9, 43_201, float("nan"), float("inf"), 10**400, True, None, "30", [30]],
    ids=lambda minutes: repr(minutes)[:9],
)
def test_minutes_that_are_no_valid_ttl_are_refused_with_the_name_of_the_field(minutes):
    with pytest.raises(InvalidValueError) as refused:
        ttl_from_minutes(minutes, field="ttlMinutes")
    assert refused.value.field == "ttlMinutes"
