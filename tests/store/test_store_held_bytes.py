"""The events that a waiting session holds take exactly as many bytes as they may, and no more."""

import sqlite3
from contextlib import closing

import asyncpg
import pytest

from backends import T0, create, key, note, step, used_by, words
from lapse.core.lifecycle import HELD_BYTES, ChangeKind

SPACES = {"sqlite": 7}
"""What SQLite counts beside what it stores: the spaces between an event's four names and values."""

LENGTHS = "SELECT {} FROM lapse_lobby ORDER BY session_id"


async def held_bytes(url):
    """Return the bytes of the held events of each session, as the database has them."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return connection.execute(LENGTHS.format("length(held_events)")).fetchall()
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch(LENGTHS.format("octet_length(held_events::text)"))
    finally:
        await connection.close()
    return [tuple(row) for row in found]


@pytest.mark.parametrize("kind", [note, words, step])
async def test_an_event_is_held_that_fills_the_bound_of_bytes_to_the_last(
    backend, reopen, store_url, kind
):
    """Seen to fail with a bound that is a byte less, and with one that is a byte more."""
    store, user = await reopen(), used_by(kind)
    revision = await create(store, "short", used_by=user)
    await store.at(T0).append(key("short"), kind(state={"n": ""}), revision)
    ((short,),) = await held_bytes(store_url)
    await store.at(T0).delete(key("short"))
    most = HELD_BYTES - SPACES.get(backend.name, 0)
    for more, changes in ((0, []), (1, [ChangeKind.USED])):
        revision = await create(store, f"s{more}", used_by=user)
        event = kind(state={"n": "x" * (most - short + more)})
        appended = await store.at(T0).append(key(f"s{more}"), event, revision)
        assert [change.kind for change in appended.changes] == changes
    assert await held_bytes(store_url) == [(most,), (None,)]
