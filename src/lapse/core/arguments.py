"""Checks the types of what a program gives to Lapse, where it is given.

Otherwise a wrong argument shows where it is used: in another module, or at the first request.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from datetime import timedelta
from functools import cache
from typing import Any, Final, get_args, get_origin

from lapse.core.errors import InvalidValueError

_TOLD: Final[dict[object, str]] = {
    timedelta: "a timedelta, such as timedelta(minutes=5)",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    types.NoneType: "None",
}

_COLLECTIONS: Final = {
    collections.abc.Collection,
    collections.abc.Container,
    collections.abc.Iterable,
    collections.abc.Sequence,
}

_SHOWN: Final = (bool, int, float, types.NoneType)
"""Types whose values are shown; others may be long, or secret."""


def check(**given: tuple[object, Any]) -> None:
    """Check arguments, given by name: each is a value with the type that it must have.

    Raises:
        InvalidValueError: one is of another type.
    """
    for name, (value, hint) in given.items():
        if not _fits(value, hint):
            raise InvalidValueError(name, f"must be {_told(hint)}, not {_shown(value)}")


def check_fields(options: object) -> None:
    """Check the fields of a dataclass by their annotations.

    Raises:
        InvalidValueError: one is of another type.
    """
    kind: Any = type(options)
    check(**{name: (getattr(options, name), hint) for name, hint in _hints(kind).items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _fits(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return any(_fits(value, one) for one in inner)
    if hint is int or hint is float:
        return isinstance(value, int | hint) and not isinstance(value, bool)
    if getattr(hint, "_is_protocol", False):
        return all(hasattr(value, name) for name in _methods(hint))
    if isinstance(value, str) and (origin or hint) in _COLLECTIONS:
        return False  # a text is a collection of texts, too, but is never meant as one
    if isinstance(value, tuple) and inner and not all(_fits(one, inner[0]) for one in value):
        return False
    return isinstance(value, origin or hint)


def _methods(protocol: Any) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]


def _told(hint: Any) -> str:
    if get_origin(hint) in {typing.Union, types.UnionType}:
        return " or ".join(_told(one) for one in get_args(hint))
    if (told := _TOLD.get(hint)) is not None:
        return told
    name = getattr(get_origin(hint) or hint, "__name__", str(hint))
    inner = [_told(one) for one in get_args(hint) if one is not Ellipsis]
    told = f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
    return f"{told} of {inner[0]}" if inner else told


def _shown(value: object) -> str:
    if isinstance(value, _SHOWN):
        return repr(value)
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
