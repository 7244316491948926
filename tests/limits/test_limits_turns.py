"""Strangers wait for their turn, users do not, and requests that come at once are parsed singly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import SimpleNamespace

import pytest
import uvicorn

from lapse.core.request import tell_known
from lapse.limits.protocol import bounded
from lapse.limits.rules import Bounds
from lapse.limits.turns import Turns

GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b"POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)
PATIENCE = 30


class App:
    """Knows the caller of `/user`, keeps `/held` waiting, and answers each request with its path.

    `begun` has the paths of requests, in their order.
    """

    def __init__(self):
        self.begun = []
        self.release = asyncio.Event()

    async def __call__(self, scope, receive, send):
        path = scope["path"]
        self.begun.append(path)
        if path == "/user":
            tell_known(scope)
        if path == "/held":
            await self.release.wait()
        size = 0
        message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            size += len(message.get("body", b""))
        said = f"{path}:{size};".encode()
        headers = [(b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})


class Client:
    def __init__(self, port):
        self.port = port
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.got = b""

    async def connect(self):
        await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", self.port))
        return self

    def say(self, data):
        """Send at once, before the server's loop has another pass."""
        assert self.socket.send(data) == len(data)

    async def hear(self, end):
        """Return all that has come, once this has come or the server has closed."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            while end not in self.got:
                data = await loop.sock_recv(self.socket, 65536)
                if not data:
                    break
                self.got += data
        return self.got


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
async def serve():
    """Return what serves an application: its protocol, how many heads it parsed, and clients."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(app, **bounds):
            parsed = []

            class Counting(bounded(Bounds(**bounds))):
                def on_headers_complete(self):
                    parsed.append(self.url)
                    super().on_headers_complete()

            config = uvicorn.Config(
                app,
                port=0,
                http=Counting,
                lifespan="off",
                log_config=None,
                timeout_keep_alive=600,
                timeout_graceful_shutdown=1,
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve())
            stack.push_async_callback(asyncio.wait, [serving])
            stack.callback(setattr, server, "should_exit", True)
            stack.callback(app.release.set)
            await until(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]

            async def client():
                one = Client(port)
                stack.callback(one.socket.close)
                return await one.connect()

            return SimpleNamespace(
                protocol=Counting,
                parsed=parsed,
                client=client,
                connections=server.server_state.connections,
            )

        yield start


@pytest.mark.parametrize("first", [GET, BODY, CHUNKED], ids=["head", "body", "chunks"])
async def test_of_requests_that_come_at_once_one_is_parsed_and_then_the_next(serve, first):
    """Seen to fail without `_is_answering`: all are parsed at once, which stops the loop."""
    app = App()
    server = await serve(app)
    client = await server.client()
    client.say(first % b"held" + b"".join(GET % b"%d" % n for n in range(1_000)))
    await until(lambda: app.begun)
    # What follows a chunked body is parsed in pieces, because its end is not known before.
    assert len(server.parsed) == 1 if first is not CHUNKED else len(server.parsed) < 400
    app.release.set()
    await client.hear(b"/999:0;")
    assert app.begun == ["/held", *(f"/{n}" for n in range(1_000))]


async def test_the_rest_of_a_body_is_parsed_without_what_follows_it(serve):
    """Seen to fail with `_body_left` that counts nothing down: hundreds are parsed with it."""
    app = App()
    server = await serve(app)
    client = await server.client()
    client.say(b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 4_999)
    await until(lambda: app.begun)
    client.say(b"x" + b"".join(GET % b"%d" % n for n in range(1_000)))
    app.release.set()
    await client.hear(b"/held:5000;")
    assert len(server.parsed) < 20
    await client.hear(b"/999:0;")


async def test_a_client_that_leaves_is_noticed_although_it_has_asked_for_more(serve):
    """Seen to fail with reading paused as soon as a request waits for the answer before it."""
    app = App()
    server = await serve(app)
    client = await server.client()
    client.say(GET % b"held" + GET % b"a")
    await until(lambda: app.begun)
    client.socket.close()
    await until(lambda: not server.connections)
    assert app.begun == ["/held"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000], ids=str)
async def test_every_request_is_read_whole_however_it_is_cut(serve, size):
    """Seen to fail without what came later."""
    app = App()
    server = await serve(app)
    client = await server.client()
    whole = GET % b"a" + BODY % b"b" + CHUNKED % b"c" + BODY % b"d" + GET % b"e" + GET % b"end"
    for begin in range(0, len(whole), size):
        client.say(whole[begin : begin + size])
        await asyncio.sleep(0)
    got = await client.hear(b"/end:0;")
    answers = [one.rpartition(b"\n")[2] for one in got.split(b";")]
    assert answers == [b"/a:0", b"/b:5", b"/c:5", b"/d:5", b"/e:0", b"/end:0", b""]


async def test_a_users_request_does_not_wait_for_those_of_strangers_before_it(serve):
    """Seen to fail with turns for nobody: all strangers are answered before the user."""
    app = App()
    server = await serve(app)
    user = await server.client()
    user.say(GET % b"user")
    await user.hear(b"/user:0;")
    strangers = [await server.client() for _ in range(200)]
    await until(lambda: len(server.connections) == 201)
    for one in strangers:
        one.say(GET % b"stranger")
    user.got = b""
    user.say(GET % b"user")
    await user.hear(b"/user:0;")
    assert app.begun.count("/stranger") < 50
    for one in strangers:
        assert await one.hear(b";")


async def test_strangers_make_room_before_users_do(serve):
    """Seen to fail with one list of idle connections: the user's is the one idle for longest."""
    app = App()
    server = await serve(app, connections=5)
    user = await server.client()
    user.say(GET % b"user")
    await user.hear(b"/user:0;")
    for _ in range(20):
        await server.client()
    await until(lambda: len(server.connections) == 5)
    user.got = b""
    user.say(GET % b"user")
    assert b"/user:0;" in await user.hear(b"/user:0;")


async def test_a_stranger_who_has_left_makes_no_room(serve):
    """Seen to fail with connections that stay in the turns after they are closed: they alone
    make room, and a connection that is open finds none.
    """
    app = App()
    server = await serve(app)
    turns = server.protocol.turns
    turns.has_callers = turns._is_taken = True  # as while a stranger's request begins
    strangers = [await server.client() for _ in range(3)]
    for one in strangers:
        one.say(GET % b"stranger")
    await until(lambda: sum(map(len, turns._waiting.values())) == 3)
    for one in strangers[1:]:
        one.socket.close()
    await until(lambda: len(server.connections) == 1)
    assert turns.make_room()
    assert await strangers[0].hear(b"never") == b""
    assert not turns.make_room()
    assert app.begun == []


# The turns alone.


class Waiting:
    def __init__(self, name, order, *, is_here=True):
        self.name, self.order, self.is_here = name, order, is_here

    def begin(self):
        if self.is_here:
            self.order.append(self.name)
        return self.is_here

    def give_way(self):
        self.order.append(f"{self.name} gave way")


async def passes_until(order, count):
    """Return how many passes of the loop it takes until so many have begun."""
    for passes in range(1_000):
        if len(order) >= count:
            return passes
        await asyncio.sleep(0)
    raise AssertionError(order)


async def test_nobody_waits_for_a_turn_before_a_caller_is_known():
    """Seen to fail with `has_callers` from the beginning."""
    turns, order = Turns(), []
    for number in range(20):
        turns.take(Waiting(number, order), "a")
    assert order == [*range(20)]


async def test_addresses_take_turns():
    """Seen to fail with one queue for all."""
    turns, order = Turns(), []
    turns.has_callers = True
    for address, count in (("a", 4), ("b", 2), ("c", 1)):
        for number in range(count):
            turns.take(Waiting(f"{address}{number}", order), address)
    await passes_until(order, 7)
    assert order == ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]


async def test_one_pass_of_the_loop_begins_one():
    """Seen to fail with a `_next` that begins all that wait."""
    turns, order = Turns(), []
    turns.has_callers = True
    for number in range(50):
        turns.take(Waiting(number, order), "a")
    before = len(order)
    while len(order) < 50:
        await asyncio.sleep(0)
        assert len(order) - before <= 1
        before = len(order)


async def test_who_has_left_takes_no_turn():
    """Seen to fail with an `if` in `_next`: each of those takes a pass of the loop."""
    turns, order = Turns(), []
    turns.has_callers = True
    for number in range(100):
        turns.take(Waiting(number, order, is_here=number % 50 == 0), "a")
    turns.take(Waiting("last", order), "b")
    assert await passes_until(order, 3) < 20
    assert order == [0, "last", 50]


async def test_an_address_whose_strangers_have_left_has_none():
    """Seen to fail with a `discard` that leaves an address without strangers."""
    turns, order = Turns(), []
    turns.has_callers = True
    turns.take(Waiting("begun", order), "x")
    for_b = [Waiting(f"b{number}", order) for number in range(3)]
    turns.take(Waiting("a0", order), "a")
    for one in for_b:
        turns.take(one, "b")
    for one in for_b:
        turns.discard(one, "b")
        turns.discard(one, "b")
    turns.discard(for_b[0], "c")
    assert turns.make_room()
    assert not turns.make_room()
    assert order == ["begun", "a0 gave way"]


async def test_the_address_with_most_makes_room():
    """Seen to fail with the one whose turn is next."""
    turns, order = Turns(), []
    turns.has_callers = True
    turns.take(Waiting("begun", order), "x")
    turns.take(Waiting("a0", order), "a")
    for number in range(3):
        turns.take(Waiting(f"b{number}", order), "b")
    assert turns.make_room()
    assert turns.make_room()
    assert order == ["begun", "b2 gave way", "b1 gave way"]
    await passes_until(order, 5)
    assert order[3:] == ["a0", "b0"]
