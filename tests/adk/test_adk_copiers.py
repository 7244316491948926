"""Copies of events equal ADK's own, and share nothing that a caller can change."""

from copy import copy
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from google.adk.events.event import Event
from google.adk.sessions.session import Session
from google.genai import types
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel, ConfigDict, PrivateAttr

from generated_events import events
from lapse.adk import copiers
from lapse.adk.copiers import copier, twins_of, walking_copier
from lapse.adk.events import read_event
from lapse.adk.translation import mark, new_event, session_of
from lapse.core.keys import SessionKey
from lapse.store.records import Revision, SessionRecord


@pytest.fixture(autouse=True)
def shapes(monkeypatch):
    """Begin without shapes, and leave those of the process alone; return them."""
    compiled: dict[str, Any] = {}
    monkeypatch.setattr(copiers, "_COMPILED", compiled)
    return compiled


def parts_of(value: Any) -> list[Any]:
    """Return every mutable object inside a value, and the value if it is one."""
    if isinstance(value, BaseModel):
        hidden = (value.__pydantic_extra__, value.__pydantic_private__)
        fields = [part for one in (value.__dict__, *hidden) for part in parts_of(one)]
        return [value, value.__pydantic_fields_set__, *fields]
    if isinstance(value, dict):
        return [value, *(part for one in value.values() for part in parts_of(one))]
    if isinstance(value, list | set):
        return [value, *(part for one in value for part in parts_of(one))]
    return []


def assert_same(one: Any, other: Any) -> None:
    """Assert that two values are equal in everything that Python can tell of them."""
    assert type(one) is type(other)
    if isinstance(one, BaseModel):
        assert one.__pydantic_fields_set__ == other.__pydantic_fields_set__
        for name in ("__dict__", "__pydantic_extra__", "__pydantic_private__"):
            assert_same(getattr(one, name), getattr(other, name))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name, value in one.items():
            assert_same(value, other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for value, twin in zip(one, other, strict=True):
            assert_same(value, twin)
    else:
        assert one == other


def spoil(value: Any) -> None:
    """Change everything in a value that can be changed."""
    for part in parts_of(value):
        if isinstance(part, dict | list | set):
            part.clear()


def assert_copies(value: BaseModel) -> None:
    """Assert that copies are right and independent, of each other and of the value."""
    kept = value.model_copy(deep=True)
    make = copier(value)
    first, second = make(), make()
    assert_same(first, kept)
    assert_same(first, walking_copier(value)())
    mutable = [{id(part) for part in parts_of(one)} for one in (value, first, second)]
    assert len(set().union(*mutable)) == sum(map(len, mutable))
    spoil(first)
    assert_same(second, kept)
    assert_same(make(), kept)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(event=events())
def test_a_copy_of_any_event_is_the_event_and_shares_nothing_with_it(event):
    """Seen to fail with a shape that returns an empty list, a set or the set of fields as it is,
    and with one that leaves private attributes out.
    """
    copiers._COMPILED.clear()
    assert_copies(event)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(event=events())
def test_any_stored_event_is_read_as_adk_reads_it_whatever_an_earlier_reader_did_to_it(event):
    """Seen to fail with `actions` that all readers share."""
    copiers._COMPILED.clear()
    record = new_event(event).record
    spoil(read_event(record))

    assert_same(read_event(record), Event.model_validate_json(record.data))


def test_events_of_one_shape_are_copied_by_one_function(shapes):
    for text in ("one", "two"):
        copier(Event(author="", content=types.Content(parts=[types.Part(text=text)])))
    assert len(shapes) == 1
    copier(
        Event(
            author="",
            content=types.Content(parts=[types.Part(text="three"), types.Part(text="four")]),
        )
    )
    assert len(shapes) == 2


def test_data_makes_no_shapes_of_its_own(shapes):
    """Seen to fail with shapes that walk into dicts."""
    for depth in range(40):
        args: dict[str, Any] = {}
        for level in range(depth):
            args = {f"{level}": [args]}
        call = types.Part.from_function_call(name="f", args=args)
        event = Event(author="", content=types.Content(parts=[call]), custom_metadata=args)
        assert_copies(event)

    assert len(shapes) <= 3


def test_events_of_more_shapes_than_are_compiled_are_copied_all_the_same(shapes, monkeypatch):
    """Seen to fail without the bound: four shapes were compiled."""
    monkeypatch.setattr(copiers, "_MOST_SHAPES", 2)
    for parts in range(4):
        words = [types.Part(text="x") for _ in range(parts)]
        assert_copies(Event(author="", content=types.Content(parts=words)))

    assert len(shapes) == 2


def test_a_large_event_makes_no_shape(shapes):
    def chunk(number: int) -> types.GroundingChunk:
        web, image = types.GroundingChunkWeb(uri="u"), types.GroundingChunkImage(title="t")
        return types.GroundingChunk(web=web, image=image)

    assert_copies(
        Event(author="", grounding_metadata={"grounding_chunks": [chunk(n) for n in range(8)]})
    )
    assert not shapes


def test_a_long_list_of_models_is_no_part_of_a_shape(shapes):
    for length in (9, 10, 11):
        words = [types.Part(text="x") for _ in range(length)]
        assert_copies(Event(author="", content=types.Content(parts=words)))

    assert len(shapes) == 1


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = ""


class Secretive(BaseModel):
    _lists: list[int] = PrivateAttr(default_factory=lambda: [1])
    _unset: int = PrivateAttr()


class Whole(BaseModel):
    parts: list[Any]


class Counted(BaseModel):
    """A model with a copy hook of its own."""

    copies: ClassVar[int] = 0
    names: list[str] = []

    def __deepcopy__(self, memo: Any = None) -> "Counted":
        Counted.copies += 1
        return super().__deepcopy__(memo)


@pytest.mark.parametrize(
    "part",
    [Loose(name="n", other=[{"x": [1]}]), Secretive(), Whole(parts=[{1}, {"a": {2: "b"}}])],
    ids=["extra fields", "private attributes", "any data"],
)
def test_a_model_with_more_than_fields_is_copied_whole(part):
    assert_copies(part)
    assert_copies(Whole(parts=[part]))


def test_a_model_that_copies_itself_in_its_own_way_does_so():
    """Seen to fail with a copier that takes every model for a plain one."""
    make = copier(Whole(parts=[Counted(names=["a"])]))
    before = Counted.copies
    assert make().parts[0].names == ["a"]
    assert Counted.copies == before + 1


def test_all_models_in_events_are_plain_ones():
    """A model of ADK's or genai's with hooks of its own would be copied the slow way for ever."""
    seen: set[type[BaseModel]] = set()

    def visit(kind: Any) -> None:
        for argument in getattr(kind, "__args__", ()):
            visit(argument)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in seen:
            seen.add(kind)
            for field in kind.model_fields.values():
                visit(field.annotation)

    visit(Event)
    assert len(seen) > 40
    assert [kind for kind in seen if not copiers._is_plain_class(kind)] == []


class Odd(BaseModel):
    """A model with a field that is no plain value, and one that its twins must not share."""

    name: str
    notes: list[str] = []
    numbers: list[int] = [1]
    _secret: str | None = PrivateAttr(default=None)


@pytest.mark.parametrize("given", [("name", "notes", "numbers"), ("name", "notes")])
def test_twins_equal_validated_models_and_share_nothing(given):
    """Seen to fail with twins whose other fields are those of the model."""
    fields: dict[str, Any] = {"name": "a", "notes": ["b"], "numbers": [1]}
    expected = Odd(**fields)
    expected._secret = "c"
    make = twins_of(Odd(name="", numbers=[1]), given)
    made = [make({name: copy(fields[name]) for name in given}, {"_secret": "c"}) for _ in range(2)]
    for twin in made:
        assert_same(twin, expected)
    spoil(made[0])
    made[0].__dict__["name"] = "changed"
    assert made[1].name == "a"
    assert made[1].notes == ["b"]
    if "numbers" not in given:
        assert made[1].numbers == [1]


def test_a_stored_session_is_what_validation_makes_of_it():
    """Seen to fail with the fields in another order, which ADK's server sends as they are."""
    at = datetime(2026, 11, 30, 1, 2, 3, 456789, tzinfo=UTC)
    record = SessionRecord(SessionKey("app", "user", "id"), {"k": [1]}, Revision(at, 7))
    expected = Session(app_name="app", user_id="user", id="id", state={"k": [1]}, events=[])
    mark(expected, record.revision)
    assert_same(session_of(record), expected)
    session_of(record).state["new"] = 1
    assert record.state == {"k": [1]}
