"""Reads the pickled `actions` of ADK's schema version 0, and executes nothing of what they hold.

This is no unpickler: `pickletools` splits the bytes into operations, and the steps here build plain
data from those that ADK's pickles consist of. No name is imported, nothing that a pickle names is
called or gets an attribute, and every other operation or name ends the reading. What a pickle can
cost is bounded, too: its operations, the depth and the size of what it expands to.
"""

from __future__ import annotations

import pickletools  # nosec B403 - it splits a pickle into operations, and runs none
import struct
from collections.abc import Callable, Mapping
from decimal import InvalidOperation
from typing import Any, Final

from lapse.core.errors import InvalidValueError
from lapse.databases.v0.names import ACTIONS, ENUMS
from lapse.databases.v0.values import (
    ADMITTED,
    FIELDS,
    IS_UUID,
    KEYS,
    LONGEST_NUMBER,
    MADE_EMPTY,
    VALUES,
    Model,
    Name,
    fields_of_model,
    refused,
)

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a pickle, and of all text and bytes that it expands to."""

MOST: Final = 1_000_000
"""Operations of a pickle, and values that it expands to: a pickle may name a value many times."""

DEEPEST: Final = 100
"""Levels of nesting."""

_MOST_UNUSUAL: Final = 2_000
"""Keys and members that are no text: their hashes can be made to collide, a text's cannot."""

_OLDEST, _NEWEST = 4, 5
"""The protocols of pickle that ADK's Pythons, and SQLAlchemy, write."""


def read_actions(data: object) -> dict[str, Any] | None:
    """Return the fields of pickled actions as plain data; None if they hold None.

    Text, numbers, lists, dicts, sets and bytes are what they are; dates, decimals, UUIDs and paths
    are made here; a model becomes the dict of its fields and an enumeration's member its value.

    Raises:
        InvalidValueError: it is no pickle that ADK has written, it holds what is not on the closed
            list, or it would expand to too much. Nothing of it was executed.
    """
    if not isinstance(data, bytes):
        raise refused("are no bytes")
    if len(data) > LARGEST:
        raise refused(f"have more than {LARGEST:,} bytes")
    machine = _Machine()
    end = 0
    try:
        for number, (operation, argument, place) in enumerate(pickletools.genops(data)):
            step = _STEPS.get(operation.name)
            if step is None:
                raise refused(f"have the operation {operation.name}, which ADK never writes")
            if number >= MOST:
                raise refused(f"have more than {MOST:,} operations")
            step(machine, argument)
            end = (place or 0) + 1
        if end != len(data):
            raise refused("go on after their end")
        return _Expansion().of_actions(machine.result())
    except InvalidValueError:
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        OverflowError,
        InvalidOperation,
        RecursionError,
        struct.error,
    ) as error:
        raise refused(f"are damaged ({type(error).__name__})") from None


class _Mark:
    """Where the operands of an operation begin."""


_MARK: Final = _Mark()


class _Machine:
    """The stack and the memo of a pickle, with plain data on them."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: list[Any] = []
        self._unusual = 0
        self._ended = False

    def result(self) -> Any:
        (value,) = self._stack
        if not self._ended:
            raise refused("have no end")
        return value

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise refused("are damaged (a mark where a value should be)")
        return value

    def above_mark(self) -> list[Any]:
        """Take what stands above the last mark, and the mark."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise refused("are damaged (a mark is missing)")
        found = self._stack[at + 1 :]
        del self._stack[at:]
        return found

    def top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise refused(f"fill something that is no {kind.__name__}")
        return self._stack[-1]

    def end(self) -> None:
        self._ended = True

    # What follows are the steps that are more than one line.

    def protocol(self, number: int) -> None:
        if not _OLDEST <= number <= _NEWEST:
            raise refused(f"have the protocol {number}, which ADK never writes")

    def number(self, value: int) -> None:
        if value.bit_length() > LONGEST_NUMBER * 3:
            raise refused(f"have a number of more than {LONGEST_NUMBER} digits")
        self.push(value)

    def memoize(self, index: int | None = None) -> None:
        # ADK's Pythons number what they keep one after the other: no gap, so no huge memo.
        if index is not None and index != len(self._memo):
            raise refused("number what they keep in an order that no Python writes")
        self._memo.append(self._stack[-1])

    def recall(self, index: int) -> None:
        self.push(self._memo[index])

    def tuple_of(self, size: int) -> None:
        values = [self.pop() for _ in range(size)]
        self.push(tuple(reversed(values)))

    def append(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        found = self.top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            found[self._hashable(key)] = value

    def add_items(self, values: list[Any]) -> None:
        self.top(set).update(map(self._hashable, values))

    def global_by_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise refused("name something by no text")
        found = Name(module, name)
        if found.pair not in ADMITTED:
            raise refused(f"name {found.shown}, which ADK's actions never hold")
        self.push(found)

    def new(self) -> None:
        arguments, name = self.pop(), self.pop()
        if type(name) is not Name or name.pair not in MADE_EMPTY or arguments != ():
            raise refused("make something that is no model of ADK's")
        self.push(Model(name))

    def call(self) -> None:
        arguments, name = self.pop(), self.pop()
        if type(name) is not Name or type(arguments) is not tuple:
            raise refused("call something")
        if name.pair in ENUMS and len(arguments) == 1 and type(arguments[0]) in {str, int}:
            self.push(arguments[0])
            return
        make = VALUES.get(name.pair)
        if make is None:
            raise refused(f"call {name.shown}")
        self.push(make(*arguments))

    def build(self) -> None:
        state = self.pop()
        model = self.top(Model)
        if model.fields is not None or type(state) is not dict:
            raise refused(f"set up {model.name.shown} in a way that pydantic does not")
        model.fields = FIELDS.get(model.name.pair, fields_of_model)(state)

    def _hashable(self, value: Any) -> Any:
        if type(value) is str:
            return value
        self._unusual += 1
        if type(value) not in KEYS or self._unusual > _MOST_UNUSUAL:
            raise refused(f"have a key or a member of a set that is a {type(value).__name__}")
        return value


_Step = Callable[[_Machine, Any], None]


def _pushes(machine: _Machine, value: Any) -> None:
    machine.push(value)


_STEPS: Final[Mapping[str, _Step]] = {
    "PROTO": _Machine.protocol,
    "FRAME": lambda machine, size: None,  # noqa: ARG005 - `genops` reads on; no frame is kept
    "STOP": lambda machine, _: machine.end(),
    "MARK": lambda machine, _: machine.push(_MARK),
    "MEMOIZE": lambda machine, _: machine.memoize(),
    "BINPUT": _Machine.memoize,
    "LONG_BINPUT": _Machine.memoize,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "BINFLOAT": _pushes,
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4"), _Machine.number),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _pushes),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), _pushes),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.above_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.above_mark()),
    "ADDITEMS": lambda machine, _: machine.add_items(machine.above_mark()),
    "FROZENSET": lambda machine, _: _frozen(machine),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.above_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "GLOBAL": lambda machine, pair: machine.name(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.global_by_stack(),
    "NEWOBJ": lambda machine, _: machine.new(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
}
"""The operations of ADK's pickles. Left out are INST, OBJ, EXT1…, PERSID and all others."""


def _frozen(machine: _Machine) -> None:
    members = machine.above_mark()
    machine.push(set())
    machine.add_items(members)


class _Expansion:
    """Turns what a pickle holds into a tree, and counts what that takes."""

    def __init__(self) -> None:
        self._values = 0
        self._bytes = 0

    def of_actions(self, value: Any) -> dict[str, Any] | None:
        if value is None:
            return None
        if type(value) is Model and value.name.pair != ACTIONS:
            raise refused(f"are {value.name.shown}, and no EventActions")
        if type(value) not in {Model, dict}:
            raise refused("are no EventActions")
        found: dict[str, Any] = self._plain(value, 0)
        return found

    def _plain(self, value: Any, depth: int) -> Any:
        self._count(value, depth)
        match value:
            case Model():
                return self._of_model(value, depth)
            case dict():
                return {
                    self._plain(key, depth + 1): self._plain(one, depth + 1)
                    for key, one in value.items()
                }
            case list() | tuple():
                return [self._plain(one, depth + 1) for one in value]
            case set():
                return {self._plain(one, depth + 1) for one in value}
            case Name():
                raise refused(f"hold {value.shown} itself")
            case _:
                return bytes(value) if isinstance(value, bytearray) else value

    def _of_model(self, model: Model, depth: int) -> Any:
        if model.fields is None:
            raise refused(f"hold {model.name.shown} without its fields")
        if model.name.pair == IS_UUID:
            return model.fields["uuid"]
        return self._plain(model.fields, depth + 1)

    def _count(self, value: Any, depth: int) -> None:
        self._values += 1
        self._bytes += len(value) if isinstance(value, str | bytes | bytearray) else 0
        if depth > DEEPEST:
            raise refused(f"are nested more than {DEEPEST} levels deep")
        if self._values > MOST or self._bytes > LARGEST:
            raise refused(f"expand to more than {MOST:,} values or {LARGEST:,} bytes")
