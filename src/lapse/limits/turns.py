"""Turns of strangers: their requests begin one after the other, and users' requests do not wait.

A connection is a stranger's until a request on it has had a known caller. One pass of the event
loop begins at most one request of strangers, and where others have work in the loop, too, strangers
get a third of its time. So users do not wait longer for a large crowd than for a small one.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from itertools import islice
from typing import Final, Protocol

_OTHERS: Final = 2
"""How many times as long as a request of a stranger took others have the loop before the next."""

_QUIET: Final = 0.25
"""A pass that takes less than this part of a stranger's request has no work of others in it."""


_LOOKED_AT: Final = 64
"""Among how many addresses the one with most connections is looked for."""


class Stranger(Protocol):
    """A connection of which no caller is known, with a request that has not begun."""

    def begin(self) -> bool:
        """Begin the request; return False if the connection is closed."""

    def give_way(self) -> None:
        """Close the connection."""


class Turns:
    """The strangers of one server that wait to begin a request, by their addresses.

    The addresses take turns, so that a stranger waits for one request of each other address at
    most, and for the earlier ones of its own. Nobody waits before the first caller has been known:
    until then there is nobody for whom strangers should wait.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, OrderedDict[Stranger, None]] = OrderedDict()
        self._is_taken = False
        self._began = self._ended = self._looked = 0.0
        self.has_callers = False

    def take(self, stranger: Stranger, address: str) -> None:
        """Begin a stranger's request: at once if no other stranger's has begun, or in its turn."""
        if not self.has_callers:
            stranger.begin()
        elif self._is_taken:
            self._waiting.setdefault(address, OrderedDict())[stranger] = None
        else:
            self._begin(stranger)

    def make_room(self) -> bool:
        """Close the last connection of the address that has most; False: nobody waits."""
        if not self._waiting:
            return False
        some = islice(self._waiting, _LOOKED_AT)
        address = max(some, key=lambda one: len(self._waiting[one]))
        strangers = self._waiting[address]
        last, _ = strangers.popitem()
        if not strangers:
            del self._waiting[address]
        last.give_way()
        return True

    def discard(self, stranger: Stranger, address: str) -> None:
        """Forget a stranger whose connection is closed, if it waits."""
        strangers = self._waiting.get(address)
        if strangers is not None:
            strangers.pop(stranger, None)
            if not strangers:
                del self._waiting[address]

    def _first(self) -> Stranger | None:
        if not self._waiting:
            return None
        address, strangers = self._waiting.popitem(last=False)
        first, _ = strangers.popitem(last=False)
        if strangers:
            self._waiting[address] = strangers
        return first

    def _begin(self, stranger: Stranger) -> bool:
        """Begin a request, and have the next one look for its turn once this has had its step."""
        call_soon = asyncio.get_running_loop().call_soon
        begins = call_soon(self._note_begin)
        if not stranger.begin():
            begins.cancel()
            return False
        self._is_taken = True
        call_soon(self._note_end)
        return True

    def _note_begin(self) -> None:
        self._began = time.perf_counter()

    def _note_end(self) -> None:
        self._ended = self._looked = time.perf_counter()
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        now = time.perf_counter()
        took, passed, since = self._ended - self._began, now - self._looked, now - self._ended
        self._looked = now
        if passed < _QUIET * took or since >= _OTHERS * took:
            while (stranger := self._first()) is not None:
                if self._begin(stranger):
                    return
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._is_taken = False
