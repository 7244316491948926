"""Two replicas whose hosts disagree about the time: only the database's clock counts."""

import asyncio

import pytest
from watching import eventually, running

from postgres import rows

pytestmark = pytest.mark.long

APART = 150
"""Seconds that one clock is ahead, and the other behind: five minutes between them."""

LEFT = "SELECT 1 FROM lapse_lobby WHERE status = 'waiting'"
FACTS = """
SELECT split_part(session_id, '-', 1) AS replica, status,
  expired_at >= expires_at AND expired_at < expires_at + interval '60 s'
    AND expires_at = created_at + interval '1 s',
  first_message_at BETWEEN created_at AND created_at + interval '1 s',
  resurrections, count(*)
FROM lapse_lobby GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2
"""


async def test_no_session_expires_early_or_late_whatever_the_clocks_of_the_hosts_say(store_url):
    """Each replica creates, speaks and sweeps, and meets the other's sessions.

    Seen to fail with a store that goes by the host's time where none is given.
    """
    async with (
        running(store_url, "talk", "ahead", f"shift={APART}") as ahead,
        running(store_url, "talk", "behind", f"shift=-{APART}") as behind,
    ):
        both = (ahead, behind)
        for replica in both:
            await replica.until(lambda replica=replica: len(replica.those("heard")) == 10)
        await eventually(lambda: not rows(store_url, LEFT))
        (one,), (other,) = (replica.those("clock")[0] for replica in both)
        assert 2 * APART - 60 < float(one) - float(other) < 2 * APART + 60
        await asyncio.gather(*(replica.kill() for replica in both))
    expired = [name for replica in both for name, _ in replica.those("expired")]
    assert len(expired) == len(set(expired)) == 20
    assert min(float(late) for replica in both for _, late in replica.those("expired")) >= 0
    assert rows(store_url, FACTS) == [
        ("ahead", "expired", True, None, 0, 10),
        ("ahead", "used", None, True, 0, 10),
        ("behind", "expired", True, None, 0, 10),
        ("behind", "used", None, True, 0, 10),
    ]
