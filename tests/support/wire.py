"""Raw bytes on a socket, which no HTTP client would send."""

from __future__ import annotations

import json
import select
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import prefixed

PATIENCE = 20.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool

    @property
    def detail(self):
        return json.loads(self.body)["detail"]


class Wire:
    """A connection to a server."""

    def __init__(self, server):
        parts = urlsplit(server.url)
        self.socket = socket.create_connection((parts.hostname, parts.port), PATIENCE)
        self.received = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """Send, or as much of it as the server takes."""
        try:
            self.socket.sendall(data)
        except ConnectionError:
            return False
        return True

    def answer(self, *, head=False):
        """Read one answer; None where the connection is closed without any."""
        while b"\r\n\r\n" not in self.received:
            if not self._more():
                return None
        head_, _, rest = self.received.partition(b"\r\n\r\n")
        first, *lines = head_.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = 0 if head else int(headers.get("content-length", 0))
        while len(rest) < length and self._more():
            rest = self.received.partition(b"\r\n\r\n")[2]
        self.received = rest[length:]
        return Answer(int(first.split()[1]), headers, rest[:length], self.is_closed(headers))

    def is_closed(self, headers):
        return headers.get("connection") == "close" and not self._more()

    def _more(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self.received += data
        return bool(data)


def answer_to(server, data):
    """Send bytes on a new connection and return the answer."""
    with Wire(server) as wire:
        wire.send(data)
        return wire.answer()


def request(method, path, body=b"", *headers):
    """Return a whole request as bytes."""
    lines = [f"{method} {prefixed.prefix}{path} HTTP/1.1".encode(), b"Host: 127.0.0.1", *headers]
    if body:
        lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Mute(Wire):
    """A connection that reads nothing, with little room for what it does not read.

    Its segments are as short as on a network: with those of a loopback device the server's kernel
    would hold 3 MB for it.
    """

    def __init__(self, server, *requests):
        parts = urlsplit(server.url)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((parts.hostname, parts.port))
        self.received = b""
        for one in requests:
            self.send(one)

    def was_reset(self):
        """Return whether the server has thrown away what was not read."""
        poll = select.poll()
        poll.register(self.socket, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))


def upgrade(path):
    """Return a request for a WebSocket, without compression."""
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    more = (b"Upgrade: websocket", b"Connection: Upgrade", key, b"Sec-WebSocket-Version: 13")
    return request("GET", path, b"", *more)


def frame(text):
    """Return a client's message on a WebSocket, masked with zeros."""
    body = text.encode()
    return b"\x81\xff" + len(body).to_bytes(8, "big") + bytes(4) + body
