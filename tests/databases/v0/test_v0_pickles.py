"""Pickled actions are read, and nothing that a pickle holds is ever executed."""

import base64
import copyreg
import os
import pickle
import pickletools
import struct
import sys
import uuid
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from fastapi.openapi.models import APIKey, APIKeyIn
from google.adk.auth.auth_credential import AuthCredential, AuthCredentialTypes
from google.adk.auth.auth_tool import AuthConfig
from google.adk.events.event_actions import EventActions
from google.adk.sessions import _restricted_pickle
from hypothesis import given, settings
from hypothesis import strategies as st

from lapse.core.errors import InvalidValueError
from lapse.databases.v0.pickled import DEEPEST, MOST, read_actions
from lapse.databases.v0.values import ADMITTED
from v0_databases import KINDS, dump

FORBIDDEN = {"os.system", "subprocess.Popen", "pickle.find_class", "os.exec", "os.fork"}
_heard = []
_listening = False


def _hear(event, arguments):
    if _listening and event in FORBIDDEN:
        _heard.append((event, arguments))


sys.addaudithook(_hear)


@pytest.fixture(autouse=True)
def nothing_executed(tmp_path, monkeypatch):
    """No test may have Python look up a pickled name, or start anything, while it reads."""
    monkeypatch.chdir(tmp_path)
    _heard.clear()
    yield
    assert _heard == []
    assert list(tmp_path.iterdir()) == []


def read(data):
    global _listening  # noqa: PLW0603 - an audit hook cannot be taken off
    _listening = True
    try:
        return read_actions(data)
    finally:
        _listening = False


def refusal(data):
    with pytest.raises(InvalidValueError) as refused:
        read(data)
    return str(refused.value)


def of_adk(actions, protocol=5):
    return pickle.dumps(actions, protocol)


class Evil:
    """Pickles as a call, as an attacker's object does."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def evil(*reduced, protocol=5):
    """Return actions in whose state a call stands."""
    actions = EventActions(state_delta={"a": Evil(*reduced)})
    return pickle.dumps(actions, protocol)


TOUCH = "touch executed"
RUN = "__import__('os').system('touch executed')"

CALLS = {
    "os.system": (os.system, (TOUCH,)),
    "eval": (eval, (RUN,)),
    "exec": (exec, (RUN,)),
    "import": (__import__, ("antigravity",)),
    "getattr": (getattr, (Evil, "reduced")),
    "a chain": (eval, (RUN,), {"b": 1}),
    "open": (open, ("executed", "w")),
    "copyreg": (copyreg._reconstructor, (Evil, object, None)),
    "a class of ours": (Evil, ()),
    "an enumeration called with a list": (type(None), ()),
    "a bytearray": (bytearray, (2**40,)),
    "a listed type that is not called": (int, ("9" * 10_000,)),
    "bytes": (bytes, (2**40,)),
}


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_in_the_state_is_refused_and_not_made(name, protocol):
    """Seen to fail with a REDUCE that calls what an import finds."""
    said = refusal(evil(*CALLS[name], protocol=protocol))
    assert "pickled actions" in said
    assert len(said) < 150


@pytest.mark.parametrize("protocol", [0, 1, 2, 3])
def test_a_protocol_that_adk_never_writes_is_refused(protocol):
    assert "ADK" in refusal(evil(os.system, (TOUCH,), protocol=protocol))


def _global(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _text(text):
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


ACTIONS = _global("google.adk.events.event_actions", "EventActions")
MADE = ACTIONS + b")\x81"
FILLED = MADE + b"}" + _text("__dict__") + b"}s"
LONG = b"\x8a"

HAND_MADE = {
    "INST": b"(" + _text(TOUCH) + b"ios\nsystem\n.",
    "OBJ": b"(" + _global("os", "system") + _text(TOUCH) + b"o.",
    "a persistent id": b"Pid\n.",
    "a persistent id from the stack": _text("id") + b"Q.",
    "an extension": b"\x82\x01.",
    "a buffer": b"\x97.",
    "a buffer to be read": b"N\x98.",
    "text that is evaluated": b"S'a'\n.",
    "NEWOBJ of os.system": _global("os", "system") + b")\x81.",
    "NEWOBJ with arguments": ACTIONS + b"N\x85\x81.",
    "NEWOBJ_EX": ACTIONS + b")}\x92.",
    "a name with dots": b"\x8c\x02os" + b"\x8c\x0bpath.exists" + b"\x93.",
    "another name of ADK's module": _global("google.adk.events.event_actions", "logger") + b".",
    "a chain through ADK's module": b"\x8c\x1fgoogle.adk.events.event_actions"
    b"\x8c\x0elogging.os.sys\x93.",
    "a name that is no text": b"NN\x93.",
    "a model that is called": ACTIONS + b")R.",
    "a value that is called": _text("a") + b")R.",
    "the attributes of a class": ACTIONS + b"}" + _text("__dict__") + b"}sb.",
    "the attributes of a dict": b"}}b.",
    "another __setstate__": MADE + b"}" + _text("__setstate__") + _text("x") + b"sb.",
    "slots": MADE + b"N}\x86b.",
    "a model that is filled twice": FILLED + b"b}" + _text("__dict__") + b"}sb.",
    "a model without fields": MADE + b".",
    "a model with fields that are no dict": MADE + b"}" + _text("__dict__") + b"]sb.",
    "the class itself": ACTIONS + b".",
    "another model": _global("google.genai.types", "Part")
    + b")\x81}"
    + _text("__dict__")
    + b"}sb.",
    "a list": b"].",
    "a text": _text("a") + b".",
    "a mark": b"(.",
    "no mark": b"Nt.",
    "an empty stack": b"0.",
    "two values": b"NN.",
    "an odd number of items": b"}(Nu.",
    "items for a text": _text("a") + b"(Na.",
    "a memo that is not there": b"h\x05.",
    "a huge memo": b"N" + b"r\xff\xff\xff\x7f.",
    "a huge frame": b"\x95" + struct.pack("<Q", 2**62) + b"\x95" + b"\xff" * 8 + FILLED,
    "a huge text": b"\x8d" + struct.pack("<Q", 2**40) + b"a.",
    "huge bytes": b"\x8e" + struct.pack("<Q", 2**40) + b"a.",
    "a huge number": b"}" + _text("a") + b"\x8b" + struct.pack("<I", 2000) + b"\x7f" * 2000 + b"s.",
    "a number of negative length": b"\x8b\xff\xff\xff\xff.",
    "a dict as a key": b"}}Ns.",
    "a list in a set": b"\x8f(]\x90.",
    "a model as a key": b"}" + FILLED + b"bNs.",
    "what comes after the end": FILLED + b"b.N.",
    "nothing": b"",
    "no end": FILLED + b"b",
    "no text": _text("a")[:-1] + b"\xff.",
    "a date that is none": b"}" + _text("a") + _global("datetime", "datetime")
    + b"C\x0a" + b"\xff" * 10 + b"\x85Rs.",
    "a date of a text": b"}" + _text("a") + _global("datetime", "datetime")
    + _text("2020-01-01") + b"\x85Rs.",
    "a zone of a text": b"}" + _text("a") + _global("datetime", "timezone")
    + _text("UTC") + b"\x85Rs.",
    "a huge decimal": b"}" + _text("a") + _global("decimal", "Decimal")
    + _text("1" * 5000) + b"\x85Rs.",
    "a decimal that is none": b"}" + _text("a") + _global("decimal", "Decimal")
    + _text("x") + b"\x85Rs.",
    "a defaultdict that makes something": b"}" + _text("a")
    + _global("collections", "defaultdict") + _global("os", "system") + b"\x85Rs.",
    "a UUID that is none": b"}" + _text("a") + _global("uuid", "UUID") + b")\x81}"
    + _text("hex") + _text("x") + b"sbs.",
}  # fmt: skip


@pytest.mark.parametrize("name", HAND_MADE)
def test_what_no_pickle_of_adk_has_is_refused(name):
    """Seen to fail with a memo whose places a pickle chooses."""
    start = b"" if HAND_MADE[name] == b"" else b"\x80\x04"
    said = refusal(start + HAND_MADE[name])
    assert said.startswith("actions: its pickled actions ")


def test_an_extension_of_copyreg_is_refused():
    copyreg.add_extension("os", "system", 240)
    try:
        assert "EXT1" in refusal(b"\x80\x04\x82\xf0" + _text(TOUCH) + b"\x85R.")
    finally:
        copyreg.remove_extension("os", "system", 240)


@pytest.mark.long
def test_what_expands_too_far_is_refused():
    laughs = ["ha"]
    for _ in range(30):
        laughs = [laughs] * 10
    assert f"{MOST:,} values" in refusal(of_adk({"state_delta": {"a": laughs}}))
    text = "x" * 100_000
    assert "bytes" in refusal(of_adk({"state_delta": {"a": [text] * 10_000}}))
    assert "operations" in refusal(b"\x80\x04" + b"N" * (MOST + 1) + b".")


def test_what_is_nested_too_deep_is_refused():
    """Seen to fail without a count of the levels, with a RecursionError."""
    circle = []
    circle += [circle, circle]
    assert str(DEEPEST) in refusal(of_adk({"state_delta": {"a": circle}}))
    deep = []
    for _ in range(400):
        deep = [deep]
    assert str(DEEPEST) in refusal(of_adk({"state_delta": {"a": deep}}))
    unusual = {number * (2**61 - 1): 0 for number in range(2_001)}
    assert "key" in refusal(of_adk({"state_delta": {"a": unusual}}))


def test_no_beginning_of_a_pickle_is_read_as_a_whole_one():
    data = of_adk(EventActions(state_delta={"a": [1, {"b": "c"}]}, artifact_delta={"f": 1}))
    for end in range(len(data)):
        refusal(data[:end])


def pickles():
    for kind in KINDS:
        events = next(table for table in dump(kind)["tables"] if table["name"] == "events")
        at = events["columns"].index("actions")
        for row in events["rows"]:
            yield base64.b64decode(row[at]["base64"])


def test_the_pickles_of_a_real_adk_are_read_as_adk_reads_them():
    seen = 0
    for data in pickles():
        theirs = EventActions.model_validate(_restricted_pickle.loads(data).model_dump())
        ours = EventActions.model_validate(read(data))
        assert ours.model_dump(mode="json", exclude_none=True) == theirs.model_dump(
            mode="json", exclude_none=True
        )
        seen += 1
    assert seen == 84


@pytest.mark.filterwarnings("ignore")  # what ADK says of its own models
def test_fields_that_a_model_does_not_declare_are_kept():
    """Seen to fail with a reader that leaves out `__pydantic_extra__`."""
    credential = AuthCredential(auth_type=AuthCredentialTypes.API_KEY, more=["é"])
    scheme = APIKey(**{"in": APIKeyIn.header, "name": "X-Key"})
    config = AuthConfig(auth_scheme=scheme, raw_auth_credential=credential)
    found = read(of_adk(EventActions(requested_auth_configs={"a": config})))
    assert found["requested_auth_configs"]["a"]["raw_auth_credential"]["more"] == ["é"]
    assert found["requested_auth_configs"]["a"]["auth_scheme"]["in_"] == "header"


def test_the_list_has_every_type_that_adk_takes():
    """Seen to fail without `FunctionResponsePart`: what ADK adds must be thought of."""
    plain = {"bool", "bytearray", "bytes", "complex", "dict", "float", "int", "list", "set", "str"}
    missing = {
        one for one in _restricted_pickle._allowed_globals() - ADMITTED if one[0] != "builtins"
    }
    # A type alias of FastAPI, which no pickle names.
    assert missing == {("fastapi.openapi.models", "SecurityScheme")}
    assert {name for module, name in ADMITTED if module == "builtins"} <= plain | {"tuple"}


def test_every_operation_that_is_read_is_one_of_pickles():
    from lapse.databases.v0 import pickled

    assert set(pickled._STEPS) <= {one.name for one in pickletools.opcodes}


RICH = {
    "when": datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=UTC),
    "there": datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=-3), "x")),
    "naive": datetime(2024, 2, 29),  # noqa: DTZ001 - as somebody may have it
    "day": date(2024, 2, 29),
    "hour": time(5, 6, 7),
    "span": timedelta(days=-1, microseconds=7),
    "amount": Decimal("10.50"),
    "id": uuid.uuid1(),
    "set": {"a"},
    "frozen": frozenset({1}),
    "bytes": b"\x00a",
    "array": bytearray(b"b"),
    "big": 2**300,
}


@pytest.mark.parametrize("protocol", [4, 5])
def test_the_plain_types_of_python_are_read(protocol):
    found = read(pickle.dumps(EventActions(state_delta=RICH), protocol))["state_delta"]
    assert found.pop("there").utcoffset() == RICH["there"].utcoffset()
    expected = {name: value for name, value in RICH.items() if name != "there"}
    assert found == expected | {"frozen": {1}, "array": b"b"}
    paths = {"a": PurePosixPath("/a/b"), "b": PureWindowsPath("c:/d")}
    assert read(of_adk(paths)) == {"a": "/a/b", "b": "c:\\d"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=30)
@given(st.dictionaries(st.text(), VALUES, max_size=4), st.sampled_from([4, 5]))
def test_any_state_is_read_as_it_was(state, protocol):
    found = read(pickle.dumps(EventActions.model_construct(state_delta=state), protocol))
    assert repr(found["state_delta"]) == repr(state)


@given(st.binary(max_size=60), st.data())
def test_any_bytes_are_read_or_refused(noise, data):
    """Whatever is changed in a real pickle, nothing but a refusal is raised."""
    whole = of_adk(EventActions(state_delta={"a": [1, "b", {"c": 2.5}], "d": RICH["when"]}))
    at = data.draw(st.integers(0, len(whole)))
    for changed in (noise, whole[:at] + noise + whole[at + len(noise) :]):
        with suppress(InvalidValueError):
            read(changed)
