"""The races that decide a session's fate, each in the one order that a wrong sweep loses.

The classic mistake stands in the sub-select alone: after the wait for a row's lock only the
IN is checked again, and that has not changed. The store's own races meet that order by chance;
here a gate holds the winner between its change of the row and its commit, until the sweep is
done or waits for the row.
"""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from watching import BOUND

from backends import DUE, T0, TICK, create, key, message
from lapse.core.lifecycle import Cause, Status
from lapse.store.postgres import call
from lapse.store.postgres.wording import TYPES
from lapse.store.records import Revision
from lapse.store.statements import Positional
from parts import store_with_parts
from postgres import prepare, rows, run
from wrong_sweeps import CHECKS, WRONG_BACKLOG, WRONG_EXPIRE, WRONG_PURGE

pytestmark = pytest.mark.long

GATE = 1

GATED = (
    f"""
CREATE FUNCTION wait_at_the_gate() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); RETURN NULL; END $$
""",
    """
CREATE TRIGGER gate AFTER UPDATE ON lapse_lobby FOR EACH ROW
WHEN (old.status <> new.status AND new.status <> 'expired') EXECUTE FUNCTION wait_at_the_gate()
""",
)
WAITERS = """
SELECT count(*) FILTER (WHERE locktype = 'advisory') AS at_the_gate,
  count(*) FILTER (WHERE locktype <> 'advisory') AS for_a_row
FROM pg_locks WHERE NOT granted
  AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())
"""
LOST = """
SELECT count(*) FROM lapse_lobby WHERE status <> 'used' AND session_id IN (
  SELECT session_id FROM events
)
"""
GONE = T0 + timedelta(hours=24)


@pytest.fixture
async def two_stores(empty_database_url):
    """Two stores on one database; a gate holds each winner before its commit."""
    prepare(empty_database_url)
    run(empty_database_url, *GATED)
    one, other = store_with_parts(empty_database_url), store_with_parts(empty_database_url)
    yield one, other
    await one.close()
    await other.close()


@pytest.fixture
def replace_statement(monkeypatch):
    """Replaces a named statement for the test."""

    def replace(name, sql):
        monkeypatch.setitem(call.STATEMENTS, name, Positional.of(sql, TYPES))

    return replace


@asynccontextmanager
async def closed_gate(url):
    """Hold the gate shut; yields a function that waits until a predicate of WAITERS holds."""
    keeper = await asyncpg.connect(url)
    try:
        await keeper.execute(f"SELECT pg_advisory_lock({GATE})")

        async def until(holds):
            async with asyncio.timeout(BOUND):
                while not holds(await keeper.fetchrow(WAITERS)):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        yield until
    finally:
        await keeper.close()


async def overtake(url, winner, sweep):
    """Let a sweep meet the row that a winner has changed and not yet committed."""
    async with closed_gate(url) as until:
        winning = asyncio.create_task(winner)
        await until(lambda waiters: waiters["at_the_gate"])
        sweeping = asyncio.create_task(sweep)
        await until(lambda waiters: waiters["for_a_row"] or sweeping.done())
    return await asyncio.gather(winning, sweeping, return_exceptions=True)


async def message_against_sweep(url, two_stores, sweep):
    """Return what became of a first message just before the deadline, and of the sweep at it.

    Of the sweep the number of sessions that expired is returned, or what it raised.
    """
    await create(two_stores[0])
    said = two_stores[0].at(DUE - TICK).append(key(), message(), Revision(T0, 0))
    return await overtake(url, said, SWEEPS[sweep](two_stores[1].at(DUE)))


async def expire_due(store):
    return (await store.expire_due(9)).value


async def expire_backlog(store):
    return sum(map(len, await store.expire_backlog(9)))


SWEEPS = {"expire_due": expire_due, "expire_backlog": expire_backlog}
WRONG = {"expire_due": WRONG_EXPIRE, "expire_backlog": WRONG_BACKLOG}


async def resurrection_against_purge(url, two_stores):
    """Return what became of a resurrection in the last moment, and of the purge after it."""
    await create(two_stores[0])
    await two_stores[0].at(DUE).expire_due(9)
    back = two_stores[0].at(GONE - TICK).resurrect(key(), cause=Cause.REQUEST)
    return await overtake(url, back, two_stores[1].at(GONE).purge_due(9))


def count_lost(url):
    """Return how many used sessions were expired."""
    ((count,),) = rows(url, LOST)
    return count


@pytest.mark.parametrize("sweep", SWEEPS)
async def test_a_sweep_that_does_not_repeat_its_condition_expires_a_used_session(
    empty_database_url, two_stores, replace_statement, sweep
):
    """The table's constraints would stop it; this test drops them."""
    replace_statement(sweep, WRONG[sweep])
    for (command,) in rows(empty_database_url, CHECKS):
        run(empty_database_url, command)
    said, swept = await message_against_sweep(empty_database_url, two_stores, sweep)
    assert said.changes
    assert swept == 1
    assert count_lost(empty_database_url) == 1


@pytest.mark.parametrize("sweep", SWEEPS)
async def test_the_tables_constraints_stop_a_sweep_that_does_not_repeat_its_condition(
    empty_database_url, two_stores, replace_statement, sweep
):
    replace_statement(sweep, WRONG[sweep])
    said, swept = await message_against_sweep(empty_database_url, two_stores, sweep)
    assert said.changes
    assert isinstance(swept, asyncpg.CheckViolationError)
    assert count_lost(empty_database_url) == 0


async def test_a_purge_that_does_not_repeat_its_condition_deletes_a_resurrected_session(
    empty_database_url, two_stores, replace_statement
):
    replace_statement("purge_due", WRONG_PURGE)
    back, swept = await resurrection_against_purge(empty_database_url, two_stores)
    assert back.value.status is Status.WAITING
    assert swept.value == 1
    assert await two_stores[0].at(GONE).lifecycle(key()) is None


@pytest.mark.parametrize("sweep", SWEEPS)
async def test_the_real_sweep_leaves_a_session_that_just_got_a_message(
    empty_database_url, two_stores, sweep
):
    said, swept = await message_against_sweep(empty_database_url, two_stores, sweep)
    assert said.changes
    assert swept == 0
    assert (await two_stores[1].at(GONE).lifecycle(key())).status is Status.USED
    assert count_lost(empty_database_url) == 0


async def test_the_real_purge_leaves_a_session_that_was_just_resurrected(
    empty_database_url, two_stores
):
    back, swept = await resurrection_against_purge(empty_database_url, two_stores)
    assert back.value.status is Status.WAITING
    assert swept.value == 0
    assert (await two_stores[1].at(GONE).lifecycle(key())).status is Status.WAITING
