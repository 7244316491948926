"""What two processes do to a session at once, on a store and on the model."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from backends import DUE, NO_STATE, T0, TICK, TTL, message, note
from lapse.core.errors import LapseError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Cause, Change, Status
from lapse.core.messages import UsedBy
from lapse.store.records import Result, Revision

GONE = T0 + timedelta(hours=24)
MANY = 1000
SWEEPS = {"sweep": Status.WAITING, "purge": Status.EXPIRED}
NAMES = (
    "create", "message", "note", "repeat", "extend", "amend", "resurrect", "delete", *SWEEPS,
)  # fmt: skip
BEFORE = ("nothing", "waiting", "noted", "expired", "used")
MOMENTS = ((DUE - TICK, DUE), (GONE - TICK, GONE))
"""The last moment before something falls due, and the first at which it is due."""


@dataclass(frozen=True)
class Act:
    """One thing that is done to one session, or to all that are due."""

    name: str
    key: SessionKey
    by: int
    at: datetime
    seen: Revision

    @property
    def event(self):
        if self.name == "note":
            return note(f"n{self.by}", at=self.at)
        if self.name == "repeat":
            return message("m", at=T0)
        return message(f"m{self.by}", at=self.at)


async def do_all(store, acts):
    """Do acts on a store, all at once, and return their answers."""
    return await asyncio.gather(*(_do(store.at(act.at), act) for act in acts))


async def _do(store, act):
    match act.name:
        case "create":
            asked = store.create(act.key, state=NO_STATE, ttl=TTL, metadata={"by": act.by})
        case "message" | "note" | "repeat":
            asked = store.append(act.key, act.event, act.seen)
        case "extend":
            asked = store.extend(act.key)
        case "amend":
            asked = store.amend(act.key, metadata={f"k{act.by}": act.by})
        case "resurrect":
            asked = store.resurrect(act.key, cause=Cause.REQUEST)
        case "delete":
            asked = store.delete(act.key)
        case "sweep":
            return frozenset(one.record.key for one in (await store.expire_due(MANY)).changes)
        case "purge":
            return frozenset(one.record.key for one in (await store.purge_due(MANY)).changes)
    try:
        return answer(await asked)
    except LapseError as error:
        return type(error).__name__


def answer(given):
    """Return what a caller hears of a change, without the moments."""
    changes = (given,) if isinstance(given, Change) else given.changes
    value = given.value if isinstance(given, Result) else None
    return tuple(one.kind for one in changes), bool(getattr(value, "repeated", False))


def do_on_model(model, act):
    """Do an act on the model, and return its answer; of a sweep, whether it took the session."""
    model.now = act.at
    if act.name in SWEEPS:
        due = [key for _, key in model.due(SWEEPS[act.name])]
        (model.expire if act.name == "sweep" else model.purge)(due)
        return act.key in due
    try:
        return answer(_asked_of(model, act))
    except LapseError as error:
        return type(error).__name__


def _asked_of(model, act):
    match act.name:
        case "create":
            return model.create(act.key, NO_STATE, TTL, {"by": act.by}, UsedBy.ANYONE)
        case "message" | "note" | "repeat":
            return model.append(act.key, act.event, act.seen)
        case "extend":
            return model.extend(act.key)
        case "amend":
            return model.amend(act.key, {f"k{act.by}": act.by}, None)
        case "resurrect":
            return model.resurrect(act.key, Cause.REQUEST)
    return model.delete(act.key)
