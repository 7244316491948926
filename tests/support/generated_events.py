"""Events with any content, for tests with Hypothesis, made from what ADK's models declare."""

from __future__ import annotations

from enum import Enum
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.genai.types import Content
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
_PLAIN = {
    str: st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4),
    int: st.integers(0, 9),
    float: st.floats(0, 9),
    bool: st.booleans(),
    bytes: st.binary(max_size=4),
    NoneType: st.none(),
}
_FIELDS = 4
_DEPTH = 5


def events() -> st.SearchStrategy[Event]:
    """Return valid events; each model in them has a few fields, any of those that there are."""
    likely = st.fixed_dictionaries(
        {}, optional={"content": fields_of(Content), "actions": fields_of(EventActions)}
    )
    fields = st.builds(or_, fields_of(Event), likely)
    return fields.map(_valid).filter(lambda event: event is not None)


def _valid(fields: dict[str, Any]) -> Event | None:
    try:
        event = Event.model_validate(fields | {"timestamp": 1.5})
        event.model_dump(mode="json")
    except (ValidationError, ValueError):
        return None
    return event


@st.composite
def fields_of(draw: st.DrawFn, kind: type[BaseModel], depth: int = _DEPTH) -> dict[str, Any]:
    known = kind.model_fields
    chosen = [name for name, field in known.items() if field.is_required()]
    if depth > 0:
        chosen += draw(st.lists(st.sampled_from(sorted(known)), max_size=_FIELDS, unique=True))
    found = {name: draw(values_of(known[name].annotation, depth - 1)) for name in chosen}
    return {name: value for name, value in found.items() if value is not None}


def values_of(kind: Any, depth: int) -> st.SearchStrategy[Any]:
    """Return values of a type as pydantic reads them."""
    origin, arguments = get_origin(kind), get_args(kind)
    found: st.SearchStrategy[Any] = _PLAIN.get(kind, JSON)
    if origin in {Union, UnionType}:
        found = st.one_of([values_of(one, depth) for one in arguments if one is not NoneType])
    elif origin is Annotated:
        found = values_of(arguments[0], depth)
    elif origin is Literal:
        found = st.sampled_from(arguments)
    elif origin is list:
        found = st.lists(values_of(arguments[0], depth), min_size=1, max_size=3)
    elif origin is set:
        found = st.sets(values_of(arguments[0], depth), min_size=1, max_size=3)
    elif origin is dict:
        found = st.dictionaries(*(values_of(one, depth) for one in arguments), max_size=2)
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        found = fields_of(kind, depth)
    elif isinstance(kind, type) and issubclass(kind, Enum):
        found = st.sampled_from([one.value for one in kind])
    return found
