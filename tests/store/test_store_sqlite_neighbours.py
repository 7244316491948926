"""How workers on one SQLite file tell each other of changes."""

from __future__ import annotations

import asyncio
import socket

import pytest

from lapse.store import store_from_url
from lapse.store.sqlite import neighbours


@pytest.fixture
def met(tmp_path, monkeypatch):
    """A folder in which this process meets others, until the test ends."""
    monkeypatch.setattr(neighbours, "_folders", [tmp_path])
    return tmp_path


async def test_all_who_listen_to_a_channel_hear_its_texts_in_order(met):
    one, other, elsewhere = asyncio.Queue(), asyncio.Queue(), asyncio.Queue()
    store = store_from_url("sqlite:///:memory:")
    async with (
        store.listen("changes", one.put_nowait),
        store.listen("changes", other.put_nowait),
        store.listen("due", elsewhere.put_nowait),
    ):
        await store.notify("changes", ["a" * 7999, "b"])
        await store.notify("due", ["c"])
        for heard in (one, other):
            assert [await heard.get(), await heard.get()] == ["a" * 7999, "b"]
        assert await elsewhere.get() == "c"
        assert elsewhere.empty()
    await store.close()
    assert list(met.iterdir()) == []


async def test_who_was_killed_is_told_nothing_more(met):
    """Seen to fail with a socket that stays: each change would be sent to it for ever."""
    left = met / "changes-1-dead.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(left))
    heard = asyncio.Queue()
    async with neighbours.listen("changes", heard.put_nowait):
        neighbours.notify("changes", ["a"])
        assert await heard.get() == "a"
    assert not left.exists()


async def test_who_does_not_read_holds_nobody_up(met):
    """Seen to fail with a socket that waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(str(met / "changes-1-stuck.sock"))
        neighbours.notify("changes", ["a" * 7999] * 1000)
        assert stuck.recv(9000) == b"a" * 7999
    assert (met / "changes-1-stuck.sock").exists()


async def test_where_no_socket_can_be_made_others_are_heard_of_later(met, monkeypatch, caplog):
    monkeypatch.setattr(neighbours, "_folders", [met / ("long" * 30)])
    async with neighbours.listen("changes", lambda _: None):
        neighbours.notify("changes", ["a"])
    assert "with the next heartbeat" in caplog.text


async def test_a_process_that_is_no_worker_tells_and_hears_nothing(tmp_path):
    async with neighbours.listen("changes", lambda _: pytest.fail("it heard")):
        neighbours.notify("changes", ["a"])
