"""The stream of notices over real sockets, on both stores, with two replicas."""

import logging
import socket
from contextlib import ExitStack
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from lapse.core.clock import utc_now
from lapse.core.documents import StateDelta
from lapse.core.errors import StoreUnavailableError, TooManyStreamsError
from lapse.core.feed import Feed
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Rules
from lapse.notices.rules import WatchOptions
from lapse.notices.watcher import Watcher
from lapse.store import store_from_url
from lapse.store.sessions import Sessions
from noticing import NEVER, SOON, key
from parts import options_for
from serving import AGENTS, Server, eventually
from wire import request

pytestmark = pytest.mark.long

BRIEF = 0.03
"""Minutes: long enough for a test to connect before the deadline."""


@pytest.fixture(params=["in the store", "elsewhere"])
def two_replicas(request, shared_store_url, start_replica, tmp_path):
    """Two replicas; on PostgreSQL their heartbeat is too slow for anything but a notification.

    Used sessions live in the store, and then in another session service.
    """
    how = {"heartbeat": NEVER if notifies(shared_store_url) else SOON}
    if request.param == "elsewhere":
        how["elsewhere"] = f"sqlite+aiosqlite:///{tmp_path}/conversations.db"
    return start_replica(shared_store_url, **how), start_replica(
        shared_store_url, sweep=False, **how
    )


def notifies(url):
    """Return whether a store tells other replicas of changes, in a database of the tests."""
    return url.startswith("postgresql") and options_for(url) is None


def listening(replica):
    """Wait until a replica hears of what the others announce."""

    async def listens(service):
        connections = getattr(service.store, "database", service.store)._connections
        async with connections.lent() as connection:
            return await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%lapse_changes%'"
                " AND datname = current_database()"
            )

    connections = getattr(getattr(replica.store, "database", replica.store), "_connections", None)
    if connections is not None and not connections.without:
        eventually(lambda: replica.do(listens) >= 2)


def test_a_stream_reports_every_change_whichever_replica_makes_it(two_replicas):
    # Seen to fail with a store that announces nothing (PostgreSQL), and with a watcher that
    # does not look at the heartbeat (SQLite).
    one, two = two_replicas
    listening(two)
    one.create("s1")
    with one.watch("s1") as mine, two.watch("s1") as other:
        assert mine.response.headers["content-type"].startswith("text/event-stream")
        for stream in (mine, other):
            name, record = stream.next_event()
            assert (name, record["status"]) == ("lifecycle", "waiting")
        assert record.keys() == one.client.get(one.path("s1")).json().keys()

        two.post("s1", "extend")
        for stream in (mine, other):
            name, extended = stream.next_event()
            assert name == "extended"
            assert extended["expiresAt"] > record["expiresAt"]

        one.say("s1")
        for stream in (mine, other):
            name, used = stream.next_event()
            assert (name, used["status"], used["expiresAt"]) == ("used", "used", None)

        two.do(lambda service: service.delete_session("app", "ann", "s1"))
        for stream in (mine, other):
            name, last = stream.next_event()
            assert (name, last["status"]) == ("deleted", "used")
            assert stream.next_event() is None
    assert one.client.get(one.path("s1") + "/events").status_code == 404


def test_a_stream_reports_deadlines_in_time_without_an_announcement(
    shared_store_url, start_replica
):
    # The watching replica neither sweeps nor hears of a change: it knows the instants.
    # Seen to fail with a watcher that plans no instant.
    one, two = start_replica(shared_store_url), start_replica(shared_store_url, sweep=False)
    one.create("s1", minutes=BRIEF)
    with two.watch("s1") as stream:
        assert stream.next_event()[0] == "lifecycle"
        name, expiring = stream.next_event()
        assert name == "expiring"
        assert 0 < expiring["timeLeftSeconds"] <= BRIEF * 60 / 2
        name, expired = stream.next_event()
        assert (name, expired["status"]) == ("expired", "expired")
        assert expired["serverTime"] >= expired["expiresAt"]
        assert expired["restorableUntil"] > expired["expiresAt"]


def test_a_reader_that_reconnects_to_any_replica_gets_what_it_missed(two_replicas):
    # Seen to fail when the id is ignored, and when it does not carry the warning.
    one, two = two_replicas
    one.create("s1", minutes=BRIEF)
    with one.watch("s1") as stream:
        assert stream.names(2) == ["lifecycle", "expiring"]
    with two.watch("s1", last=stream.last) as again:
        assert again.names(2) == ["lifecycle", "expired"]
    one.post("s1", "resurrect")
    one.say("s1")
    with two.watch("s1", last=again.last) as back:
        assert back.names(3) == ["lifecycle", "resurrected", "used"]
    with one.watch("s1", last=back.last) as idle:
        assert idle.next_event()[0] == "lifecycle"
        one.do(lambda service: service.delete_session("app", "ann", "s1"))
        assert idle.next_event()[0] == "deleted"


def create_before(replica, name, ago, *, ttl):
    """Create a session as if some time ago; its warning comes when half of its TTL has passed."""
    created = Sessions(replica.store.at(utc_now() - ago)).create
    replica.do(lambda _: created(key(name), state=StateDelta(), ttl=ttl, metadata={}))


def test_a_reader_that_comes_after_the_warning_time_is_warned_at_once_and_only_once(
    sqlite_url, start_replica
):
    """Seen to fail with a reader that is warned each time it is told anything."""
    one = start_replica(sqlite_url, warn_before=timedelta(hours=2), heartbeat=SOON)
    create_before(one, "s1", timedelta(minutes=20), ttl=timedelta(minutes=30))
    with one.watch("s1") as early:
        assert early.names(2) == ["lifecycle", "expiring"]
        with one.watch("s1") as late:
            assert late.names(2) == ["lifecycle", "expiring"]
        with one.watch("s1", last=early.last) as again:
            assert again.next_event()[0] == "lifecycle"
            again.beat()
        with one.watch("s1", last="something else") as stranger:
            assert stranger.names(2) == ["lifecycle", "expiring"]


def test_a_new_deadline_is_warned_of_anew(sqlite_url, start_replica):
    """Seen to fail with a warning that is told once for all deadlines."""
    one = start_replica(sqlite_url, warn_before=timedelta(hours=2), heartbeat=SOON)
    create_before(one, "s1", timedelta(seconds=12), ttl=timedelta(seconds=20))
    with one.watch("s1") as stream:
        assert stream.names(2) == ["lifecycle", "expiring"]
        one.post("s1", "extend")
        assert stream.names(2) == ["extended", "expiring"]


def test_without_notifications_a_change_arrives_with_the_heartbeat(shared_store_url, start_replica):
    one, two = (start_replica(shared_store_url, heartbeat=SOON) for _ in range(2))
    one.create("s1")
    two.store.is_silent = True
    with one.watch("s1") as stream:
        assert stream.next_event()[0] == "lifecycle"
        two.say("s1")
        assert stream.next_event()[0] == "used"


def test_all_streams_share_one_read_for_each_heartbeat(sqlite_url, start_replica):
    one = start_replica(sqlite_url, heartbeat=SOON)
    with ExitStack() as stack:
        streams = []
        for number in range(20):
            one.create(f"s{number}", user=f"u{number}")
            streams.append(stack.enter_context(one.watch(f"s{number}", user=f"u{number}")))
        for stream in streams:
            assert stream.next_event()[0] == "lifecycle"
        streams[-1].beat()
        before = one.store.reads
        for _ in range(5):
            streams[-1].beat()
        # Five heartbeats, each with its read, which may fall on either side of its comment.
        assert 4 <= one.store.reads - before <= 6


def test_more_streams_than_allowed_are_refused_until_one_is_closed(sqlite_url, start_replica):
    # Seen to fail with a stream whose end gives no slot back.
    one = start_replica(sqlite_url, streams_per_session=2, streams_per_user=3)
    for name in ("s1", "s2"):
        one.create(name)

    def refused(name):
        answer = one.client.get(one.path(name) + "/events")
        assert answer.status_code == 429
        return answer.json()["detail"]

    with ExitStack() as stack:
        streams = [stack.enter_context(one.watch("s1")) for _ in range(2)]
        for stream in streams:
            assert stream.next_event()[0] == "lifecycle"
        assert "session is watched by 2 streams" in refused("s1")
        stack.enter_context(one.watch("s2")).next_event()
        assert "user has 3 streams" in refused("s2")
        one.create("s1", user="bob")
        stack.enter_context(one.watch("s1", user="bob")).next_event()

        streams[0].__exit__()

        def allowed():
            with one.watch("s1") as stream:
                return stream.response.status_code == 200

        assert eventually(allowed)


def test_the_stream_of_an_unknown_session_answers_404(sqlite_url, start_replica):
    one = start_replica(sqlite_url)
    for name in ("never-was", "x" * 200):
        answer = one.client.get(one.path(name) + "/events")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Session not found"})


def test_without_a_horizon_the_deadline_ends_the_stream(sqlite_url, start_replica):
    one = start_replica(sqlite_url, rules=Rules(horizon=timedelta(0)))
    one.create("s1", minutes=BRIEF)
    with one.watch("s1") as stream:
        assert stream.names(3) == ["lifecycle", "expiring", "deleted"]
        assert stream.next_event() is None


def test_no_warning_is_sent_while_clean_up_is_disabled(sqlite_url, start_replica):
    one = start_replica(sqlite_url, rules=Rules(enforced=False), heartbeat=SOON)
    one.create("s1", minutes=0.0001)
    with one.watch("s1") as stream:
        assert stream.next_event()[1]["status"] == "waiting"
        stream.beat()
        one.say("s1")
        assert stream.next_event()[0] == "used"


def test_a_stream_shows_the_new_session_that_takes_an_expired_ones_id(sqlite_url, start_replica):
    one = start_replica(sqlite_url)
    one.create("s1", minutes=BRIEF)
    with one.watch("s1") as stream:
        assert stream.names(3) == ["lifecycle", "expiring", "expired"]
        one.create("s1")
        name, record = stream.next_event()
        assert (name, record["status"]) == ("lifecycle", "waiting")


def test_a_reader_that_reads_nothing_is_disconnected(sqlite_url, start_replica):
    one = start_replica(sqlite_url)
    one.create("s1")
    parts = urlsplit(one.url)
    with socket.socket() as idle, one.watch("s1") as reader:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect((parts.hostname, parts.port))
        idle.sendall(request("GET", f"{one.path('s1')}/events"))
        assert reader.next_event()[0] == "lifecycle"
        body = {"metadata": {"note": "x" * 16_000}}
        one.client.patch(one.path("s1"), json=body).raise_for_status()
        sent = 0
        while len(one.app.state.lapse_watcher._sessions[key("s1")].watches) > 1 or sent < 2:
            one.client.patch(one.path("s1"), json={"ttlMinutes": 30}).raise_for_status()
            assert reader.next_event()[0] == "extended"
            sent += 1
            assert sent < 800


def test_streams_outlive_an_outage_of_the_store(sqlite_url, start_replica, caplog):
    one = start_replica(sqlite_url, heartbeat=SOON)
    one.create("s1")
    with one.watch("s1") as stream, caplog.at_level(logging.WARNING, "lapse.core.background"):
        assert stream.next_event()[0] == "lifecycle"
        one.store.fault = StoreUnavailableError("gone fishing")
        for _ in range(5):
            stream.beat()
        one.say("s1")
        one.store.fault = None
        assert stream.next_event()[0] == "used"
    first, last = (line.message for line in caplog.records if line.name == "lapse.core.background")
    assert "gone fishing" in first
    assert "works again" in last


def test_a_server_ends_its_streams_before_it_stops(tmp_path):
    # Seen to fail (a request is cancelled, and logged) when the server waits for the streams.
    server = Server(tmp_path, str(AGENTS))
    try:
        session_id = server.create()
        events = server.path(session_id) + "/lifecycle/events"
        with server.client.stream("GET", events) as stream:
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("event")) == "event: lifecycle"
            server.process.terminate()
            assert not [line for line in lines if line.startswith("event")]
        assert server.process.wait(timeout=20) in {0, -15}
        assert "Cancel" not in server.log
        assert "Traceback" not in server.log
        assert "without completing" not in server.log
    finally:
        server.kill()


def test_a_users_streams_are_counted_over_all_apps():
    """Seen to fail where each app counts by itself."""

    class Audience:
        def end(self):
            pass

    database = store_from_url("sqlite:///:memory:")
    watcher = Watcher(database, Feed(), WatchOptions(per_user=3))
    ends = [watcher.watch(SessionKey(f"app{n}", "ann", "s"), Audience()) for n in range(3)]
    with pytest.raises(TooManyStreamsError, match="user has 3 streams"):
        watcher.watch(SessionKey("app9", "ann", "s"), Audience())
    watcher.watch(SessionKey("app9", "bob", "s"), Audience())
    ends[0]()
    watcher.watch(SessionKey("app9", "ann", "s"), Audience())
