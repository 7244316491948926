"""Copiers of values: each makes deep copies of one value, many times.

Most of a conversation's events have one of a few shapes: the same models with content in the same
fields. For each shape a function is compiled that names every model and every mutable field of it;
it copies in half the time of code that walks through the value. What depends on data and not on
ADK's models, such as state and the arguments of tools, is walked through all the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable
from enum import Enum
from functools import cache, partial
from types import NoneType
from typing import Any, Final, TypeVar

from pydantic import BaseModel

__all__ = ["Copier", "copier", "twins_of"]

Model = TypeVar("Model", bound=BaseModel)
Copier = Callable[[], Any]
Twins = Callable[[dict[str, Any], dict[str, Any]], Model]

_ATOMS: Final = frozenset({str, int, float, bool, bytes, NoneType})

_MOST_SHAPES: Final = 256
"""Shapes that are compiled. Values of other shapes are walked through, so that nobody who sends
events of many shapes has the process compile all day."""

_LONGEST_LIST: Final = 8
"""Items of a list of models that a shape names one by one."""

_MOST_PARTS: Final = 64
"""Objects that a shape copies from. A larger value is walked through."""


def copier(value: Any) -> Copier:
    """Return a function that makes deep copies of a value, faster than `copy.deepcopy`.

    The copies equal those of `model_copy(deep=True)`. The value must not change afterwards and must
    not contain itself; values read from JSON never do.
    """
    if not _is_plain(value):
        return walking_copier(value)
    shape = _Shape()
    shape.result = shape.add(value)
    if len(shape.parts) > _MOST_PARTS:
        return walking_copier(value)
    bind = _COMPILED.get(source := shape.source)
    if bind is None:
        if len(_COMPILED) >= _MOST_SHAPES:
            return walking_copier(value)
        bind = _COMPILED[source] = _compiled(source)
    return bind(*shape.parts)


def twins_of(model: Model, given: Collection[str]) -> Twins[Model]:
    """Return a function that makes models like this one, in a third of the time of validation.

    It takes the fields that are `given` and the private attributes, each by name, and validates
    none of them. The model must not change afterwards.
    """
    kind, fields, private = type(model), model.__dict__, model.__pydantic_private__ or {}
    fields_set = model.__pydantic_fields_set__ | set(given)
    kept = (value for name, value in fields.items() if name not in given)
    if not (_is_plain(model) and all(map(_is_atom, kept))):

        def copied(fields: dict[str, Any], private: dict[str, Any]) -> Model:
            twin = model.model_copy(update=fields, deep=True)
            for name, value in private.items():
                setattr(twin, name, value)
            return twin

        return copied

    def twin(fields_given: dict[str, Any], private_given: dict[str, Any]) -> Model:
        made = object.__new__(kind)
        _set_fields(made, fields | fields_given)
        _set_fields_set(made, fields_set.copy())
        _set_extra(made, None)
        _set_private(made, private | private_given)
        return made

    return twin


def walking_copier(value: Any) -> Copier:
    """Return a function like that of `copier`, which walks through the value for each copy."""
    kind = type(value)
    if kind is dict:
        return partial(_copy_dict, value, _mutable(value.items()))
    if kind is list:
        return partial(_copy_list, value, _mutable(enumerate(value)))
    if isinstance(value, BaseModel) and _is_plain_class(type(value)):
        hidden = [
            (name, getattr(value, name)) for name in ("__pydantic_extra__", "__pydantic_private__")
        ]
        return partial(_copy_model, value, _mutable(value.__dict__.items()), hidden)
    return partial(copy.deepcopy, value)


def _is_atom(value: Any) -> bool:
    """Return whether copies of a value are the value itself."""
    return type(value) in _ATOMS or isinstance(value, Enum)


@cache
def _is_plain_class(kind: type[BaseModel]) -> bool:
    """Return whether models of a class are copied as ADK and pydantic copy theirs."""
    own = [base for base in kind.__mro__ if base not in {BaseModel, object}]
    return not any(
        hook in base.__dict__
        for base in own
        for hook in ("__deepcopy__", "__new__", "__slots__", "__setstate__")
        if not (hook == "__deepcopy__" and base.__module__.startswith("google.adk."))
    )


def _is_plain(value: Any) -> bool:
    """Return whether a value is a model of which a shape can be made."""
    return (
        isinstance(value, BaseModel)
        and _is_plain_class(type(value))
        and value.__pydantic_extra__ is None
        and all(map(_is_atom, (value.__pydantic_private__ or {}).values()))
    )


class _Shape:
    """The code that copies one value, and the objects that it copies from.

    Values for which the code is the same have the same shape.
    """

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.result = ""
        self._lines: list[str] = []
        self._names = 0

    @property
    def source(self) -> str:
        parts = ", ".join(f"p{number}" for number in range(len(self.parts)))
        lines = "\n  ".join((*self._lines, f"return {self.result}"))
        return f"def bind({parts}):\n def copied():\n  {lines}\n return copied\n"

    def add(self, value: Any) -> str:
        """Add what copies a mutable value; return the expression that is the copy."""
        kind = type(value)
        if kind is dict or kind is list or kind is set:
            if not value:
                return "set()" if kind is set else repr(value)
            if all(map(_is_atom, value.values() if kind is dict else value)):
                return f"{self._part(value)}.copy()"
            if kind is list and len(value) <= _LONGEST_LIST:
                return self._add_parts(value, enumerate(value))
        elif _is_plain(value):
            return self._add_model(value)
        return f"{self._part(walking_copier(value))}()"

    def _add_model(self, value: BaseModel) -> str:
        twin = self._name()
        self._lines.append(f"{twin} = new({self._part(type(value))})")
        fields = self._add_parts(value.__dict__, value.__dict__.items())
        hidden = value.__pydantic_private__
        private = None if hidden is None else f"{self._part(hidden)}.copy()"
        self._lines += (
            f"set_fields({twin}, {fields})",
            f"set_fields_set({twin}, {self._part(value.__pydantic_fields_set__)}.copy())",
            f"set_extra({twin}, None)",
            f"set_private({twin}, {private})",
        )
        return twin

    def _add_parts(self, value: Any, items: Iterable[tuple[Any, Any]]) -> str:
        twin = self._name()
        self._lines.append(f"{twin} = {self._part(value)}.copy()")
        for where, part in items:
            if type(part) not in _ATOMS and not _is_atom(part):  # most are, and a call costs time
                copied = self.add(part)
                self._lines.append(f"{twin}[{where!r}] = {copied}")
        return twin

    def _part(self, value: Any) -> str:
        self.parts.append(value)
        return f"p{len(self.parts) - 1}"

    def _name(self) -> str:
        self._names += 1
        return f"c{self._names}"


_set_fields: Final = BaseModel.__dict__["__dict__"].__set__
_set_fields_set: Final = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra: Final = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private: Final = BaseModel.__dict__["__pydantic_private__"].__set__

_SETTERS: Final = {
    "new": object.__new__,
    "set_fields": _set_fields,
    "set_fields_set": _set_fields_set,
    "set_extra": _set_extra,
    "set_private": _set_private,
}

_COMPILED: Final[dict[str, Callable[..., Copier]]] = {}


def _compiled(source: str) -> Callable[..., Copier]:
    """Compile a shape. Its text names fields of models by their `repr`, and holds no other data."""
    names: dict[str, Any] = dict(_SETTERS)
    # The text is made above, of nothing that was sent.
    exec(source, names)  # noqa: S102  # nosec B102
    bind: Callable[..., Copier] = names["bind"]
    return bind


def _mutable(items: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Copier]]:
    """Return the keys, indexes or names of the mutable parts, each with its copier."""
    return [(where, walking_copier(part)) for where, part in items if not _is_atom(part)]


def _copy_dict(value: dict[Any, Any], parts: list[tuple[Any, Copier]]) -> dict[Any, Any]:
    twin = value.copy()
    for where, copy_part in parts:
        twin[where] = copy_part()
    return twin


def _copy_list(value: list[Any], parts: list[tuple[Any, Copier]]) -> list[Any]:
    twin = value.copy()
    for where, copy_part in parts:
        twin[where] = copy_part()
    return twin


def _copy_model(
    value: BaseModel, parts: list[tuple[Any, Copier]], hidden: list[tuple[str, Any]]
) -> BaseModel:
    twin = value.__class__.__new__(value.__class__)
    set_attribute = object.__setattr__
    set_attribute(twin, "__dict__", _copy_dict(value.__dict__, parts))
    set_attribute(twin, "__pydantic_fields_set__", value.__pydantic_fields_set__.copy())
    for name, part in hidden:
        set_attribute(twin, name, part if part is None else copy.deepcopy(part))
    return twin
