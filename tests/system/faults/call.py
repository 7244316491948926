"""One call of an operation that writes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from backends import T0
from parts import Store


@dataclass(frozen=True)
class Call:
    """One call of an operation.

    `answers_the_same` is False where a repeat does not know what an attempt did whose answer was
    lost: what the operation's docstring says of a repeat is then all that the caller learns.
    `besides` is a table in which a repeat may leave something else.
    """

    needs: Callable[[Store], Awaitable[Any]]
    make: Callable[[Store], Awaitable[Any]]
    at: Any = T0
    answers_the_same: bool = True
    besides: str = ""
