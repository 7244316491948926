"""SQLite files that cannot be used, that others hold, or that many open at once."""

import asyncio
import re
import sqlite3
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from google.adk.sessions.sqlite_session_service import SqliteSessionService

from backends import DUE, T0, create, ids, key, message, note, use
from lapse.core.errors import StoreRefusedError, StoreUnavailableError
from lapse.store.sqlite import schema
from parts import store_with_parts

pytestmark = pytest.mark.long

OPENER = Path(__file__).with_name("opener.py")
BRIEF = timedelta(milliseconds=50)


def run_sql(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements]


async def make_lapse_file(path):
    store = store_with_parts(f"sqlite:///{path}")
    await use_and_close(store)


async def use_and_close(store):
    await store.open()
    await use(store)
    await store.close()


async def no_database(path):
    path.write_bytes(b"This is a letter to my aunt, not a database. " * 40)


async def foreign_sessions(path):
    run_sql(path, "CREATE TABLE sessions (sid TEXT, cookie TEXT)")


async def foreign_events(path):
    run_sql(path, "CREATE TABLE events (at REAL, what TEXT)")


async def adk_version_0(path):
    await make_lapse_file(path)
    run_sql(
        path,
        "DROP TABLE adk_internal_metadata",
        "DROP TABLE events",
        "CREATE TABLE events (id TEXT, app_name TEXT, user_id TEXT, session_id TEXT, "
        "invocation_id TEXT, author TEXT, actions BLOB, timestamp DATETIME)",
    )


async def adk_web(path):
    service = SqliteSessionService(str(path))
    await service.create_session(app_name="app", user_id="ann", session_id="s1")
    await service.close()


async def another_adk_version(path):
    await make_lapse_file(path)
    run_sql(path, "UPDATE adk_internal_metadata SET value = '2'")


async def no_adk_version(path):
    await make_lapse_file(path)
    run_sql(path, "DELETE FROM adk_internal_metadata")


async def a_newer_lapse(path):
    await make_lapse_file(path)
    run_sql(path, "INSERT INTO lapse_schema (version) VALUES (999)")


async def a_directory(path):
    path.mkdir()


async def a_missing_directory(path):
    path.parent.rmdir()


BAD = {
    no_database: "not an SQLite database",
    foreign_sessions: "'sessions' that is not ADK's",
    foreign_events: "'events' that is not ADK's",
    adk_version_0: "schema version 0",
    adk_web: "session file of `adk web`",
    another_adk_version: "schema version '2'",
    no_adk_version: "schema version None",
    a_newer_lapse: "newer Lapse",
    a_directory: "cannot be opened",
    a_missing_directory: "cannot be opened",
}


def contents(folder):
    """Return what lies in a folder, to the byte."""
    return {
        path.name: path.read_bytes() if path.is_file() else None for path in folder.glob("**/*")
    }


@pytest.mark.parametrize(
    ("spoil", "reason"), BAD.items(), ids=lambda part: getattr(part, "__name__", "")
)
async def test_a_bad_file_is_refused_by_name_with_a_reason_and_left_unchanged(
    tmp_path, spoil, reason
):
    path = tmp_path / "folder" / "lapse.db"
    path.parent.mkdir()
    await spoil(path)
    before = contents(tmp_path)
    store = store_with_parts(f"sqlite:///{path}")
    with pytest.raises(StoreRefusedError, match=re.escape(reason)) as refused:
        await store.open()
    assert str(path) in str(refused.value)
    await store.close()
    assert contents(tmp_path) == before


async def test_a_file_that_another_process_has_locked_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "BUSY_TIMEOUT", BRIEF)
    path = tmp_path / "lapse.db"
    await make_lapse_file(path)
    run_sql(path, "PRAGMA journal_mode = DELETE")
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()"
    )
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        path,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert await holder.stdout.readline() == b"locked\n"
    before = path.read_bytes()
    store = store_with_parts(f"sqlite:///{path}")
    with pytest.raises(StoreRefusedError, match="locked by another process") as refused:
        await store.open()
    assert str(path) in str(refused.value)
    assert path.read_bytes() == before
    await holder.communicate(b"")
    await store.open()
    assert await ids(store, T0) == ["s1"]
    await store.close()


async def test_an_empty_file_becomes_a_store(tmp_path):
    path = tmp_path / "lapse.db"
    path.touch()
    await make_lapse_file(path)


async def test_eight_processes_can_open_one_new_file_at_once(tmp_path):
    openers = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            OPENER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(8)
    ]
    for opener in openers:
        assert await opener.stdout.readline() == b"ready\n"
    for number in range(40):
        url = f"sqlite:///{tmp_path / f'lapse{number}.db'}"
        for opener in openers:
            opener.stdin.write(f"{url}\n".encode())
        said = [await opener.stdout.readline() for opener in openers]
        assert said == [b"came up\n"] * 8
        store = store_with_parts(url)
        await store.open()
        assert len(await store.list("app", "ann")) == 8
        await store.close()
    for opener in openers:
        await opener.communicate(b"")


async def test_a_lasting_lock_makes_the_store_unavailable_and_nothing_is_written(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(schema, "BUSY_TIMEOUT", BRIEF)
    path = tmp_path / "lapse.db"
    store = store_with_parts(f"sqlite:///{path}")
    await store.open()
    revision = await create(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(
            store.at(T0).append(key(), message(), revision),
            store.at(DUE).expire_due(10),
            store.ping(),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [StoreUnavailableError] * 3
        assert (await store.at(T0).read(key())).events == ()
    await store.at(T0).append(key(), message(), revision)
    assert len((await store.at(T0).read(key())).events) == 1
    await store.close()


async def test_a_write_waits_for_a_short_lock(tmp_path):
    path = tmp_path / "lapse.db"
    store = store_with_parts(f"sqlite:///{path}")
    await store.open()
    revision = await create(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(store.at(T0).append(key(), message(), revision))
        assert (await store.at(T0).read(key())).events == ()
        assert not task.done()
        other.execute("COMMIT")
        await task
    await store.close()


async def test_a_refused_write_does_not_undo_other_writes_of_its_batch(tmp_path):
    """Queued writes share one transaction; only the one that fails half-way is rolled back."""
    store = store_with_parts(f"sqlite:///{tmp_path / 'lapse.db'}")
    await store.open()
    names = [f"s{number}" for number in range(30)]
    for name in names:
        revision = await create(store, name)
        await store.at(T0).append(key(name), note("same"), revision)
    seen = {name: (await store.at(T0).read(key(name))).revision for name in names}
    calls = (
        store.at(T0).append(key(name), message("same" if position % 3 == 0 else "m"), seen[name])
        for position, name in enumerate(names)
    )
    results = await asyncio.gather(*calls, return_exceptions=True)
    for position, (name, result) in enumerate(zip(names, results, strict=True)):
        refused = position % 3 == 0
        assert isinstance(result, ValueError) == refused
        events = (await store.at(T0).read(key(name))).events
        assert {event.id for event in events} == ({"same"} if refused else {"same", "m"})
    await store.close()


async def test_a_record_left_by_a_delete_without_foreign_keys_is_not_a_session(tmp_path):
    path = tmp_path / "lapse.db"
    store = store_with_parts(f"sqlite:///{path}")
    await store.open()
    await use(store)
    run_sql(path, "DELETE FROM events", "DELETE FROM sessions")
    assert await store.at(T0).read(key()) is None
    assert await store.at(T0).lifecycle(key()) is None
    revision = await create(store)
    await store.at(T0).append(key(), message(), revision)
    assert len((await store.at(T0).read(key())).events) == 1
    await store.close()
