"""The races of the store's own tests, against sweeps of the wrong shape: they can fail.

The classic mistake stands in the sub-select alone: after the wait for a row's lock only the
IN is checked again, and that has not changed.
"""

import asyncpg
import pytest
import test_store_races as races

from backends import TICK
from lapse.stores import store_from_url
from lapse.stores.postgres import call
from lapse.stores.statements import Positional
from postgres import TABLES, prepare, rows, run

TRIES, RIGHT_TRIES = 40, 3
KEY = "(l.app_name, l.user_id, l.session_id)"

WRONG_EXPIRE = f"""
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now)
UPDATE lapse_lobby AS l
SET status = 'expired', expired_at = now,
  restorable_until = greatest(l.created_at + :horizon, now + :shortest_restore)
FROM clock
WHERE {KEY} IN (
  SELECT app_name, user_id, session_id FROM lapse_lobby, clock
  WHERE status = 'waiting' AND expires_at <= now
  ORDER BY expires_at LIMIT :limit
)
RETURNING l.*, now
"""
WRONG_PURGE = f"""
WITH clock AS (SELECT coalesce(:now, clock_timestamp()) AS now)
DELETE FROM lapse_lobby AS l
USING clock
WHERE {KEY} IN (
  SELECT app_name, user_id, session_id FROM lapse_lobby, clock
  WHERE status = 'expired' AND restorable_until <= now
  ORDER BY restorable_until LIMIT :limit
)
RETURNING l.*, now
"""
CHECKS = """
SELECT format('ALTER TABLE lapse_lobby DROP CONSTRAINT %I', conname)
FROM pg_constraint WHERE conrelid = 'lapse_lobby'::regclass AND contype = 'c'
"""
LOST = """
SELECT count(*) FROM lapse_lobby WHERE status <> 'used' AND session_id IN (
  SELECT session_id FROM events
)
"""


@pytest.fixture
async def pair(nothing):
    """Two replicas on one database."""
    prepare(nothing)
    one, other = store_from_url(nothing), store_from_url(nothing)
    yield one, other
    await one.close()
    await other.close()


@pytest.fixture
def misshape(monkeypatch):
    """Puts a statement of another shape in the place of the right one."""

    def replace(name, sql):
        monkeypatch.setitem(call.STATEMENTS, name, Positional.of(sql, call._TYPES))

    return replace


async def until_it_fails(url, race, as_expected):
    """Run a race until it fails as expected; other failures are as good a proof, but not ours."""
    for _ in range(TRIES):
        run(url, f"TRUNCATE {TABLES}")
        try:
            await race()
        except (AssertionError, asyncpg.CheckViolationError) as failure:
            if as_expected(failure):
                return
    pytest.fail("it never failed so")


def lost(url):
    """Return how many used sessions were expired."""
    ((count,),) = rows(url, LOST)
    return count


async def message_against_sweep(pair):
    await races.test_a_message_at_the_deadline_survives_every_sweep(pair, TICK)


async def test_a_sweep_of_the_wrong_shape_expires_a_used_session(nothing, pair, misshape):
    """The table's own checks would stop it; here they are gone."""
    misshape("expire_due", WRONG_EXPIRE)
    for (command,) in rows(nothing, CHECKS):
        run(nothing, command)
    await until_it_fails(nothing, lambda: message_against_sweep(pair), lambda _: lost(nothing))


async def test_the_tables_own_checks_stop_a_sweep_of_the_wrong_shape(nothing, pair, misshape):
    misshape("expire_due", WRONG_EXPIRE)

    def stopped(failure):
        assert not lost(nothing)
        return isinstance(failure, asyncpg.CheckViolationError)

    await until_it_fails(nothing, lambda: message_against_sweep(pair), stopped)


async def test_a_purge_of_the_wrong_shape_deletes_a_session_just_had_back(nothing, pair, misshape):
    misshape("purge_due", WRONG_PURGE)
    race = races.test_a_session_is_resurrected_or_purged_and_never_half_of_each
    await until_it_fails(nothing, lambda: race(pair), lambda _: True)


async def test_of_the_right_shape_both_pass_as_often(nothing, pair):
    purging = races.test_a_session_is_resurrected_or_purged_and_never_half_of_each
    for race in (message_against_sweep, purging):
        for _ in range(RIGHT_TRIES):
            run(nothing, f"TRUNCATE {TABLES}")
            await race(pair)
