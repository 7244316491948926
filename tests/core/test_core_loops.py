"""What belongs to one event loop."""

import asyncio
import gc

from backends import key
from lapse.core.loops import PerLoop, SessionLocks, may_end_with_its_loop


def test_each_event_loop_has_a_thing_of_its_own_and_closed_ones_leave_theirs():
    made = []

    def make():
        made.append(object())
        return made[-1]

    things = PerLoop(make)

    async def ask():
        return things.here(), things.here()

    (first, again), (second, _) = asyncio.run(ask()), asyncio.run(ask())
    assert first is again is made[0]
    assert second is made[1]
    assert list(things._things.values()) == [second]


def test_loops_that_live_keep_their_things():
    things = PerLoop(object)

    async def ask():
        return things.here()

    one, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        first, _ = one.run_until_complete(ask()), other.run_until_complete(ask())
        assert one.run_until_complete(ask()) is first
    finally:
        one.close()
        other.close()


async def test_a_session_has_one_lock_while_somebody_holds_it():
    locks = SessionLocks()
    lock = locks.of(key("s"))
    assert locks.of(key("s")) is lock
    assert locks.of(key("t")) is not lock
    async with lock:
        assert locks.of(key("s")).locked()
    del lock
    gc.collect()
    assert not locks._locks.here()


async def test_a_task_that_may_end_with_its_loop_is_told_of_by_nobody(caplog):
    async def wait():
        await asyncio.get_running_loop().create_future()

    task = may_end_with_its_loop(asyncio.create_task(wait()))
    await asyncio.sleep(0)
    del task
    gc.collect()
    assert "destroyed" not in caplog.text
