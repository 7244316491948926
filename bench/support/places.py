"""Where sessions are kept while something is measured: files, or databases of a server."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from bench.support import lobby_file, lobby_table, pg_server
from bench.support.peers import file_of
from lapse.store import store_from_url


class Places(Protocol):
    """Empty databases and full ones, known by their URLs."""

    store: str

    def fresh(self) -> AbstractContextManager[str]:
        """Yield the URL of an empty database."""
        ...

    def filled(self, name: str, stored: int) -> str:
        """Return the URL of a database with so many waiting sessions, none due for long.

        It is filled once.
        """
        ...

    def make_due(self, name: str, due: int) -> None:
        """Let the oldest sessions of a database be due."""
        ...

    def plans(self, name: str) -> dict[str, str]:
        """Return how a sweep reads a database, by statement; empty where nothing tells."""
        ...

    def copy(self, name: str, to: str = "work") -> str:
        """Return the URL of a copy, which takes the place of an earlier one of its name.

        It is on the disk: none of it is left to be written while something is timed.
        """
        ...

    def server_cpu(self) -> float:
        """Return the seconds of CPU that a database server has used; 0 where there is none."""
        ...


class Files:
    """SQLite's places."""

    store = "sqlite"

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._filled: dict[str, str] = {}

    @contextmanager
    def fresh(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            yield f"sqlite:///{directory}/sessions.db"

    def filled(self, name: str, stored: int) -> str:
        if name not in self._filled:
            self._filled[name] = self._url(name)
            lobby_file.fill(file_of(self._filled[name]), stored)
        return self._filled[name]

    def make_due(self, name: str, due: int) -> None:
        lobby_file.make_due(file_of(self._url(name)), due)

    def plans(self, _name: str) -> dict[str, str]:
        return {}

    def copy(self, name: str, to: str = "work") -> str:
        url = self._url(to)
        lobby_file.copy(file_of(self._url(name)), file_of(url))
        return url

    def server_cpu(self) -> float:
        return 0.0

    def _url(self, name: str) -> str:
        return f"sqlite:///{self._scratch / name}.db"


class Databases:
    """PostgreSQL's places."""

    store = "postgres"

    def __init__(self, server: pg_server.Server) -> None:
        self.server = server
        self._made = 0
        self._filled: dict[str, str] = {}

    @contextmanager
    def fresh(self) -> Iterator[str]:
        self._made += 1
        name = f"fresh_{self._made}"
        try:
            yield self.server.make(name)
        finally:
            self.server.drop(name)

    def prepared(self, name: str) -> str:
        """Return the URL of a database with Lapse's and ADK's tables, all empty."""
        url = self.server.make(name)
        asyncio.run(_prepare(url))
        return url

    def filled(self, name: str, stored: int) -> str:
        if name not in self._filled:
            self._filled[name] = self.prepared(name)
            lobby_table.fill(self.server, name, stored)
        return self._filled[name]

    def make_due(self, name: str, due: int) -> None:
        lobby_table.make_due(self.server, name, due)

    def plans(self, name: str) -> dict[str, str]:
        return lobby_table.plans(self.server, name)

    def copy(self, name: str, to: str = "work") -> str:
        return self.server.make(to, template=name)

    def server_cpu(self) -> float:
        return self.server.cpu()


async def _prepare(url: str) -> None:
    store = store_from_url(url)
    await store.open()
    await store.close()
