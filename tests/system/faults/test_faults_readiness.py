"""The disk is full, the file is gone, the database is read-only: `/readyz` says so."""

import asyncio
import logging
import os
import resource
import sqlite3
from contextlib import closing, contextmanager

import pytest

from backends import create, ids, key, message
from lapse.check import store as check
from lapse.check.store import Probe
from lapse.core.errors import StoreUnavailableError
from lapse.store.sqlite import files
from parts import Intercepted, store_with_parts
from postgres import database, own_server, rows, run
from serving import AGENTS, eventually, serving


@contextmanager
def full_disk(server, file):
    """Let a server's files grow no more, as on a full disk."""
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    size = file.stat().st_size
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def file_gone(server, file):
    """Have the file under another name for a while."""
    elsewhere = file.with_suffix(".elsewhere")
    file.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(file)


def is_ready(server):
    return server.client.get("/readyz").status_code == 200


def test_a_server_that_cannot_write_its_file_is_not_ready_until_it_can(tmp_path):
    """Seen to fail with a ping that reads, and with a file that nobody looks at."""
    with serving(tmp_path, str(AGENTS)) as server:
        file = tmp_path / "lapse.db"
        session = server.create()
        assert is_ready(server)
        with full_disk(server, tmp_path / "lapse.db-wal"):
            eventually(lambda: not is_ready(server))
            assert "store" in server.client.get("/readyz").json()
            assert server.client.post(server.path(), json={}).status_code == 503
        eventually(lambda: is_ready(server))
        assert server.run(session).status_code == 200
        with file_gone(server, file):
            eventually(lambda: not is_ready(server))
            answer = server.client.post(server.path(), json={})
            assert answer.status_code == 503
            eventually(lambda: server.log.count("nothing is written any more") == 1)
        eventually(lambda: is_ready(server))
        assert server.log.count("is back, and is written again") == 1
        assert server.client.post(server.path(), json={}).status_code == 200
        file.unlink()
        eventually(lambda: not is_ready(server))
        assert server.client.post(server.path(), json={}).status_code == 503
        assert server.log.count("nothing is written any more") == 2
        assert "Traceback" not in server.log


def take_away(path):
    path.rename(path.with_suffix(".elsewhere"))


def replace(path):
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("spoil", [os.unlink, take_away, replace])
async def test_a_file_that_was_removed_or_replaced_is_written_no_more(
    tmp_path, monkeypatch, caplog, spoil, suffix
):
    """Seen to fail without the look: every write is acknowledged, and lost at the next start."""
    monkeypatch.setattr(files, "_EVERY", files._EVERY * 0)
    path = tmp_path / "lapse.db"
    store = store_with_parts(f"sqlite:///{path}")
    revision = await create(store, now=None)
    spoil(tmp_path / f"lapse.db{suffix}")
    probe = Probe(store.database)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="was removed or replaced"):
            await store.append(key(), message(), revision)
        assert "was removed or replaced" in await probe.fault()
    faults = [record.levelno for record in caplog.records if record.levelno > logging.INFO]
    assert faults == [logging.ERROR]
    assert await store.lifecycle(key()) is not None
    await store.close()


async def test_a_file_is_known_by_its_path_although_the_process_changes_its_directory(
    tmp_path, monkeypatch
):
    """Seen to fail with a look at a relative path."""
    monkeypatch.setattr(files, "_EVERY", files._EVERY * 0)
    monkeypatch.chdir(tmp_path)
    store = store_with_parts("sqlite:///lapse.db")
    await store.open()
    monkeypatch.chdir("/")
    await create(store, now=None)
    await store.close()


async def test_a_file_whose_beginning_was_overwritten_is_no_longer_ready(tmp_path):
    """Seen to fail with a ping that nobody reads back: the writer has the pages in memory."""
    path = tmp_path / "lapse.db"
    store = store_with_parts(f"sqlite:///{path}")
    await create(store, now=None)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(b"\xff" * 4096)
    assert await Probe(store.database).fault() is not None
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.DatabaseError):
        connection.execute("SELECT 1 FROM lapse_lobby")
    await store.close()


async def test_a_postgresql_that_is_read_only_is_not_ready_until_it_can_be_written():
    """Seen to fail with a ping that reads."""
    with own_server() as server:
        store = store_with_parts(server.url)
        await create(store, now=None)
        assert await Probe(store.database).fault() is None
        run(
            server.url,
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "SELECT pg_reload_conf()",
        )
        await becomes(lambda: Probe(store.database).fault(), lambda fault: fault is not None)
        with pytest.raises(StoreUnavailableError):
            await create(store, "s2", now=None)
        run(
            server.url,
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        )
        await becomes(lambda: Probe(store.database).fault(), lambda fault: fault is None)
        assert await ids(store, None) == ["s1"]
        await store.close()


async def becomes(ask, wanted):
    """Ask until the answer is as wanted."""
    async with asyncio.timeout(30):
        while not wanted(await ask()):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)


async def test_a_ping_of_postgresql_needs_room_on_the_disk():
    """An update in place succeeds on a full disk. Seen to fail with a ping that is only that."""
    spilled = "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"
    with database() as url:
        ((before,),) = rows(url, spilled)
        store = store_with_parts(url)
        await store.ping()
        await store.close()
        await becomes(
            lambda: asyncio.to_thread(rows, url, spilled), lambda found: found[0][0] > before
        )


class Counting(Intercepted):
    """A database that counts pings, and holds them up until it is told."""

    def __init__(self, database):
        super().__init__(database)
        self.pings = 0
        self.answers = asyncio.Event()

    async def around(self, name, do):
        if name == "ping":
            self.pings += 1
            await self.answers.wait()
        return await do()


async def test_all_who_ask_at_once_share_one_ping(store, monkeypatch):
    """Seen to fail with a ping for each request."""
    counting = Counting(store.database)
    probe = Probe(counting)
    monkeypatch.setattr(check, "_EVERY", check._EVERY * 1000)
    asked = [asyncio.create_task(probe.fault()) for _ in range(50)]
    while not counting.pings:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0)
    asked[0].cancel()
    counting.answers.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert answers[1:] == [None] * 49
    assert await probe.fault() is None
    assert counting.pings == 1
    monkeypatch.setattr(check, "_EVERY", check._EVERY * 0)
    await probe.fault()
    assert counting.pings == 2
