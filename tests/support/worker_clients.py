"""Clients of a server with workers, each with a connection that is one worker's."""

from __future__ import annotations

import re
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving import Server, eventually


@dataclass
class ToWorker:
    """A client with one connection, and the worker that answers on it."""

    number: int
    client: httpx.Client


def pid_of(server: Server, number: int) -> int | None:
    """Return the process that is the worker of this number, if it runs."""
    parent = server.process.pid
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline")
        if command.exists() and f"worker {number}" in command.read_text():
            return int(child)
    return None


class Clients:
    """Connects to the workers of a server by number."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.server = server
        self._stack = stack

    def of(self, number: int, **headers: str) -> ToWorker:
        """Return a client of a worker; connections that another worker takes are given up."""
        for _ in range(200):
            client = httpx.Client(
                base_url=self.server.url,
                timeout=30,
                trust_env=False,
                headers=headers,
                limits=httpx.Limits(max_connections=1, keepalive_expiry=None),
            )
            probe = f"/apps/walker/users/{uuid.uuid4().hex}/sessions"
            assert client.get(probe).status_code == 200
            line = eventually(
                lambda: re.search(rf"path={probe} .*worker=(\d)", self.server.log)  # noqa: B023
            )
            if int(line[1]) == number:
                self._stack.callback(client.close)
                return ToWorker(number, client)
            client.close()
        raise AssertionError(f"no connection went to worker {number}")
