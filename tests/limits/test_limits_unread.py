"""Connections whose readers do not read, on real sockets and by a clock of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from datetime import timedelta
from types import SimpleNamespace

import pytest
import uvicorn

from lapse.limits.protocol import bounded
from lapse.limits.rules import MIB, Bounds
from lapse.limits.unread import Unread, let_go_of

SOON = timedelta(milliseconds=200)
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CHUNK = b"x" * 65536
PATIENCE = 60
"""Seconds after which a reader fails: a broken server may keep a connection for ever."""


class App:
    """Answers as its path says; `left` counts the requests that heard that nobody listens."""

    def __init__(self):
        self.begun = 0
        self.left = 0

    async def __call__(self, scope, receive, send):
        self.begun += 1
        if scope["type"] == "websocket":
            await self._talk(receive, send)
        elif scope["path"] == "/stream":
            await self._stream(receive, send)
        else:
            size = int(scope["path"][1:])
            headers = [(b"content-length", b"%d" % size)]
            if scope["query_string"] == b"close":
                headers.append((b"connection", b"close"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"x" * size})
            return
        self.left += 1

    async def _stream(self, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.create_task(left(receive))
        while not leaving.done():
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            await asyncio.sleep(0.001)

    async def _talk(self, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        leaving = asyncio.create_task(left(receive))
        with contextlib.suppress(Exception):  # uvicorn's, of which its code has the name
            while not leaving.done():
                await send({"type": "websocket.send", "bytes": CHUNK})
                await asyncio.sleep(0.001)
        await leaving


async def left(receive):
    while not (await receive())["type"].endswith("disconnect"):
        pass


class Reader:
    """A client that reads nothing unless it is told to."""

    def __init__(self, port):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        self.port = port

    async def ask(self, *requests):
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", self.port))
        await loop.sock_sendall(self.socket, b"".join(requests))
        return self

    async def all(self):
        """Return how many bytes come until the server closes, and whether it aborted."""
        loop, got = asyncio.get_running_loop(), 0
        try:
            async with asyncio.timeout(PATIENCE):
                while data := await loop.sock_recv(self.socket, MIB):
                    got += len(data)
        except ConnectionResetError:
            return got, True
        return got, False

    async def some(self, size):
        loop, got = asyncio.get_running_loop(), 0
        async with asyncio.timeout(PATIENCE):
            while got < size:
                got += len(await loop.sock_recv(self.socket, min(65536, size - got)))


async def until(condition):
    async with asyncio.timeout(8):
        while not condition():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
async def serve():
    """Return what serves an application with some bounds: its protocol and a maker of readers."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(app, **bounds):
            protocol = bounded(Bounds(**{"write_time": SOON} | bounds))
            config = uvicorn.Config(
                app,
                port=0,
                http=protocol,
                lifespan="off",
                log_config=None,
                timeout_keep_alive=600,
                timeout_graceful_shutdown=1,
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve())
            stack.push_async_callback(asyncio.wait, [serving])
            stack.callback(setattr, server, "should_exit", True)
            await until(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]

            async def reader(*requests):
                one = Reader(port)
                stack.callback(one.socket.close)
                return await one.ask(*requests)

            connections = server.server_state.connections
            return SimpleNamespace(unread=protocol.unread, reader=reader, connections=connections)

        yield start


@pytest.mark.parametrize(
    "requests",
    [
        [GET % b"/20000000"],
        [GET % b"/20000000?close"],
        [GET % b"/60000"] * 100,
        [GET % b"/stream"],
        [GET % b"/stream", GET % b"/10"],
        [UPGRADE],
    ],
    ids=["answer", "last answer", "many answers", "stream", "stream and more", "websocket"],
)
async def test_who_reads_nothing_is_let_go_whatever_is_written(serve, requests):
    """Seen to fail with `close` for `abort`, and without the look.

    "Stream and more" fails without `_disconnect` in `connection_lost`, "websocket" without the
    class that watches.
    """
    app = App()
    server = await serve(app)
    reader = await server.reader(*requests)
    await until(lambda: server.unread.size)
    await until(lambda: not server.connections)
    _, aborted = await reader.all()
    assert aborted
    assert server.unread.size == 0
    if requests[0] in {GET % b"/stream", UPGRADE}:
        await until(lambda: app.left == 1)


async def test_who_reads_late_gets_all_of_it(serve):
    server = await serve(App(), write_time=timedelta(hours=1))
    reader = await server.reader(GET % b"/20000000?close")
    await until(lambda: server.unread.size)
    got, aborted = await reader.all()
    assert (got > 20_000_000, aborted) == (True, False)
    await until(lambda: not server.connections)
    assert server.unread.size == 0


async def test_room_is_made_of_who_does_not_read(serve):
    """Seen to fail with a `_made_room` that only looks for idle connections: 503."""
    app = App()
    server = await serve(app, connections=3, write_time=timedelta(hours=1))
    for number in range(3):
        await server.reader(GET % b"/stream")
        await until(lambda number=number: len(server.unread._held) == number + 1)
    reader = await server.reader(GET % b"/10")
    await reader.some(60)
    await until(lambda: app.left == 1)
    assert len(server.connections) == 3
    assert len(server.unread._held) == 2


async def test_an_answer_that_is_still_being_read_is_not_idle(serve):
    """Seen to fail where a connection is idle as soon as its answer has been written."""
    server = await serve(App(), connections=2, write_time=timedelta(hours=1))
    slow = await server.reader(GET % b"/20000000")
    await until(lambda: server.unread.size)
    idle = await server.reader(GET % b"/10")
    await idle.some(60)
    new = await server.reader(GET % b"/10?close")
    assert (await new.all())[1] is False
    assert (await idle.all())[1] is False
    await slow.some(20_000_000)


async def test_an_idle_connection_makes_room_before_one_that_reads_slowly(serve):
    """Seen to fail where whoever has unread bytes goes first."""
    server = await serve(App(), connections=2, write_time=timedelta(hours=1))
    idle = await server.reader(GET % b"/10")
    await idle.some(60)
    slow = await server.reader(GET % b"/20000000?close")
    await until(lambda: server.unread.size)
    new = await server.reader(GET % b"/10?close")
    assert (await new.all())[1] is False
    assert (await idle.all())[1] is False
    got, aborted = await slow.all()
    assert (got > 20_000_000, aborted) == (True, False)


async def test_all_together_leave_only_so_much_unread(serve):
    """Seen to fail without `_keep_within`."""
    app = App()
    server = await serve(app, unread=30 * MIB, write_time=timedelta(hours=1))
    readers = []
    for number in range(4):
        readers.append(await server.reader(GET % b"/20000000?close"))
        await until(lambda number=number: app.begun == number + 1)
        await until(lambda: len(server.connections) == 1)
    for first in readers[:3]:
        assert (await first.all())[1]
    got, aborted = await readers[3].all()
    assert (got > 20_000_000, aborted) == (True, False)


async def test_an_application_can_have_its_reader_let_go(serve):
    """Seen to fail with a function that closes."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": CHUNK * 400, "more_body": True})
        let_go_of(scope)()
        await left(receive)
        let_go_of(scope)()  # closed by now

    server = await serve(app, write_time=timedelta(hours=1))
    reader = await server.reader(GET % b"/")
    await until(lambda: not server.connections)
    assert (await reader.all())[1]


async def test_a_websocket_is_not_asked_for_behind_a_request_that_is_being_answered(serve):
    """What follows a chunked body may be parsed with it.

    Seen to fail without the refusal: the request never hears that its reader has left.
    """
    app = App()
    server = await serve(app, write_time=timedelta(hours=1))
    head = b"POST /stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    reader = await server.reader(head)
    await until(lambda: server.unread.size)
    await asyncio.get_running_loop().sock_sendall(reader.socket, b"0\r\n\r\n" + UPGRADE)
    await until(lambda: app.left == 1)
    reader.socket.close()
    await until(lambda: not server.connections)
    assert app.begun == 1


# By a clock of the test's own.


class Clock:
    def __init__(self):
        self.now = 0.0
        self.next = None

    def time(self):
        return self.now

    def call_later(self, pause, call, *args):
        self.next = (self.now + pause, call, args)

    def forward(self, seconds):
        end = self.now + seconds
        while self.next and self.next[0] <= end:
            (self.now, call, args), self.next = self.next, None
            call(*args)
        self.now = end


class Transport:
    """Holds bytes; of its socket only the way in which it is closed matters."""

    def __init__(self, size):
        self.size = size
        self.aborted = False

    def get_write_buffer_size(self):
        return self.size

    def get_extra_info(self, _name):
        return None

    def abort(self):
        self.aborted = True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


def holding(unread, *sizes):
    made = [Transport(size) for size in sizes]
    for transport in made:
        unread.add(transport)
    return made


def test_who_reads_a_little_stays_as_long_as_that(clock):
    """Seen to fail where progress is not noted: it is let go after 30 s."""
    unread = Unread(Bounds())
    slow, gone = holding(unread, 1000, 1000)
    for _ in range(40):
        slow.size -= 1
        clock.forward(25)
    assert not slow.aborted
    assert gone.aborted
    assert unread.size == slow.size == 960
    clock.forward(31)
    assert slow.aborted
    assert unread.size == 0
    assert clock.next is None


def test_what_grows_makes_no_progress(clock):
    """The answers to a WebSocket's pings are held, too. Seen to fail where any change counts."""
    unread = Unread(Bounds(unread=10_000))
    (pinging,) = holding(unread, 1000)
    for _ in range(31):
        pinging.size += 100
        clock.forward(1)
    assert pinging.aborted


def test_those_without_progress_for_longest_go_first(clock):
    """Seen to fail where the order is that of their coming."""
    unread = Unread(Bounds(unread=3000))
    first, second, third = holding(unread, 1000, 1000, 1000)
    first.size -= 1
    clock.forward(3)
    assert not unread.make_room(at_once=False) or second.aborted
    (new,) = holding(unread, 1500)
    assert [each.aborted for each in (first, second, third, new)] == [False, True, True, False]
    assert unread.make_room(at_once=True)
    assert first.aborted
    assert unread.size == 1500


def test_room_is_made_at_once_only_of_who_is_not_just_slow(clock):
    unread = Unread(Bounds())
    holding(unread, 1000)
    assert not unread.make_room(at_once=False)
    clock.forward(2)
    assert unread.make_room(at_once=False)
    assert not unread.make_room(at_once=True)


def test_one_answer_may_be_larger_than_the_bound(clock):
    """Seen to fail where the newest one goes, too."""
    unread = Unread(Bounds(unread=1000))
    (large,) = holding(unread, 5000)
    clock.forward(5)
    assert not large.aborted
    (small,) = holding(unread, 10)
    assert large.aborted
    assert not small.aborted
