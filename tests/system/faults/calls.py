"""A call of every operation that writes, on a store at a moment, and what it needs before."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from backends import DUE, HOUR, NO_STATE, T0, TICK, TTL, create, key, message, note, use, words
from lapse.adoption.store import Batch, Selection
from lapse.artifacts.outbox import OutboxEntry
from lapse.artifacts.uploads import Upload
from lapse.core.documents import StateDelta
from lapse.core.lifecycle import Cause
from lapse.core.messages import UsedBy
from lapse.idempotency.rules import KeyRules
from lapse.quotas.rules import Bucket, Drawer
from lapse.runs.repeats import NOTHING_KNOWN
from lapse.runs.store import RunStatus
from lapse.store.records import Revision
from lapse.sweep.rules import Brake, BrakeReason
from lapse.ttl.decision import Decision, Reason
from lapse.ttl.observed import Scope
from parts import Store

DAY = timedelta(days=1)
STATE = StateDelta(app={"a": 1}, user={"u": [2.5]}, session={"s": {"deep": None}})
BUCKETS = [Bucket.of(Drawer.USER, "ann", 5), Bucket.of(Drawer.ALL, "", 50)]
BRAKE = Brake(BrakeReason.SHARE, T0, T0 + HOUR, sessions=7)
BATCH = Batch("r1", Selection(), HOUR, None, 100)
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


async def decided(store: Store, version: int = 0) -> Any:
    decisions = [Decision(Scope("app"), T0, Reason.CHOSEN, ttl=2 * TTL)]
    return await store.record_decisions(decisions, slot=1, version=version)


async def made(store: Store, **session: Any) -> Any:
    created = await store.create(key(), **session)
    return created.value.state, created.value.revision, created.changes


async def append(store: Store, event: Any) -> Any:
    seen = (await store.read(key())).revision
    return (await store.append(key(), event, seen)).value.revision


async def append_words_late(store: Store, event: Any) -> Any:
    """Append to an expired session, which its writer had read before."""
    return (await store.append(key(), event, Revision(T0, 1))).value.revision


async def append_recorded(store: Store) -> Any:
    seen = (await store.read(key())).revision
    appended = await store.append_recorded(key(), message(), seen, by="op", action="ran", detail={})
    return appended.value.revision


async def made_once(store: Store, **session: Any) -> Any:
    created = await store.create_once(key(), KEYED, **session)
    return created.value.state, created.value.revision, created.changes


async def keyed(store: Store) -> None:
    """Have a session that a request with a key has created."""
    await made_once(store.at(T0), state=NO_STATE, ttl=TTL, metadata={})


async def note_of_a_year_ago(store: Store) -> None:
    await store.at(T0 - 365 * DAY).record_act("op", "swept", {})


@dataclass(frozen=True)
class Call:
    """One call of an operation.

    `answers_the_same` is False where a repeat does not know what an attempt did whose answer was
    lost: what the operation's docstring says of a repeat is then all that the caller learns.
    `besides` is a table in which a repeat may leave something else.
    """

    needs: Callable[[Store], Awaitable[Any]]
    make: Callable[[Store], Awaitable[Any]]
    at: Any = T0
    answers_the_same: bool = True
    besides: str = ""


CALLS: dict[str, tuple[Call, ...]] = {
    "create": (
        Call(nothing, lambda store: made(store, state=STATE, ttl=TTL, metadata={"k": 1})),
        Call(
            expired,
            lambda store: made(store, state=NO_STATE, ttl=HOUR, metadata={}, site="here"),
            DUE,
        ),
    ),
    "amend": (
        Call(waiting, lambda store: store.amend(key(), metadata={"k": 2}, ttl=HOUR, by="op")),
        Call(used, lambda store: store.amend(key(), metadata={"k": 2})),
    ),
    "extend": (Call(waiting, lambda store: store.extend(key(), by="op"), T0 + TTL / 2),),
    "resurrect": (
        Call(expired, lambda store: store.resurrect(key(), cause=Cause.REQUEST, by="op"), DUE),
        Call(waiting, lambda store: store.resurrect(key(), cause=Cause.REQUEST, by="op")),
    ),
    "expire": (
        Call(waiting, lambda store: store.expire(key(), by="op")),
        Call(expired, lambda store: store.expire(key(), by="op"), DUE),
    ),
    "expire_due": (Call(crowd, lambda store: store.expire_due(10), DUE + HOUR, False),),
    "expire_backlog": (Call(crowd, lambda store: store.expire_backlog(10), DUE + HOUR, False),),
    "purge_due": (Call(expired, lambda store: store.purge_due(10), PURGED, False),),
    "append": (
        Call(waiting, lambda store: append(store, message(state={"app:a": 1, "x": 2}))),
        Call(waiting, lambda store: append(store, note(state={"user:u": 1, "x": 2}))),
        Call(used, lambda store: append(store, message("m2", at=T0 + HOUR)), T0 + HOUR),
        Call(greeted, lambda store: append(store, words("w2", state={"app:a": 1, "x": 2}))),
        Call(greeted, lambda store: append(store, message("m2"))),
        Call(
            greeted,
            lambda store: append_words_late(store, words("w2", at=DUE, state={"user:u": 1})),
            DUE,
        ),
    ),
    "restart_ttl": (
        Call(greeted, lambda store: store.restart_ttl(key(), held_for=HOUR), T0 + TTL / 2),
        Call(used, lambda store: store.restart_ttl(key(), held_for=HOUR), T0 + TTL / 2),
    ),
    "hold_off": (
        Call(greeted, lambda store: store.hold_off([key()], held_for=HOUR), DUE - TICK),
        Call(used, lambda store: store.hold_off([key()], held_for=HOUR), DUE - TICK),
    ),
    "delete": (
        Call(waiting, lambda store: store.delete(key(), by="op")),
        Call(running, lambda store: store.delete(key(), by="op")),
        Call(orphan, lambda store: store.delete(key(), by="op")),
        Call(nothing, lambda store: store.delete(key(), by="op")),
    ),
    "begin_run": (Call(used, lambda store: store.begin_run(key(), "run", max_per_user=3)),),
    "note_run": (Call(running, lambda store: store.note_run("run", "e-1", T0)),),
    "beat_runs": (Call(running, lambda store: store.beat_runs(["run"]), T0 + TTL / 1000),),
    "end_run": (
        Call(running, lambda store: store.end_run("run", RunStatus.DONE), answers_the_same=False),
    ),
    "cancel_run": (Call(running, lambda store: store.cancel_run(key(), "run")),),
    "forget_runs": (Call(ended, lambda store: store.forget_runs(10), PURGED, False),),
    "record_act": (
        Call(nothing, lambda store: store.record_act("op", "swept", {"expired": 1})),
        Call(nothing, lambda store: store.record_act("op", "ran", {}, key=key())),
    ),
    "append_recorded": (Call(waiting, append_recorded),),
    "fold_observations": (
        Call(
            purged,
            lambda store: store.fold_observations(before=T0 + DAY, segments=[], forgotten=T0),
            PURGED,
        ),
    ),
    "refuse": (Call(purged, lambda store: store.refuse(key()), PURGED, False),),
    "record_decisions": (Call(nothing, decided),),
    "lengthen_waiting": (
        Call(
            crowd,
            lambda store: store.lengthen_waiting(Scope("app"), before=TTL, ttl=HOUR, limit=10),
            answers_the_same=False,
        ),
    ),
    "draw": (Call(drawn, lambda store: store.draw(BUCKETS)),),
    "forget_buckets": (Call(drawn, lambda store: store.forget_buckets(), DUE),),
    "expire_excess": (
        Call(
            crowd,
            lambda store: store.expire_excess(key(), site=None, per_user=2, per_site=None),
            T0 + TTL / 2,
            False,
        ),
    ),
    "reuse_waiting": (
        Call(
            crowd,
            lambda store: store.reuse_waiting(key("new"), ttl=TTL, metadata={}),
            T0 + TTL / 2,
        ),
    ),
    "mark_swept": (Call(nothing, lambda store: store.mark_swept()),),
    "set_brake": (Call(nothing, lambda store: store.set_brake(BRAKE)),),
    "release_brake": (Call(braked, lambda store: store.release_brake(since=T0)),),
    "fold_counts": (Call(used, lambda store: store.fold_counts(), PURGED),),
    "recount": (Call(used, lambda store: store.recount()),),
    "take_outbox": (Call(purged, lambda store: store.take_outbox(10), PURGED, False),),
    "take_outbox_of": (
        Call(
            purged,
            lambda store: store.take_outbox_of(key()),
            PURGED,
            answers_the_same=False,
            besides="lapse_artifact_outbox",
        ),
    ),
    "take_room": (Call(used, lambda store: store.take_room(UPLOAD, 1 << 20)),),
    "note_upload": (Call(waiting, lambda store: store.note_upload(UPLOAD)),),
    "keep_upload": (
        Call(uploading, lambda store: store.keep_upload(UPLOAD, counted=True)),
        Call(waiting, lambda store: store.keep_upload(UPLOAD, counted=False)),
        Call(purged, lambda store: store.keep_upload(UPLOAD, counted=True), PURGED),
    ),
    "forget_uploads": (Call(uploading, lambda store: store.forget_uploads([UPLOAD.upload])),),
    "settle_outbox": (
        Call(
            purged,
            lambda store: store.settle_outbox(OutboxEntry(key(), PURGED, 1)),
            PURGED,
        ),
    ),
    "adopt": (Call(orphan, lambda store: store.adopt(BATCH), answers_the_same=False),),
    "put_back": (
        Call(
            adopted,
            lambda store: store.put_back("r1", after=None, limit=10),
            answers_the_same=False,
        ),
    ),
    "forget_adopted": (Call(adopted, lambda store: store.forget_adopted()),),
    "analyze": (Call(nothing, lambda store: store.analyze()),),
    "ping": (Call(nothing, lambda store: store.ping()),),
    "begin_once": (
        Call(
            used,
            lambda store: store.begin_once(
                key(), "run", KEYED, max_per_user=3, prepared=NOTHING_KNOWN
            ),
        ),
    ),
    "create_once": (
        Call(nothing, lambda store: made_once(store, state=STATE, ttl=TTL, metadata={"k": 1})),
        Call(expired, lambda store: made_once(store, state=NO_STATE, ttl=HOUR, metadata={}), DUE),
    ),
    "keep_created": (Call(waiting, lambda store: store.keep_created(key(), KEYED)),),
    "forget_keys": (Call(keyed, lambda store: store.forget_keys(10), PURGED, False),),
    "forget_attempts": (Call(note_of_a_year_ago, lambda store: store.forget_attempts()),),
}
