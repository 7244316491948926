"""The notices of retention over real sockets, on both stores, with two replicas."""

import pytest
from test_notices_stream import listening, notifies

from lapse.retention.policy import read_policy
from lapse.retention.store import RetentionStore
from noticing import NEVER, SOON

pytestmark = pytest.mark.long

# Half of `idle` is longer than the pause between two sweeps by far, also on a busy machine.
POLICY = '[default]\nidle = "12s"\narchive = "100d"\n'


@pytest.fixture
def keeping(shared_store_url, start_replica, tmp_path):
    """Two replicas of which the first keeps a confirmed policy.

    Where the store notifies, their heartbeat is too slow for anything but a notification.
    """
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    how = {"heartbeat": NEVER if notifies(shared_store_url) else SOON}
    one = start_replica(shared_store_url, retention_file=path, **how)
    two = start_replica(shared_store_url, sweep=False, **how)

    async def confirm(service):
        await RetentionStore(service.store).confirm_retention(read_policy(path), by="op")

    one.do(confirm)
    return one, two


def next_of(stream, name):
    """Return the data of the next event of this name; but for `lifecycle` there is none before."""
    while (event := stream.next_event())[0] != name:
        assert event[0] == "lifecycle"
    return event[1]


def test_each_step_of_an_archive_is_told_whichever_replica_makes_it(keeping):
    """Seen to fail on PostgreSQL without an announcement of the kind ARCHIVING."""
    one, two = keeping
    listening(two)
    one.create("s1")
    one.say("s1")
    with one.watch("s1") as mine, two.watch("s1") as other:
        (first, _) = (next_of(stream, "archiving") for stream in (mine, other))
        assert first["status"] == "used"
        assert 0 < first["timeLeftSeconds"] <= 6
        last = other.last
        two.say("s1")
        for stream in (mine, other):
            again = next_of(stream, "archiving")
            assert again["archivesAt"] > first["archivesAt"]
        for stream in (mine, other):
            archived = next_of(stream, "archived")
            assert archived["status"] == "archived"
            assert archived["archivedAt"] >= again["archivesAt"]
            assert archived["restorableUntil"] > archived["archivedAt"]
        # Who comes back hears what has happened and still matters, and no warning of what is past.
        with one.watch("s1", last=last) as back:
            assert back.names(2) == ["lifecycle", "archived"]
        two.post("s1", "resurrect")
        for stream in (mine, other):
            assert next_of(stream, "restored")["status"] == "used"
        with one.watch("s1", last=back.last) as again:
            assert again.names(2) == ["lifecycle", "restored"]


def test_the_owners_delete_of_an_archived_session_ends_the_stream(keeping):
    one, _ = keeping
    one.create("s1")
    one.say("s1")
    with one.watch("s1") as stream:
        next_of(stream, "archiving")
        next_of(stream, "archived")
        one.do(lambda service: service.delete_session("app", "ann", "s1"))
        assert stream.next_event()[0] == "deleted"
        assert stream.next_event() is None
