"""Scrubbing an SQLite file: what was deleted stands in no byte of it, nor of its log."""

import sqlite3
from contextlib import closing

import canary
from backends import create, use
from lapse.store.sqlite import scrubbing
from parts import store_with_parts

CANARY = "canary-of-scrubbing"


def leave_behind(path, text=CANARY):
    """Write and delete rows as a program does that does not overwrite what it deletes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        for size in (100, 90_000):
            connection.execute(
                "INSERT INTO app_states (app_name, state, update_time) VALUES (?, ?, '')",
                (f"{text}-{size}", text * size),
            )
        connection.execute("DELETE FROM app_states WHERE app_name LIKE 'canary%'")


async def test_what_was_deleted_is_in_no_byte_of_the_file_and_its_log(tmp_path):
    """Seen to fail without VACUUM, and without the checkpoint."""
    url = f"sqlite:///{tmp_path}/lapse.db"
    store = store_with_parts(url)
    await use(store, "s1")
    leave_behind(tmp_path / "lapse.db")
    assert canary.found(url, CANARY)
    assert await store.scrub() is None
    assert canary.found(url, CANARY) == []
    assert (await store.lifecycle(next(iter(await store.list("app", "ann"))).key)).has_messages
    await create(store, "s2")
    await store.close()


async def test_a_reader_of_what_was_there_before_is_waited_for_and_then_named(
    tmp_path, monkeypatch
):
    """Seen to fail where nobody looks whether the log is empty."""
    monkeypatch.setattr(scrubbing, "_PATIENCE", scrubbing._PAUSE)
    monkeypatch.setattr("lapse.store.sqlite.schema.BUSY_TIMEOUT", scrubbing._PAUSE)
    url = f"sqlite:///{tmp_path}/lapse.db"
    store = store_with_parts(url)
    await use(store, "s1")
    leave_behind(tmp_path / "lapse.db")
    with closing(sqlite3.connect(tmp_path / "lapse.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sessions").fetchone()
        assert "another process reads" in await store.scrub()
    assert await store.scrub() is None
    assert canary.found(url, CANARY) == []
    await store.close()


async def test_a_store_in_memory_has_no_bytes_to_scrub_and_postgresql_says_what_remains(store):
    await use(store, "s1")
    remains = await store.scrub()
    assert remains is None or "VACUUM FULL" in remains
