"""A call of every operation that writes, on a store at a moment, and what it needs before."""

from collections.abc import Awaitable
from typing import Any

from call import Call
from calls_of_users import CALLS_OF_USERS
from needs import (
    BATCH,
    BRAKE,
    BUCKETS,
    DAY,
    KEYED,
    LEASE,
    PURGED,
    RETENTION,
    STATE,
    TAKEN,
    TOKEN,
    UPLOAD,
    adopted,
    archived,
    braked,
    claim,
    confirmed,
    crowd,
    deleting,
    drawn,
    ended,
    expired,
    greeted,
    guarded,
    held,
    memory_owed,
    moving,
    nothing,
    orphan,
    orphan_with_message,
    pinned_before,
    purged,
    refused,
    running,
    told,
    uploading,
    used,
    waiting,
)

from backends import DUE, HOUR, NO_STATE, T0, TICK, TTL, key, message, note, words
from lapse.artifacts.outbox import OutboxEntry
from lapse.conversations.rules import Token
from lapse.core.lifecycle import Cause
from lapse.retention.rules import Policy
from lapse.runs.repeats import NOTHING_KNOWN
from lapse.runs.store import RunStatus
from lapse.store.records import LastSeen, Revision
from lapse.ttl.decision import Decision, Reason
from lapse.ttl.observed import Scope
from parts import Store


async def hold(store: Store, event: Any) -> Any:
    return await store.hold(key(), event, (await store.read(key())).revision)


async def decided(store: Store, version: int = 0) -> Any:
    decisions = [Decision(Scope("app"), T0, Reason.CHOSEN, ttl=2 * TTL)]
    return await store.record_decisions(decisions, slot=1, version=version)


async def made(store: Store, **session: Any) -> Any:
    created = await store.create(key(), **session)
    return created.value.state, created.value.revision, created.changes


async def append(store: Store, event: Any) -> Any:
    seen = (await store.read(key())).revision
    return (await store.append(key(), event, seen)).value.revision


async def pinned(change: Awaitable[Any]) -> bool:
    return (await change).value.pinned


async def append_to_archived(store: Store, event: Any) -> Any:
    """Append to an archived session, which its writer had read before."""
    return (await store.append(key(), event, LastSeen(T0, "m1"))).value.revision


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


CALLS: dict[str, tuple[Call, ...]] = {
    "record_used": (
        Call(orphan_with_message, lambda store: store.record_used(key()), answers_the_same=False),
    ),
    "archive_sessions": (
        Call(
            used,
            lambda store: store.archive_sessions([key()], RETENTION),
            T0 + HOUR,
            answers_the_same=False,
        ),
    ),
    "purge_archived": (
        Call(
            archived, lambda store: store.purge_archived(10), T0 + 3 * HOUR, answers_the_same=False
        ),
    ),
    "take_to_purge": (
        Call(
            archived,
            lambda store: store.take_to_purge(10, lease=HOUR),
            T0 + 3 * HOUR,
            answers_the_same=False,
        ),
    ),
    "postpone_purge": (
        Call(archived, lambda store: store.postpone_purge(TAKEN, HOUR), T0 + 3 * HOUR),
    ),
    "purge_taken": (
        Call(
            archived,
            lambda store: store.purge_taken(TAKEN, ["m1", "m2"]),
            T0 + 3 * HOUR,
            answers_the_same=False,
        ),
    ),
    "take_memory": (
        Call(memory_owed, lambda store: store.take_memory(10, lease=HOUR), PURGED, False),
    ),
    "pin": (Call(used, lambda store: pinned(store.pin(key(), by="op"))),),
    "unpin": (Call(pinned_before, lambda store: pinned(store.unpin(key(), by="op"))),),
    "put_on_hold": (
        Call(
            used,
            lambda store: store.put_on_hold(key(), reason="why", by="op"),
            answers_the_same=False,
        ),
    ),
    "release_hold": (
        Call(held, lambda store: store.release_hold(key(), by="op"), answers_the_same=False),
    ),
    "brake_purge": (Call(nothing, lambda store: store.brake_purge(T0, 7)),),
    "scan": (
        Call(
            confirmed,
            lambda store: store.scan(RETENTION),
            T0 + HOUR,
            answers_the_same=False,
        ),
    ),
    "check_user": (Call(used, lambda store: store.check_user(key()), T0 + HOUR),),
    "confirm_retention": (
        Call(
            nothing,
            lambda store: store.confirm_retention(Policy(), by="op"),
            answers_the_same=False,
        ),
    ),
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
        Call(
            archived,
            lambda store: store.resurrect(key(), cause=Cause.REQUEST, by="op"),
            T0 + HOUR,
            answers_the_same=False,
        ),
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
        Call(
            archived,
            lambda store: append_to_archived(store, message("m2", at=T0 + HOUR)),
            T0 + HOUR,
        ),
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
    "hold": (Call(waiting, lambda store: hold(store, note(state={})), answers_the_same=False),),
    "claim": (
        Call(waiting, claim),
        Call(expired, claim, DUE),
    ),
    "take_over": (
        Call(moving, lambda store: store.take_over(key(), fence=9, lease=LEASE), DUE),
        Call(deleting, lambda store: store.take_over(key(), fence=9, lease=LEASE), DUE),
    ),
    "renew": (Call(moving, lambda store: store.renew(key(), TOKEN, lease=HOUR, service_id="9")),),
    "settle": (Call(moving, lambda store: store.settle(key(), TOKEN, service_id="9")),),
    "note_refusal": (Call(moving, lambda store: store.note_refusal(key(), TOKEN)),),
    "take_back": (Call(refused, lambda store: store.take_back(key(), TOKEN)),),
    "begin_delete": (
        Call(
            moving,
            lambda store: store.begin_delete(key(), token=Token("x", 9), lease=LEASE, by="op"),
            DUE,
        ),
        Call(
            waiting,
            lambda store: store.begin_delete(key(), token=Token("x", 9), lease=LEASE, by="op"),
        ),
        Call(
            nothing,
            lambda store: store.begin_delete(key(), token=Token("x", 9), lease=LEASE),
        ),
    ),
    "reserve": (Call(nothing, lambda store: store.reserve(key(), TOKEN, lease=LEASE)),),
    "end_delete": (Call(deleting, lambda store: store.end_delete(key(), Token("mark", 2))),),
    "guard": (Call(waiting, lambda store: store.guard(key(), fence=9, lease=LEASE)),),
    "keep_guard": (Call(guarded, lambda store: store.keep_guard(key(), 1, lease=HOUR)),),
    "unguard": (Call(guarded, lambda store: store.unguard(key(), 1)),),
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
    "report_process": (
        Call(
            nothing,
            lambda store: store.report_process("p-1", "host", 1, "lapse serve", sweeps=True),
            T0,
        ),
    ),
    "announce_webhook": (Call(nothing, lambda store: store.announce_webhook(), T0),),
    "take_webhooks": (Call(told, lambda store: store.take_webhooks(10), PURGED, False),),
    "settle_webhooks": (Call(told, lambda store: store.settle_webhooks(range(1, 1000))),),
    "maintain_webhooks": (
        Call(told, lambda store: store.maintain_webhooks(), T0 + 40 * DAY, False),
    ),
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
} | CALLS_OF_USERS
