"""The scan builds what is missing once, then rests, and its work does not grow with the store."""

import asyncio
from datetime import timedelta

import pytest
from archiving import DAY, LATER, archive
from copies import copied

import postgres
from backends import HOUR, T0, create, key, levels, message, use
from lapse.core.feed import Feed
from lapse.core.lifecycle import Status
from lapse.retention.keeper import EVERY, RetentionKeeper
from lapse.retention.policy import parse_policy
from lapse.retention.scan import LATER as SLOW
from lapse.retention.scan import Pace, Scanned

TEXT = "[default]\nidle = '30d'\narchive = '100d'\n"
POLICY = parse_policy(TEXT)
COUNTED = parse_policy("[default]\nper_user = 2\n")
SECOND = timedelta(seconds=1)
SMALL = Pace(4, timedelta(0))


async def checks(stock):
    """Return how many records there are, and how many of them have a moment of the next look."""
    (row,) = await stock.rows("SELECT count(*) AS n, count(check_at) AS looked FROM lapse_lobby")
    return row["n"], row["looked"]


async def scanned(store, policy=POLICY, now=T0 + HOUR):
    """Scan until all sessions were read; return how many pages that took."""
    pages = 1
    while not (await store.at(now).scan(policy, first_pace=SMALL)).is_whole:
        pages += 1
    return pages


async def test_the_first_scan_makes_the_records_that_are_missing_page_by_page(store, stock):
    """Each page goes on where the one before ended, whoever reads it.

    Seen to fail with a `scan_on` that writes no place, and with a page that makes no records.
    """
    await use(store)
    await copied(stock, 9)
    await store.at(T0).confirm_retention(POLICY, by="op")
    assert await checks(stock) == (1, 0)
    first = await store.at(T0 + HOUR).scan(POLICY, first_pace=SMALL)
    assert first == Scanned(4, 4, is_whole=False)
    assert (await checks(stock))[1] == 4
    assert await scanned(store) == 2
    assert await checks(stock) == (10, 10)
    assert await levels(store) == {("app", Status.USED): 10}


async def test_a_scan_that_is_complete_rests_and_goes_on_slowly(store, stock):
    """Seen to fail with a scan that forgets that it has been through all."""
    await use(store)
    await copied(stock, 9)
    await store.at(T0).confirm_retention(POLICY, by="op")
    await scanned(store)
    slow = Pace(3, SECOND)
    soon = T0 + HOUR + SECOND / 2
    assert await store.at(soon).scan(POLICY, later=slow) == Scanned(3, 0, is_whole=True)
    assert await store.at(soon + SECOND / 2).scan(POLICY, later=slow) is None
    assert await store.at(soon + SECOND).scan(POLICY, later=slow) == Scanned(3, 0, is_whole=True)


async def test_a_new_policy_is_scanned_for_from_the_first_session_on(store, stock):
    """Seen to fail with a confirmation that leaves the scan where it was."""
    await use(store)
    await copied(stock, 5)
    await store.at(T0).confirm_retention(POLICY, by="op")
    await store.at(T0 + HOUR).scan(POLICY, first_pace=SMALL)
    shorter = parse_policy("[default]\nidle = '2d'\n")
    await store.at(T0).confirm_retention(shorter, by="op")
    assert await store.at(T0 + HOUR).scan(POLICY) is None, "the policy is not in force any more"
    found = await store.at(T0 + HOUR).scan(shorter, first_pace=SMALL)
    assert found == Scanned(4, 4, is_whole=False)


async def test_a_new_count_for_each_user_has_every_session_looked_at(store, stock):
    """Seen to fail with a first scan that takes the moments of an earlier policy as they are."""
    await use(store)
    await copied(stock, 4)
    await store.at(T0).confirm_retention(POLICY, by="op")
    await scanned(store)
    await store.at(T0).confirm_retention(COUNTED, by="op")
    await scanned(store, COUNTED, T0 + 2 * HOUR)
    due = await store.at(T0 + 2 * HOUR).due_for_look(9)
    assert len(due) == 5
    assert (await archive(store, *due, now=T0 + 2 * HOUR, policy=COUNTED)).value.archived == 3


async def test_the_later_scan_finds_what_stock_adk_does_meanwhile(store, stock):
    """A new session, and an empty one that gets its message now.

    Seen to fail with a later scan that makes no records.
    """
    from google.adk.events.event import Event
    from google.genai.types import Content, Part

    content = Content(role="user", parts=[Part(text="hello")])
    empty = await stock.create_session(app_name="app", user_id="ann", session_id="empty")
    await store.at(T0).confirm_retention(POLICY, by="op")
    assert await scanned(store) == 1
    assert await checks(stock) == (0, 0)
    await stock.append_event(empty, Event(author="user", content=content))
    made = await stock.create_session(app_name="app", user_id="ann", session_id="made")
    await stock.append_event(made, Event(author="user", content=content))
    found = await store.at(T0 + 2 * HOUR).scan(POLICY)
    assert found == Scanned(2, 2, is_whole=True)
    assert await checks(stock) == (2, 2)
    assert (await store.lifecycle(key("empty"))).status is Status.USED


async def test_a_session_of_a_user_that_the_scan_finds_has_the_others_looked_at(store, stock):
    """Seen to fail with a scan that sets the moment of the new session alone."""
    await use(store)
    await copied(stock, 1)
    await store.at(T0).confirm_retention(COUNTED, by="op")
    await scanned(store, COUNTED)
    due = await store.at(T0 + HOUR).due_for_look(9)
    assert (await archive(store, *due, now=T0 + HOUR, policy=COUNTED)).value.later == 2
    await use(store, "new", now=T0 + 2 * HOUR)
    await store.at(T0 + 3 * HOUR).scan(COUNTED)
    assert len(await store.at(T0 + 3 * HOUR).due_for_look(9)) == 3


def keeping(store, path, now, feed=None):
    (path / "policy.toml").write_text(TEXT)
    return RetentionKeeper(store.at(now).database, feed or Feed(), path / "policy.toml")


async def test_a_use_that_is_told_of_needs_no_scan(store, stock, tmp_path):
    """Seen to fail with a keeper that hears of no change."""
    feed = Feed()
    await store.at(T0).confirm_retention(POLICY, by="op")
    keeper = keeping(store, tmp_path, T0 + HOUR, feed)
    await keeper.step()  # the scan has been through all, and rests
    revision = await create(store)
    told = await store.at(T0).append(key(), message(at=T0), revision)
    feed.publish(told.changes)
    assert await checks(stock) == (1, 0), "a message writes no moment"
    await keeper.step()
    assert await checks(stock) == (1, 1)


async def test_a_message_writes_no_moment_of_a_look(store, stock):
    """Seen to fail with a `count_append` that sets check_at."""
    revision = await use(store)
    await store.at(T0).confirm_retention(POLICY, by="op")
    await scanned(store)
    before = await stock.rows("SELECT check_at FROM lapse_lobby")
    await store.at(T0 + DAY).append(key(), message("m2", at=T0 + DAY), revision)
    assert await stock.rows("SELECT check_at FROM lapse_lobby") == before


@pytest.mark.parametrize("now", [T0 + HOUR, LATER + HOUR], ids=["used", "archived"])
async def test_an_idle_sweep_works_as_much_in_a_large_store_as_in_a_small_one(
    stock, reopen, sizes, now
):
    """In steps of SQLite's machine, and in rows and entries of indexes that PostgreSQL reads.

    Seen to fail with a `due_for_look` that reads all that is used.
    """
    work, done = [], 0
    for size in (990, 3000):
        lived = await reopen()
        await use(lived, f"s{size}")
        await copied(stock, size, first=done, of=f"s{size}")
        done = size
        for policy in (COUNTED, POLICY):  # so that the scan begins anew
            await lived.at(now).confirm_retention(policy, by="op")
        pause = timedelta(0)
        while pause < EVERY:  # until the scan is complete, and all that is due is archived
            now += SECOND
            pause = await sizes.keeper(lived, now).step()
        records, looked = await checks(stock)
        assert records == looked >= size
        await lived.close()
        work.append(await sizes.work(now))
    small, large = work
    assert 0 < large <= 1.5 * small, work


@pytest.fixture
def sizes(store_url, reopen, tmp_path):
    """Counts what a sweep makes a store do."""
    return (PostgresWork if store_url.startswith("postgresql") else SqliteWork)(
        store_url, reopen, tmp_path
    )


class Work:
    def __init__(self, url, reopen, folder):
        self._url, self._reopen, self._folder = url, reopen, folder

    def keeper(self, store, now):
        return keeping(store, self._folder, now)

    async def sweep(self, store, now):
        """Do as many idle steps as there are pages of the slow scan in the small store."""
        for number in range(1, 4):
            await self.keeper(store, now + number * SLOW.pause).step()


class SqliteWork(Work):
    async def work(self, now):
        steps = 0

        def count():
            nonlocal steps
            steps += 1

        store = await self._reopen()
        lanes = await store.database._lanes.get()
        for lane in lanes:
            for connection in lane._connections:
                connection.set_progress_handler(count, 1)
        await self.sweep(store, now)
        return steps


class PostgresWork(Work):
    """A backend tells what it has read when it ends. Dead rows, which it passes, are removed."""

    async def work(self, now):
        await asyncio.to_thread(postgres.run, self._url, "VACUUM ANALYZE")
        await self._flushed()
        before = await self._read()
        store = await self._reopen()
        await self.sweep(store, now)
        await store.close()
        await self._flushed()
        return await self._read() - before

    async def _flushed(self):
        """Wait until no backend of a store lives."""
        while await self._asked(
            "SELECT count(*)::int FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'lapse%'"
        ):
            pass

    async def _read(self):
        return await self._asked(
            "SELECT (SELECT sum(idx_tup_read)::int FROM pg_stat_user_indexes) + ("
            "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int FROM pg_stat_user_tables)"
        )

    async def _asked(self, query):
        ((found,),) = await asyncio.to_thread(postgres.rows, self._url, query)
        return found
