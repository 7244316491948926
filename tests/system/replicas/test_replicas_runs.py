"""Runs that begin in one replica while others end in another."""

import pytest

from backends import key
from lapse.runs.store import RunStatus
from lapse.store.postgres.call import Call
from parts import store_with_parts

pytestmark = pytest.mark.long


@pytest.fixture
async def two_stores(store_url):
    """Two stores on one database."""
    one, other = store_with_parts(store_url), store_with_parts(store_url)
    yield one, other
    await one.close()
    await other.close()


async def test_a_run_begins_even_if_the_run_before_it_ends_between_the_two_statements(
    two_stores, monkeypatch
):
    """Seen to fail with a store that takes whatever it cannot find for the user's limit."""
    one, other = two_stores
    await one.begin_run(key(), "first", max_per_user=9)
    real = Call._rows

    async def rows(call, name, *about):
        found = await real(call, name, *about)
        if name == "begin_run" and not found:
            assert await one.end_run("first", RunStatus.DONE)
        return found

    monkeypatch.setattr(Call, "_rows", rows)
    assert (await other.begin_run(key(), "second", max_per_user=9)).run_id == "second"
