"""What a store holds before a call: sessions, runs and jobs in each state."""

from datetime import timedelta
from typing import Any

from backends import DUE, HOUR, T0, create, key, message, use, words
from lapse.adoption.store import Batch, Selection
from lapse.artifacts.uploads import Upload
from lapse.conversations.rules import Token
from lapse.core.documents import StateDelta
from lapse.core.messages import UsedBy
from lapse.idempotency.rules import KeyRules
from lapse.quotas.rules import Bucket, Drawer
from lapse.retention.archive import Taken
from lapse.retention.policy import parse_policy
from lapse.runs.store import RunStatus
from lapse.store.records import Revision
from lapse.sweep.rules import Brake, BrakeReason
from parts import Store

DAY = timedelta(days=1)
STATE = StateDelta(app={"a": 1}, user={"u": [2.5]}, session={"s": {"deep": None}})
BUCKETS = [Bucket.of(Drawer.USER, "ann", 5), Bucket.of(Drawer.ALL, "", 50)]
BRAKE = Brake(BrakeReason.SHARE, T0, T0 + HOUR, sessions=7)
BATCH = Batch("r1", Selection(), HOUR, None, 100)
RETENTION = parse_policy('[default]\nidle = "1s"\narchive = "2h"\n')
TAKEN = Taken(key(), T0 + HOUR)
PURGED = T0 + 2 * DAY
KEYED = KeyRules().request("k-1", key(), "run", b"{}")
UPLOAD = Upload.of(key(), "picture.png", 5000)


async def nothing(_store: Store) -> None:
    """Need nothing."""


async def waiting(store: Store) -> None:
    """Have a session that waits."""
    await create(store, state={"x": 1}, metadata={"kind": "canonical-session"})


async def greeted(store: Store) -> None:
    """Have a session in which only the agent spoke, and that waits for the user."""
    revision = await create(store, used_by=UsedBy.USER)
    await store.at(T0).append(key(), words(), revision)


async def used(store: Store) -> None:
    """Have a session with a message."""
    await use(store)


async def expired(store: Store) -> None:
    """Have a session that was expired."""
    await create(store)
    await store.at(DUE).expire_due(10)


async def told(store: Store) -> None:
    """Have an event for the webhook."""
    await store.at(T0).announce_webhook()
    await expired(store)


async def purged(store: Store) -> None:
    """Have the memory of a session that was purged."""
    await expired(store)
    await store.at(PURGED).purge_due(10)


async def running(store: Store) -> None:
    """Have a run in a session."""
    await use(store)
    await store.at(T0).begin_run(key(), "run", max_per_user=3)


async def ended(store: Store) -> None:
    """Have a run that has ended."""
    await running(store)
    await store.at(T0).end_run("run", RunStatus.DONE)


async def braked(store: Store) -> None:
    """Have a brake that is set."""
    await store.at(T0).set_brake(BRAKE)


async def uploading(store: Store) -> None:
    """Have an upload that was begun."""
    await use(store)
    await store.at(T0).take_room(UPLOAD, 1 << 20)


async def drawn(store: Store) -> None:
    """Have the buckets of a user who has drawn."""
    await store.at(T0).draw(BUCKETS)


async def crowd(store: Store) -> None:
    """Have several sessions of one user that wait."""
    for number in range(4):
        await create(store, f"s{number}", now=T0 + timedelta(seconds=number))


async def orphan(store: Store) -> None:
    """Have a session of stock ADK's that is empty."""
    await use(store)
    async with store.database._connections.alone() as connection:
        await connection.execute("DELETE FROM events; DELETE FROM lapse_lobby")


async def adopted(store: Store) -> None:
    """Have a session that was adopted."""
    await orphan(store)
    await store.at(T0).adopt(BATCH)


LEASE = timedelta(seconds=20)
TOKEN = Token("mark", 1)


async def claim(store: Store, revision: Revision = Revision(T0, 0)) -> Any:
    return await store.claim(key(), message("m9"), revision, token=TOKEN, lease=LEASE, counts=True)


async def moving(store: Store) -> None:
    """Have a session that is on its way to another service."""
    await waiting(store)
    await claim(store.at(T0))


async def refused(store: Store) -> None:
    """Have a session on its way whose message the other service refuses."""
    await moving(store)
    await store.at(T0).note_refusal(key(), TOKEN)


async def deleting(store: Store) -> None:
    """Have a session that is being removed from another service."""
    await moving(store)
    await store.at(T0).settle(key(), TOKEN, service_id=None)
    await store.at(T0).begin_delete(key(), token=Token("other", 2), lease=LEASE)


async def guarded(store: Store) -> None:
    """Have a session that no message may hand over for a while."""
    await waiting(store)
    await store.at(T0).guard(key(), fence=1, lease=LEASE)


async def archived(store: Store) -> None:
    """Have an archived session, which is purged two hours later."""
    await use(store)
    await store.at(T0 + HOUR).archive_sessions([key()], RETENTION)


async def memory_owed(store: Store) -> None:
    """Have what the memory service is to forget of a purged session."""
    await archived(store)
    await store.at(T0 + 3 * HOUR).purge_taken(TAKEN, ["m1", "m2"])


async def orphan_with_message(store: Store) -> None:
    """Have a used session without a record, as stock ADK makes one."""
    await use(store)
    async with store.database._connections.alone() as connection:
        await connection.execute("DELETE FROM lapse_lobby")


async def pinned_before(store: Store) -> None:
    """Have a pinned session."""
    await use(store)
    await store.at(T0).pin(key())


async def held(store: Store) -> None:
    """Have a session on hold."""
    await use(store)
    await store.at(T0).put_on_hold(key(), reason="why", by="op")


async def confirmed(store: Store) -> None:
    """Have a used session, and a confirmed policy."""
    await use(store)
    await store.at(T0).confirm_retention(RETENTION, by="op")
