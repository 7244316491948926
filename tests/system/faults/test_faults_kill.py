"""A process that writes to an SQLite file is killed with no warning, again and again."""

import asyncio

import pytest
from kills import KILLS, play

pytestmark = pytest.mark.long

CHAINS, SEEDS = 2, 25


@pytest.mark.timeout(300)
async def test_no_acknowledged_message_or_deadline_is_lost_to_a_hundred_kills(tmp_path):
    """What was acknowledged is durable, and nothing is half written.

    Seen to fail with a store that answers its callers before it commits.
    """

    async def chain(number):
        for seed in range(number, SEEDS * CHAINS, CHAINS):
            assert await play(seed, tmp_path) == KILLS

    async with asyncio.TaskGroup() as group:
        for number in range(CHAINS):
            group.create_task(chain(number))
