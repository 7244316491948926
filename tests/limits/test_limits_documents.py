"""Reading JSON: what is measured is what a parser would make of it, and what is bounded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapse.core.request import Body
from lapse.limits import rules, sizes
from lapse.limits.documents import read_document
from lapse.limits.rules import Bounds, Fault, fault_of_document

pytestmark = pytest.mark.filterwarnings("ignore")  # what ADK calls itself

TEXTS = st.text(st.sampled_from('a"\\,[]{}: \n\u00e9\U0001f469'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=60,
)


def containers(value):
    """Return how many values there are that have others, and commas between those."""
    match value:
        case dict():
            return max(1, len(value)) + sum(map(containers, value.values()))
        case list():
            return max(1, len(value)) + sum(map(containers, value))
    return 0


def read(value, **style):
    return read_document(json.dumps(value, **style).encode())


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_a_document_is_what_json_makes_of_it_and_is_counted_in_full(value, ascii_only, indent):
    """Seen to fail with the pairs of backslashes left in: `"\\\\"` then goes on after its end."""
    body = read(value, ensure_ascii=ascii_only, indent=indent)
    assert body.document == value
    assert body.values > containers(value)
    assert body.fields == (value if isinstance(value, dict) else {})


@given(VALUES)
def test_large_documents_are_counted_exactly(value):
    body = read([value, "x" * rules.LONGEST_NUMBER])
    assert body.values == containers([value, "x"]) + 1


@pytest.mark.parametrize("before", ["", "x" * rules.LONGEST_NUMBER])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"k": "%s", "v": [' + "1," * rules.MOST_VALUES + "1]}", (413, "values")),
        ('["%s"' + ',"\\\\"' * rules.MOST_VALUES + "]", (413, "values")),
        ('["%s"' + ',""' * 3 * rules.MOST_VALUES + "]", (413, "values")),
        ('["%s",' + "[" * 100 + "]" * 100 + "]", (400, "nested")),
        ('["%s",' + "[" * 100, (400, "nested")),
        ('{"k": "%s", "v": ' + "9" * 20_000 + "}", (413, "numbers")),
        ('["%s"' + "," + "9" * 4000 + ",9" * 9 + "," + "9" * 5000 + "]", (413, "numbers")),
        ('["%s' + "\\n" * (rules.MOST_ESCAPES + 1) + '"]', (413, "backslashes")),
        ('["%s' + "é" * (rules.MOST_BEYOND_ASCII // 2 + 1) + '"]', (413, "ASCII")),
        ('\ufeff["%s"]', (400, "byte order")),
        ('["%s\0"]', (400, "NUL")),
    ],
    ids=range(11),
)
def test_what_takes_long_to_read_is_not_read(text, fault, before):
    """Seen to fail one by one, with the check of each taken out of `read_document`."""
    found = read_document(text.replace("%s", before).encode())
    assert isinstance(found, Fault)
    assert (found.status, found.detail.startswith("body: ")) == (fault[0], True)
    assert fault[1] in found.detail


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"])
def test_only_utf8_is_read(coding):
    """Seen to fail with the bytes given to `json.loads`, which finds out for itself."""
    found = read_document('{"k": "é"}'.encode(coding))
    assert isinstance(found, Fault)
    assert (found.status, "UTF-8" in found.detail) == (400, True)


@pytest.mark.parametrize(
    "text",
    [
        '["%s"]' % ("[{," * 100_000),
        '["%s"]' % ('\\"' * 100_000),
        "[" + "1," * (rules.MOST_VALUES - 2) + "1]",
        '{"k": %s}' % ("9" * 4300),
        "[{}]".format(", ".join(["-1.7976931348623157e+308"] * 40_000)),
        "[" * 100 + "]" * 100,
        '["%s"]' % ("é" * (rules.MOST_BEYOND_ASCII // 2)),
    ],
    ids=range(7),
)
def test_what_is_large_but_soon_read_is_read(text):
    body = read_document(text.encode())
    assert isinstance(body, Body)
    assert body.error is None


def test_names_that_come_twice_are_told_at_the_top_level():
    body = read_document(b'{"a": 1, "us\\u0065r": {"b": 1, "b": 2}, "user": 3, "a": 4, "c": 5}')
    assert body.fields == {"a": 4, "user": 3, "c": 5}
    assert body.repeated == {"a", "user"}
    assert read_document(b'{"a": {"b": 1, "b": 2}}').repeated == frozenset()


# What is asked of the fields of a route.

SESSIONS = "/apps/a/users/u/sessions"
MANY, TYPED = rules.MOST_ENTRIES + 1, rules.MOST_TYPED + 1
PARTS = {"parts": [{}] * MANY}
WIDE = {"groundingMetadata": {"groundingChunks": [1] * TYPED}}


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("/run", {"newMessage": PARTS}, "newMessage: must have at most 1000 parts"),
        ("/run_sse", {"new_message": PARTS}, "newMessage: must have at most 1000 parts"),
        (f"{SESSIONS}/s/run", {"newMessage": PARTS}, "1000 parts"),
        (f"{SESSIONS}/s/run", {"new_message": PARTS}, "1000 parts"),
        (f"{SESSIONS}/s/artifacts", {"artifact": PARTS}, "1000 parts"),
        (SESSIONS, {"events": [1] * MANY}, "events: must be at most 1000"),
        (f"{SESSIONS}/", {"events": [{"content": {"parts": [{}] * 501}}] * 2}, "parts together"),
        ("/run", {"newMessage": {"parts": [{"zz": [1] * TYPED}]}}, "at most 10000 values"),
        ("/run", {"newMessage": {"parts": [{str(n): 1 for n in range(TYPED)}]}}, "10000 values"),
        (f"{SESSIONS}/s/artifacts", {"artifact": {"zz": [1] * TYPED}}, "10000 values"),
        (SESSIONS, {"events": [{}, WIDE]}, "events: must have at most 10000 values"),
        ("/run", {"customMetadata": {"k": "x" * 70_000}}, "customMetadata: must be at most"),
        ("/run", {"stateDelta": {"k": "x" * 1_100_000}}, "stateDelta: must be at most"),
        ("/run", {"newMessage": {}, "new_message": {}}, "newMessage: must be given once"),
    ],
    ids=range(14),
)
def test_lists_and_typed_values_are_bounded(path, fields, words):
    """Seen to fail with `fault_of_document` made to return None, and part by part."""
    fault = fault_of_document(path, read(fields), Bounds())
    assert fault is not None
    assert words in fault.detail


LONG = "x" * (rules.MOST_TEXT // 2)
FILE = {"inlineData": {"mimeType": "image/png", "data": LONG + LONG + LONG}}


@pytest.mark.parametrize(
    ("path", "fields", "is_refused"),
    [
        ("/run", {"newMessage": {"parts": [{"text": LONG}, {"text": LONG}]}}, True),
        ("/run_sse", {"new_message": {"parts": [{"functionCall": {LONG + LONG: 1}}]}}, True),
        ("/run", {"newMessage": {}, "zz": [LONG, LONG]}, True),
        (f"{SESSIONS}/s/run", {"newMessage": {"parts": [{"text": LONG + LONG}]}}, True),
        (f"{SESSIONS}/s/artifacts", {"artifact": {"text": LONG + LONG}}, True),
        ("/run_live", {"content": {"parts": [{"text": LONG + LONG}]}}, True),
        ("/run", {"newMessage": {"parts": [FILE, {"text": LONG}]}}, False),
        (f"{SESSIONS}/s/artifacts", {"artifact": FILE}, False),
        ("/run_live", {"blob": FILE["inlineData"]}, False),
        ("/run", {"newMessage": {}, "stateDelta": {"k": LONG + LONG}}, False),
        ("/own", {"text": LONG + LONG}, False),
    ],
    ids=range(11),
)
def test_text_is_bounded_and_files_are_not(path, fields, is_refused):
    """Seen to fail without `_fault_of_text`, and with files and state that count as text."""
    fields = fields | {"appName": "a", "userId": "u", "sessionId": "s"}
    fault = fault_of_document(path, read(fields), Bounds(state=rules.MOST_TEXT * 2))
    assert is_refused == (fault is not None)
    assert fault is None or "characters of text" in fault.detail


FULL = list(range(rules.MOST_VALUES - 100))


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/run", {"newMessage": {"parts": [{"text": "x"}] * 1000}}),
        ("/run", {"newMessage": {"parts": [{"functionResponse": {"response": {"r": FULL}}}]}}),
        ("/run", {"stateDelta": {"k": FULL}}),
        (SESSIONS, {"state": {"k": FULL}}),
        (SESSIONS, {"events": [{"content": {"parts": [{"text": "x"}]}}] * 1000}),
        (SESSIONS, {"events": [{"actions": {"stateDelta": {"k": FULL}}}]}),
        (f"{SESSIONS}/s", {"stateDelta": {"k": FULL}}),
    ],
    ids=range(7),
)
def test_what_clients_of_adk_may_send_is_not_refused(path, fields):
    assert fault_of_document(path, read(fields), Bounds()) is None


def test_what_is_not_counted_as_typed_is_of_no_type_in_adks_models():
    """Seen to fail with `content` among the free fields."""
    from google.adk.cli.api_server import (
        CreateSessionRequest,
        RunAgentRequest,
        SaveArtifactRequest,
    )

    seen = set()
    for model in (CreateSessionRequest, RunAgentRequest, SaveArtifactRequest):
        for by_alias in (True, False):
            schema = model.model_json_schema(by_alias=by_alias)
            for one in (schema, *schema["$defs"].values()):
                for name, field in one.get("properties", {}).items():
                    if name in sizes.FREE:
                        seen.add(name)
                        kinds = [field, *field.get("anyOf", ())]
                        assert not any("$ref" in kind or "items" in kind for kind in kinds), name
                        assert not any(
                            isinstance(kind.get("additionalProperties"), dict) for kind in kinds
                        ), name
    assert seen == sizes.FREE
