"""SQLite fails where nothing should: the threads of the store go on, or end it for all to see."""

import asyncio
import sqlite3
import threading

import pytest

from lapse.core.errors import OutcomeUnknownError, StoreUnavailableError
from lapse.store.sqlite.lanes import Lane

LEVELS = {"OFF": 0, "NORMAL": 1, "FULL": 2}


class Faulty(sqlite3.Connection):
    """A connection that fails at statements that begin with `fails_at`."""

    fails_at = "nothing"

    def execute(self, sql, *parameters):
        if sql.startswith(self.fails_at):
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *parameters)


class Ended(SystemExit):
    """What ends a thread."""


@pytest.fixture
def connection(tmp_path):
    path = tmp_path / "file.db"
    made = sqlite3.connect(path, factory=Faulty, isolation_level=None, check_same_thread=False)
    made.execute("PRAGMA journal_mode = WAL")
    made.execute("CREATE TABLE numbers (number INTEGER)")
    return made


class Beginning:
    """Begins transactions; told to `hold`, it waits, as for another process, until it `goes_on`."""

    def __init__(self):
        self.holds = False
        self.waits, self.goes_on = threading.Event(), threading.Event()

    def __call__(self, connection):
        connection.execute("BEGIN IMMEDIATE")
        waited, self.holds = self.holds, False
        if waited:
            self.waits.set()
            assert self.goes_on.wait(30)
        return waited


@pytest.fixture
def beginning():
    return Beginning()


@pytest.fixture
async def lane(connection, beginning):
    one = Lane("test", lambda: connection, place="/x.db", begin=beginning, threads=1, most=8)
    yield one
    await asyncio.wait_for(asyncio.to_thread(one.close), 30)


def write(batch):
    batch.connection.execute("INSERT INTO numbers VALUES (1)")


def fail(batch):
    write(batch)
    raise ValueError("a job fails half-way")


def count(batch):
    return batch.connection.execute("SELECT count(*) FROM numbers").fetchone()[0]


def level(batch):
    return batch.connection.execute("PRAGMA synchronous").fetchone()[0]


async def soon(work):
    return await asyncio.wait_for(work, 30)


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("fails_at", ["PRAGMA synchronous", "BEGIN", "COMMIT"])
async def test_a_writer_outlives_what_fails_around_its_transactions(
    lane, connection, fails_at, flushed
):
    """Seen to fail with a thread that sets the level of syncing outside its guard: it ends."""
    await soon(lane.run(write, flushed=not flushed))
    connection.fails_at = fails_at
    with pytest.raises(StoreUnavailableError, match=r"SQLite \(/x.db\): disk I/O error"):
        await soon(lane.run(write, flushed=flushed))
    connection.fails_at = "nothing"
    await soon(lane.run(write, flushed=flushed))
    assert await soon(lane.run(count)) == 2


async def test_a_writer_outlives_a_rollback_that_fails_and_nothing_of_it_is_written(
    lane, connection
):
    """Seen to fail with a ROLLBACK outside the guard, and with one that is not made up for."""
    connection.fails_at = "ROLLBACK"
    with pytest.raises(ValueError, match="half-way"):
        await soon(lane.run(fail))
    with pytest.raises(StoreUnavailableError):
        await soon(lane.run(write))
    connection.fails_at = "nothing"
    await soon(lane.run(write))
    assert await soon(lane.run(count)) == 1


async def test_what_is_acknowledged_is_flushed_even_if_the_level_could_not_be_set_back(
    lane, connection
):
    """Seen to fail with a level that is set back after a transaction, come what may."""
    await soon(lane.run(write, flushed=False))
    assert await soon(lane.run(level, flushed=False)) == LEVELS["NORMAL"]
    connection.fails_at = "PRAGMA synchronous = FULL"
    with pytest.raises(StoreUnavailableError):
        await soon(lane.run(write))
    connection.fails_at = "nothing"
    assert await soon(lane.run(level)) == LEVELS["FULL"]


@pytest.mark.parametrize("order", [[False, True], [True, False]])
async def test_one_job_that_must_last_has_its_whole_transaction_flushed(lane, order):
    """Seen to fail with a transaction that is flushed only if all of its jobs are."""
    begun, goes_on = threading.Event(), threading.Event()

    def wait(_batch):
        begun.set()
        assert goes_on.wait(30)

    waiting = asyncio.create_task(lane.run(wait))
    await asyncio.to_thread(begun.wait)
    together = [asyncio.create_task(lane.run(level, flushed=flushed)) for flushed in order]
    await asyncio.sleep(0)  # both stand in the queue
    goes_on.set()
    assert await soon(asyncio.gather(*together)) == [LEVELS["FULL"]] * 2
    await waiting


def transaction(batch):
    """Return a number that all jobs of one transaction share."""
    batch.connection.execute("INSERT INTO numbers VALUES (1)")
    return id(batch)


@pytest.mark.parametrize("failing", [0, 1])
async def test_what_comes_while_a_transaction_waits_to_begin_is_a_part_of_it(
    lane, connection, beginning, failing
):
    """If a job fails, each is done alone, with nothing that came meanwhile.

    Seen to fail without `_add_waiting` after the beginning.
    """
    commits = []
    connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    beginning.holds = True
    first = asyncio.create_task(lane.run(transaction))
    await asyncio.to_thread(beginning.waits.wait, 30)
    works = [fail] * failing + [transaction] * 3
    others = [asyncio.create_task(lane.run(work)) for work in works]
    await asyncio.sleep(0)  # all stand in the queue
    beginning.goes_on.set()
    done = await soon(asyncio.gather(first, *others, return_exceptions=True))
    assert [isinstance(one, ValueError) for one in done] == [False, *[True] * failing, *[False] * 3]
    assert len(commits) == (4 if failing else 1)
    assert await soon(lane.run(count)) == 4


async def test_what_must_last_is_no_part_of_a_transaction_that_may_be_lost(lane, beginning):
    """Seen to fail where a transaction that is not flushed takes others in."""
    beginning.holds = True
    first = asyncio.create_task(lane.run(level, flushed=False))
    await asyncio.to_thread(beginning.waits.wait, 30)
    other = asyncio.create_task(lane.run(level))
    await asyncio.sleep(0)
    beginning.goes_on.set()
    assert await soon(asyncio.gather(first, other)) == [LEVELS["NORMAL"], LEVELS["FULL"]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_thread_that_ends_all_the_same_ends_the_lane(lane):
    """Nobody waits for ever, and each is told what helps.

    Seen to fail with a thread that ends and tells nobody, and with a lane that says it is closed.
    """

    def end(_batch):
        raise Ended

    with pytest.raises(OutcomeUnknownError, match="restart the process"):
        await soon(lane.run(end))
    with pytest.raises(StoreUnavailableError, match="restart the process"):
        await soon(lane.run(write))
