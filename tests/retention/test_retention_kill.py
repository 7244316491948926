"""Whatever a process is killed in, each session is whole in one place, and work goes on."""

from itertools import count

import pytest
from archiving import DAY, LATER, POLICY, archive
from victim import NAMES, PURGE, FolderMemory, dies_in, purge_and_forget

from backends import T0, create, key, levels, message, use
from lapse.core.lifecycle import Cause, Status
from lapse.erasure.erasing import Erasure
from lapse.erasure.store import ErasureStore
from lapse.export.exporting import Export
from lapse.export.importing import Import
from lapse.export.sinks import Folder

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

EVENTS = 3


async def lived(store):
    """Have used sessions with some events each."""
    for name in NAMES:
        revision = await use(store, name)
        for number in range(2, EVENTS + 1):
            appended = await store.at(T0).append(key(name), message(f"m{number}"), revision)
            revision = appended.value.revision


async def places(stock):
    """Return where each session is; fail if one is in two places, or not whole."""
    found = {}
    for name in NAMES:
        (row,) = await stock.rows(
            "SELECT (SELECT count(*) FROM sessions WHERE id = :id) AS used, "
            "(SELECT count(*) FROM events WHERE session_id = :id) AS events, "
            "(SELECT count(*) FROM lapse_archive WHERE session_id = :id) AS archived, "
            "(SELECT max(events) FROM lapse_archive WHERE session_id = :id) AS packed, "
            "(SELECT count(*) FROM lapse_lobby WHERE session_id = :id) AS records",
            id=name,
        )
        told = (row["used"], row["events"], row["archived"], row["packed"], row["records"])
        known = {
            (1, EVENTS, 0, None, 1): Status.USED,
            (0, 0, 1, EVENTS, 1): Status.ARCHIVED,
            (0, 0, 0, None, 0): None,
        }
        assert told in known, f"{name}: {told}"
        found[name] = known[told]
    return found


async def restored(store):
    for name in NAMES:
        await store.at(T0).resurrect(key(name), cause=Cause.REQUEST)


async def test_of_an_archive_or_a_restore(store, stock, store_url):
    """Seen to fail on SQLite with statements that are transactions of their own."""
    await lived(store)
    for name in ("archive", "restore"):
        for step in count(1):
            if name == "restore":
                await archive(store, *map(key, NAMES))
            died = dies_in(step, store_url, name)
            assert set((await places(stock)).values()) <= {Status.USED, Status.ARCHIVED}
            await archive(store, *map(key, NAMES))
            assert set((await places(stock)).values()) == {Status.ARCHIVED}
            await restored(store)
            assert set((await places(stock)).values()) == {Status.USED}
            if not died:
                break
        assert step > 3
    assert await levels(store) == {("app", Status.USED): len(NAMES)}


async def test_of_a_purge(store, stock, store_url):
    """Seen to fail on SQLite with statements that are transactions of their own."""
    for step in count(1):
        await lived(store)
        await archive(store, *map(key, NAMES))
        died = dies_in(step, store_url, "purge")
        assert set((await places(stock)).values()) <= {Status.ARCHIVED, None}
        await store.at(PURGE).purge_archived(10)
        assert set((await places(stock)).values()) == {None}
        assert await levels(store) == {}
        if not died:
            break
    assert step > 2


async def test_of_a_purge_whose_memory_is_forgotten(store, stock, store_url, tmp_path):
    """Killed before the commit nothing is forgotten, and killed after it everything is, later.

    Seen to fail with memory that is asked before the purge, and with what is owed in a transaction
    after it.
    """
    folder, ends = tmp_path / "memory", set()
    folder.mkdir()
    memory = FolderMemory(folder)
    for step in count(1):
        events = {name: {f"{name}-{step}-{number}" for number in range(2)} for name in NAMES[:2]}
        for name, ids in events.items():
            revision = await create(store, name)
            for one in sorted(ids):
                memory.add(one)
                done = await store.at(T0).append(key(name), message(one), revision)
                revision = done.value.revision
        await archive(store, *map(key, events))
        died = dies_in(step, store_url, "forget", str(folder))
        stay = {name for name in events if await store.at(PURGE).lifecycle(key(name))}
        entries = await ErasureStore(store.database).owed_memory("ann")
        owed = {one for entry in entries for one in entry.event_ids}
        for name, ids in events.items():
            left = ids & memory.remembered()
            if name in stay:
                assert left == ids, f"step {step}: {name} stays without its memory"
            else:
                assert left <= owed, f"step {step}: nobody will ever forget {left - owed}"
            ends.add("before" if name in stay else "between" if left else "after")
        # Another process goes on, once the time of the first is over.
        for days in range(1, 500):
            await purge_and_forget(store.at(PURGE + days * DAY), folder)
            if not await levels(store) and not memory.remembered():
                break
        assert memory.remembered() == set()
        assert await ErasureStore(store.database).owed_memory("ann") == []
        if not died:
            break
    assert ends == {"before", "between", "after"}


async def test_of_a_scan(store, stock, store_url):
    await lived(store)
    for step in count(1):
        await stock.rows("UPDATE lapse_lobby SET check_at = NULL")
        await store.at(T0).confirm_retention(POLICY, by="op")
        await stock.rows("UPDATE lapse_retention SET scan_at = NULL, scanned_at = NULL")
        died = dies_in(step, store_url, "scan")
        while (page := await store.at(PURGE).scan(POLICY)) and not page.is_whole:
            pass
        (row,) = await stock.rows("SELECT count(check_at) AS looked FROM lapse_lobby")
        assert row["looked"] == len(NAMES)
        if not died:
            break
    assert step > 3


async def test_of_an_erasure(store, stock, store_url):
    for step in count(1, 4):
        await lived(store)
        await archive(store, key("s1"))
        died = dies_in(step, store_url, "erase")
        found = await places(stock)
        assert found["s1"] in {Status.ARCHIVED, None}
        assert {found["s2"], found["s3"]} <= {Status.USED, None}
        receipt = await Erasure(store.database, "ann", end=store.delete).run("op")
        assert receipt.is_whole
        assert set((await places(stock)).values()) == {None}
        if not died:
            break
    assert step > 20


async def test_of_an_import(store, stock, store_url, tmp_path, other_store):
    """All or nothing of it is there. Seen to fail with a transaction for each statement."""
    await lived(other_store)
    await archive(other_store, key("s1"))
    folder = tmp_path / "out"
    async with other_store.snapshot() as snapshot:
        export = Export(snapshot, "ann", app_name=None, artifacts=None, at=LATER, lapse="1")
        async for _ in export.write(Folder(folder)):
            pass
    whole = {"s1": Status.ARCHIVED, "s2": Status.USED, "s3": Status.USED}
    for step in count(1):
        died = dies_in(step, store_url, "import", str(folder))
        found = await places(stock)
        assert found in (dict.fromkeys(NAMES), whole)
        if found != whole:
            work = Import(store.database, folder, artifacts=None)
            await work.verify()
            await work.check()
            await work.put(lambda _: None)
        assert await places(stock) == whole
        assert (await Erasure(store.database, "ann", end=store.delete).run("op")).is_whole
        if not died:
            break
    assert step > 5


@pytest.fixture
async def other_store(backend, tmp_path):
    """A store of the same kind, from which is exported."""
    from parts import store_with_parts

    with backend.empty(tmp_path / "source") as url:
        store = store_with_parts(url)
        await store.open()
        yield store
        await store.close()
