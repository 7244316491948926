"""What stands in the pickled `actions` of version 0: names, models, and the values made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import partial
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final
from uuid import UUID

from lapse.core.errors import InvalidValueError
from lapse.core.keys import visible
from lapse.databases.v0.names import ENUMS, MODELS, TYPES

LONGEST_NUMBER: Final = 512
"""Digits of a number. Python refuses to write much longer ones."""

_SHOWN: Final = 60


def refused(reason: str) -> InvalidValueError:
    """Return the error for a pickle that is not read, with the reason."""
    return InvalidValueError("actions", f"its pickled actions {reason}")


@dataclass(frozen=True, slots=True)
class Name:
    """A name that a pickle mentions; nobody looks it up."""

    module: str
    name: str

    @property
    def pair(self) -> tuple[str, str]:
        return (self.module, self.name)

    @property
    def shown(self) -> str:
        return visible(f"{self.module}.{self.name}")[:_SHOWN]


@dataclass(eq=False, slots=True)
class Model:
    """An instance of a model, or a UUID, of which only the fields are kept."""

    name: Name
    fields: dict[str, Any] | None = None


def fields_of_model(state: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the fields of a model from what pydantic 2 pickles of it."""
    if not set(state) <= _PYDANTIC or type(state.get("__dict__")) is not dict:
        raise refused("hold a model in a form that pydantic 2 does not write")
    extra = state.get("__pydantic_extra__")
    if extra is not None and type(extra) is not dict:
        raise refused("hold a model in a form that pydantic 2 does not write")
    return {**state["__dict__"], **(extra or {})}


def _fields_of_uuid(state: Mapping[Any, Any]) -> dict[str, Any]:
    if not set(state) <= {"int", "is_safe"} or type(state.get("int")) is not int:
        raise refused("hold a UUID in a form that Python does not write")
    return {"uuid": UUID(int=state["int"])}


def _moment(state: Any, zone: Any = None) -> datetime:
    if type(state) is not bytes or not (zone is None or isinstance(zone, tzinfo)):
        raise refused("hold a date in a form that Python does not write")
    # Python's own form of a date in a pickle; the constructor checks it.
    make: Callable[..., datetime] = datetime
    return make(state, zone) if zone else make(state)


def _date(state: Any) -> date:
    if type(state) is not bytes:
        raise refused("hold a date in a form that Python does not write")
    make: Callable[..., date] = date
    return make(state)


def _time(state: Any) -> time:
    if type(state) is not bytes:
        raise refused("hold a time in a form that Python does not write")
    make: Callable[..., time] = time
    return make(state)


def _zone(offset: Any, name: Any = "") -> timezone:
    if type(offset) is not timedelta or type(name) is not str:
        raise refused("hold a time zone in a form that Python does not write")
    return timezone(offset, name) if name else timezone(offset)


def _decimal(text: Any) -> Decimal:
    if type(text) is not str or len(text) > LONGEST_NUMBER:
        raise refused(f"have a number of more than {LONGEST_NUMBER} digits")
    return Decimal(text)


def _path(kind: type[PurePath], *parts: Any) -> str:
    """Return a path as text, as ADK writes it in JSON."""
    if not all(type(part) is str for part in parts):
        raise refused("hold a path in a form that Python does not write")
    return str(kind(*parts))


def _bytes(value: Any = b"") -> bytes:
    if type(value) is not bytes:
        raise refused("hold bytes in a form that Python does not write")
    return value


def _ordered_dict() -> dict[Any, Any]:
    """Return an empty one: its items come by another operation."""
    return {}


def _default_dict(maker: Any = None) -> dict[Any, Any]:
    if maker is not None and (type(maker) is not Name or maker.pair not in TYPES):
        raise refused("hold a defaultdict of something that is no plain type")
    return {}


_PYDANTIC: Final = frozenset(
    {"__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__"}
)
KEYS: Final = frozenset({int, float, bool, bytes, type(None)})
IS_UUID: Final = ("uuid", "UUID")
FIELDS: Final[Mapping[tuple[str, str], Callable[[Mapping[Any, Any]], dict[str, Any]]]] = {
    IS_UUID: _fields_of_uuid
}
_PATHS: Final = {
    "PosixPath": PurePosixPath,
    "PurePosixPath": PurePosixPath,
    "WindowsPath": PureWindowsPath,
    "PureWindowsPath": PureWindowsPath,
}
VALUES: Final[Mapping[tuple[str, str], Callable[..., Any]]] = {
    ("datetime", "datetime"): _moment,
    ("datetime", "date"): _date,
    ("datetime", "time"): _time,
    ("datetime", "timedelta"): timedelta,
    ("datetime", "timezone"): _zone,
    ("decimal", "Decimal"): _decimal,
    ("builtins", "bytearray"): _bytes,
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "defaultdict"): _default_dict,
    **{
        (module, name): partial(_path, kind)
        for module in ("pathlib", "pathlib._local")
        for name, kind in _PATHS.items()
    },
}
"""The functions that make a value from the arguments that Python's pickles give its type."""

MADE_EMPTY: Final = MODELS | {IS_UUID}
ADMITTED: Final = MADE_EMPTY | ENUMS | TYPES | frozenset(VALUES)
