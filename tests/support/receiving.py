"""A server that a webhook is sent to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

SECRET: Final = "whsec_" + "a" * 43 + "="


@dataclass
class Receiver:
    """What came, and what is answered.

    `answers` may change at any time: the status of the answer, or None for none until `let_go`.
    """

    url: str = ""
    answers: int | None = 200
    location: str = "/elsewhere"
    says: bytes = b"taken"
    is_endless: bool = False
    """Whether what is said is said again and again, with an end that never comes."""
    connections: int = 0
    came: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)

    def settings(self) -> dict[str, str]:
        return {"LAPSE_WEBHOOK_URL": self.url, "LAPSE_WEBHOOK_SECRET": SECRET}

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.came]

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        """Return what came of a kind."""
        found = [json.loads(body) for _, _, body in self.came]
        return [body for body in found if body["type"] == kind]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive for the duration of the block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.came.append((self.path, headers, body))
            status, says = receiver.answers, b"" if receiver.answers == 204 else receiver.says
            if status is None:
                receiver.let_go.wait(60)
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("content-length", str(1 << 40 if receiver.is_endless else len(says)))
            self.send_header("location", receiver.location)
            self.end_headers()
            self.wfile.write(says)
            if receiver.is_endless:
                self.close_connection = True
                with suppress(OSError):  # nobody reads any more
                    while says:
                        self.wfile.write(says)
                receiver.let_go.wait(60)

        def setup(self) -> None:
            receiver.connections += 1
            super().setup()

        def do_GET(self) -> None:
            receiver.came.append((self.path, {}, b""))
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook?token=of-the-url"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
