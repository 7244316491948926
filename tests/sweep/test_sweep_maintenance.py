"""Maintenance: every operation is run, whatever the others do."""

import asyncio
import logging

from lapse.core.errors import StoreUnavailableError
from lapse.sweep import maintenance as module
from lapse.sweep.maintenance import Maintenance

BOUND = 30.0


def lines(caplog):
    return [record.levelno for record in caplog.records if record.name == module.__name__]


async def test_a_failing_operation_does_not_stop_the_others_and_is_logged_once(caplog):
    """Seen to fail with no exception caught, and with each failure logged."""
    faults, done = [StoreUnavailableError("away")], []

    async def failing():
        if faults:
            raise faults[0]

    async def working():
        done.append("worked")

    maintenance = Maintenance([failing, working, working])
    for _ in range(3):
        await maintenance.run()
    assert done == ["worked"] * 6
    assert lines(caplog) == [logging.ERROR]
    assert "away" in caplog.text
    faults.clear()
    await maintenance.run()
    await maintenance.run()
    assert lines(caplog) == [logging.ERROR, logging.WARNING]


async def test_maintenance_begins_at_once_and_ends_when_it_is_stopped():
    ran = asyncio.Event()

    async def operation():
        ran.set()

    maintenance = Maintenance([operation])
    async with asyncio.timeout(BOUND), maintenance:
        await ran.wait()
    ran.clear()
    async with asyncio.timeout(BOUND), maintenance:
        await ran.wait()


async def test_an_operation_that_never_ends_times_out_and_the_next_one_runs(monkeypatch, caplog):
    """Seen to fail without the time-out."""
    monkeypatch.setattr(module, "_TIMEOUT", module.EVERY / 30_000)
    ran = []

    async def working():
        ran.append("worked")

    async with asyncio.timeout(BOUND):
        await Maintenance([asyncio.Event().wait, working]).run()
    assert ran == ["worked"]
    assert "TimeoutError" in caplog.text
