"""The connections of one process to PostgreSQL: as many as the pool's size, on all event loops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import suppress
from datetime import timedelta
from typing import Final

import asyncpg

from lapse.core.errors import LapseError
from lapse.core.forks import Forked
from lapse.store.postgres.place import PARTING, Connection, Place, inherited, loop_here

_LONGEST_IDLE: Final = timedelta(minutes=5)
"""A connection that was not needed for so long is closed."""


class _Gate:
    """A lock that gives back, once it is released, the places that came back meanwhile.

    The garbage collector may run amid a block of this lock, and destroy what a closed event loop
    has left: a statement that was in flight then gives its place back, in the thread that holds the
    lock. Entering tells whether this is such a block within another.
    """

    def __init__(self, give_back: Callable[[Place], None]) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._give_back = give_back
        self.late: deque[Place] = deque()

    def __enter__(self) -> bool:
        self._lock.acquire()
        self._depth += 1
        return self._depth > 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        is_over = not self._depth
        self._lock.release()
        while is_over and self.late:
            try:
                place = self.late.popleft()
            except IndexError:  # another thread was faster
                return
            self._give_back(place)


class Pool(Forked):
    """Lends connections to the event loops of one process, at most `size` in all.

    A connection works on the loop that made it. A loop that needs one, when all places are taken,
    gets the place of a connection that is idle on another loop; that connection is closed. Nothing
    of a loop is left when it ends: `loop.shutdown_asyncgens`, which `asyncio.run` calls, closes its
    connections. Those of a loop that was closed without it are closed when the next one is needed.

    Args:
        size: the maximum of connections.
        connect: makes a connection on the running event loop.
        timeout: how long it may take until a connection is made, or is free.
    """

    def __init__(
        self, size: int, connect: Callable[[], Awaitable[Connection]], timeout: timedelta
    ) -> None:
        self._connect = connect
        self.limit(size, timeout)
        self.is_closed = False
        self._forget_all()
        self.survive_forks()

    def limit(self, size: int, timeout: timedelta) -> None:
        """Lend so many connections, and take so long, from now on."""
        self._size = size
        self._timeout = timeout.total_seconds()

    def _forget_all(self) -> None:
        self._gate = _Gate(self.give_back)
        self._places: set[Place] = set()
        self._parting = 0
        """How many connections are about to end, whose places are lent again after that."""

        self._idle: list[Place] = []
        self._beside: set[Place] = set()
        self._waiting: deque[asyncio.Future[Place]] = deque()
        self._loops: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}

    async def take(self) -> Place:
        """Return a place with a connection; whoever takes it gives it back.

        Raises:
            TimeoutError: none was free, or could be made, in time.
            asyncpg.InterfaceError: the pool is closed.
        """
        loop = asyncio.get_running_loop()
        with self._gate:
            place = self._idle.pop() if self._idle and self._idle[-1].loop is loop else None
        if place is None or not place.is_usable:
            return await self._take_slowly(loop, place)
        return place

    def give_back(self, place: Place) -> None:
        """Give a place back, for whoever has waited for one the longest."""
        now = time.monotonic()
        with self._gate as is_within:
            if is_within:
                self._gate.late.append(place)
                return
            if place not in self._places:
                place.cut()  # the pool was closed meanwhile
                return
            if self._waiting and not self.is_closed and self._hand_over(place):
                return
            if place.is_usable and not self.is_closed:
                place.idle_since = now
                self._idle.append(place)
            else:
                self._drop(place)
            if self._idle and now - self._idle[0].idle_since > _LONGEST_IDLE.total_seconds():
                self._drop(self._idle.pop(0))

    async def give_back_after(self, place: Place, error: BaseException) -> None:
        """Give a place back whose work has failed; its connection is closed unless it is sound."""
        connection = place.connection
        try:
            if connection is None:
                return  # the pool was closed meanwhile
            if not isinstance(error, asyncpg.PostgresError | LapseError):
                # It may be in the middle of a statement, which asyncpg has asked the server to end.
                async with asyncio.timeout(PARTING.total_seconds()):
                    await connection.execute("SELECT 1")
            if connection.is_in_transaction():
                place.cut()
        except Exception:  # noqa: BLE001 - whatever it is, the connection is not sound
            place.cut()
        except BaseException:
            place.cut()
            raise
        finally:
            self.give_back(place)

    async def note(self, connection: Connection) -> None:
        """Close this connection, too, when its loop ends; it does not count in the pool's size."""
        loop = asyncio.get_running_loop()
        await self._watch(loop)
        place = Place(loop)
        place.connection = connection
        with self._gate:
            self._beside = {other for other in self._beside if other.is_usable} | {place}

    async def close(self) -> None:
        """Close all connections and lend none until `open`.

        Statements in flight have a moment to end. Connections of other loops are cut off.
        """
        self.is_closed = True
        with self._gate:
            idle, self._idle = self._idle, []
            self._places.difference_update(idle)
            waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            with suppress(RuntimeError):  # its loop was closed
                future.get_loop().call_soon_threadsafe(_refuse, future)
        await _part(idle)
        end = time.monotonic() + PARTING.total_seconds()
        while self._places and time.monotonic() < end:
            await self._end_dead_loops()
            await asyncio.sleep(0.005)
        with self._gate:
            for place in list(self._places):
                self._drop(place)
        guard = self._loops.pop(asyncio.get_running_loop(), None)
        if guard is not None:
            await guard.aclose()

    def open(self) -> None:
        """Lend connections again, after `close`."""
        self.is_closed = False

    def after_fork_in_child(self) -> None:
        """Begin with no connection: those that there were are the parent's."""
        inherited.append(
            (self._gate, self._places, self._idle, self._waiting, self._loops, self._beside)
        )
        self._forget_all()

    async def _take_slowly(self, loop: asyncio.AbstractEventLoop, place: Place | None) -> Place:
        async with asyncio.timeout(self._timeout):
            if place is None:
                await self._end_dead_loops()
                await self._watch(loop)
                found = self._find(loop)
                place = found if isinstance(found, Place) else await self._wait(found)
            if place.is_usable:
                return place
            try:
                await place.left()
                place.connection = await self._connect()
                if self.is_closed:
                    raise _closed()
            except BaseException:
                place.cut()
                self.give_back(place)
                raise
            return place

    def _find(self, loop: asyncio.AbstractEventLoop) -> Place | asyncio.Future[Place]:
        """Return an idle place or a new one; if all are taken, a future that will have one."""
        with self._gate:
            for number in reversed(range(len(self._idle))):
                if self._idle[number].loop is loop:
                    return self._idle.pop(number)
            if len(self._places) + self._parting < self._size:
                place = Place(loop)
                self._places.add(place)
                return place
            if self._idle:
                place = self._idle.pop(0)
                place.move(loop)
                return place
            future: asyncio.Future[Place] = loop.create_future()
            self._waiting.append(future)
            return future

    async def _wait(self, future: asyncio.Future[Place]) -> Place:
        try:
            return await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back(future.result())
            raise

    def _hand_over(self, place: Place) -> bool:
        """Give a place to the first who waits; return whether somebody does."""
        while self._waiting:
            future = self._waiting.popleft()
            loop = future.get_loop()
            if future.done() or loop.is_closed():
                continue
            if place.loop is not loop:
                place.move(loop)
            if loop is loop_here():
                future.set_result(place)
                return True
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._settle, future, place)
                return True
        return False

    def _settle(self, future: asyncio.Future[Place], place: Place) -> None:
        if future.done():
            self.give_back(place)
        else:
            future.set_result(place)

    def _drop(self, place: Place) -> None:
        self._places.discard(place)
        place.cut()

    async def _end_dead_loops(self) -> None:
        """Close what loops have left that were closed without an end of their generators."""
        for loop in [loop for loop in list(self._loops) if loop.is_closed()]:
            self._loops.pop(loop, None)
            await self._end(loop)

    async def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the connections of a loop that ends or is closed, and then lend its places.

        A place that is lent before would be one too many until the server has ended its connection.
        """
        with self._gate:
            own = {place for place in self._places if place.loop is loop}
            beside = {place for place in self._beside if place.loop is loop}
            self._places -= own
            self._beside -= beside
            self._idle = [place for place in self._idle if place not in own]
            self._parting += len(own)
        try:
            await _part(own | beside)
        finally:
            with self._gate:
                self._parting -= len(own)
                for _ in own:
                    place = Place(loop)
                    if not self.is_closed and self._hand_over(place):
                        self._places.add(place)

    async def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make sure that the loop's connections are closed when it ends."""
        if loop not in self._loops:
            guard = self._loops[loop] = self._until_the_end(loop)
            await anext(guard)

    async def _until_the_end(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            await self._end(loop)


async def _part(places: Collection[Place]) -> None:
    try:
        await asyncio.gather(*(place.part() for place in places), return_exceptions=True)
    finally:
        for place in places:
            place.cut()


def _refuse(future: asyncio.Future[Place]) -> None:
    if not future.done():
        future.set_exception(_closed())


def _closed() -> asyncpg.InterfaceError:
    return asyncpg.InterfaceError("the pool is closed")
