"""Several sweepers on one database, and sweepers that are told of deadlines by others."""

import json
import signal
import subprocess
from contextlib import contextmanager
from datetime import timedelta

import pytest
from watching import running

from backends import key
from lapse.core.documents import StateDelta
from parts import store_with_parts
from postgres import rows, run
from serving import AGENTS, LAPSE, environment, eventually, serving

pytestmark = pytest.mark.long

DUE = 100_000
FILL = f"""
INSERT INTO lapse_lobby (
  app_name, user_id, session_id, status, created_at, ttl, expires_at, state, held_events,
  update_time
)
SELECT 'app', 'ann', to_char(n, 'FM00000000'), 'waiting', now() - interval '1 hour',
  interval '30 min', now() - interval '30 min', '{{}}', '[]', now() AT TIME ZONE 'UTC'
FROM generate_series(1, {DUE}) AS n
"""
LATENESS = "SELECT extract(epoch FROM expired_at - expires_at) FROM lapse_lobby"
ASLEEP = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = $1"


@contextmanager
def sweeper(url, folder, number):
    """Run a `lapse sweep --watch`, and yield what tells the lines that it has logged."""
    log_file = folder / f"sweep{number}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [LAPSE, "sweep", "--watch", "--store", url],
            cwd=folder,
            env=environment(LAPSE_LOG_FORMAT="json"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield lambda: log_file.read_text().splitlines()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


def expired_in(lines):
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    return [line["session"].rstrip("…") for line in logged if line["event"] == "session expired"]


def number_expired_in(lines):
    """Return how many sessions a sweeper says to have expired, one by one or many at once."""
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    many = sum(line["sessions"] for line in logged if line["event"] == "sessions expired")
    return many + len(expired_in(lines))


def test_three_sweepers_expire_each_of_many_due_sessions_once(store_url, tmp_path):
    """Each expiry is reported by one of them, none by two.

    Seen to fail with an `expire_backlog` that joins by the key what it selected without a lock.
    """
    run(store_url, FILL)
    waiting = "SELECT 1 FROM lapse_lobby WHERE status = 'waiting' LIMIT 1"
    with (
        sweeper(store_url, tmp_path, 1) as one,
        sweeper(store_url, tmp_path, 2) as two,
        sweeper(store_url, tmp_path, 3) as three,
    ):
        eventually(lambda: not rows(store_url, waiting), within=100)
    reports = [number_expired_in(lines()) for lines in (one, two, three)]
    assert sum(reports) == DUE
    assert sum(map(bool, reports)) > 1
    counted = "SELECT status, resurrections, count(*) FROM lapse_lobby GROUP BY 1, 2"
    assert rows(store_url, counted) == [("expired", 0, DUE)]


@pytest.fixture
def one_second_session():
    return {"state": StateDelta(), "ttl": timedelta(seconds=1), "metadata": {}}


async def test_a_sweeper_is_woken_by_a_near_deadline_of_another_replica(
    store_url, one_second_session
):
    """The sweeper would sleep for 15 seconds.

    Seen to fail without the NOTIFY, and with a sweeper that does not listen.
    """
    here = store_with_parts(store_url)
    await here.open()
    async with running(store_url, "sweep") as other:
        await other.until(lambda: other.those("listening"))
        name = store_url.partition("@/")[2].partition("?")[0]
        eventually(lambda: rows(store_url, ASLEEP, name))
        await here.create(key(), **one_second_session)
        await other.until(lambda: other.those("expired"))
    ((lateness,),) = rows(store_url, LATENESS)
    # Far less than it would have slept; on a quiet machine it is milliseconds.
    assert 0 <= lateness < 5
    await here.close()


async def test_a_sweeper_without_notifications_finds_a_deadline_after_its_sleep(
    store_url, one_second_session
):
    here = store_with_parts(store_url)
    await here.open()
    async with running(store_url, "sweep", "0", "deaf", "sleep=3") as other:
        await other.until(lambda: other.those("listening"))
        await here.create(key(), **one_second_session)
        await other.until(lambda: other.those("expired"))
    ((lateness,),) = rows(store_url, LATENESS)
    assert lateness >= 0
    await here.close()


def test_a_separate_sweeper_serves_servers_that_do_not_sweep(store_url, tmp_path):
    """Seen to fail with a sweeper that only purges."""
    with serving(tmp_path, str(AGENTS), "--store", store_url, LAPSE_SWEEPER="off") as server:
        assert server.client.get("/readyz").status_code == 200
        # The first run loads the agent, which takes longer than the TTL to come.
        assert server.run(server.create()).status_code == 200
        with sweeper(store_url, tmp_path, 1) as lines:
            eventually(lambda: "sweeping until stopped" in lines())
            used, left = (server.create(options={"ttl_minutes": 0.02}) for _ in range(2))
            assert server.run(used).status_code == 200
            eventually(lambda: rows(store_url, LATENESS + " WHERE status = 'expired'"))
        assert expired_in(lines()) == [left[:8]]
        assert server.lifecycle(left)["status"] == "expired"
        assert server.lifecycle(used)["status"] == "used"
        assert server.run(left).status_code == 200
        assert server.lifecycle(left)["resurrections"] == 1
        assert "swept" not in server.log
