"""Who serves and sweeps, as operators see it."""

from datetime import timedelta

import pytest

from backends import T0
from lapse.overview.processes import FORGOTTEN_AFTER, Heartbeat, program_of

MINUTE = timedelta(minutes=1)


async def test_each_process_is_seen_once_and_with_the_time_of_its_last_report(store):
    """Seen to fail with a row for each report."""
    one, other = Heartbeat(store.at(T0), sweeps=True), Heartbeat(store.at(T0), sweeps=False)
    await one.beat()
    await other.beat()
    one._store = type(one._store)(store.at(T0 + MINUTE))
    await one.beat()
    first, second = await store.processes()
    assert (first.sweeps, first.started_at, first.seen_at) == (True, T0, T0 + MINUTE)
    assert (second.sweeps, second.seen_at) == (False, T0)
    assert first.version


async def test_a_process_that_is_silent_for_a_day_is_forgotten(store):
    await Heartbeat(store.at(T0), sweeps=True).beat()
    await Heartbeat(store.at(T0 + FORGOTTEN_AFTER + MINUTE), sweeps=True).beat()
    assert len(await store.processes()) == 1


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (["/usr/bin/lapse", "serve", "--store", "postgresql://u:secret@h/d"], "lapse serve"),
        (["/x/lapse/cli/__main__.py", "sweep", "--watch"], "lapse sweep"),
        (["/usr/bin/uvicorn", "app:app"], "uvicorn"),
        (["lapse", "--help"], "lapse"),
        ([], "python"),
    ],
)
def test_a_program_is_named_without_its_arguments(arguments, program):
    """Seen to fail with the whole command line, which can hold a password."""
    assert program_of(arguments) == program
