"""What operators do: to one session, or with a sweep. Each act is recorded with who and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from lapse.adk.service import LapseSessionService
from lapse.audit.store import AuditLog
from lapse.auth.principals import Principal, Role, acting
from lapse.core.errors import NoSuchSessionError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Status
from lapse.dashboard.cookies import Operator
from lapse.store.sessions import Sessions
from lapse.sweep.brake import Brakes
from lapse.sweep.rules import Brake, BrakeOptions, Dues
from lapse.sweep.store import SweepStore
from lapse.sweep.sweeper import sweep_once

MOST_COUNTED: Final = 10_000
"""Up to how many a dry run counts."""

_SWEEP: Final = timedelta(seconds=10)
"""For how long a sweep by hand goes on; the sweeper does the rest."""


class Action(StrEnum):
    """What can be done to one session."""

    RESURRECT = "resurrect"
    EXTEND = "extend"
    EXPIRE = "expire"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Words:
    """What a page says of an action: on its button, before it is done, and after it."""

    button: str
    question: str
    consequence: str
    done: str


WORDS: Final[Mapping[Action, Words]] = {
    Action.RESURRECT: Words(
        "Resurrect",
        "Resurrect this session?",
        "It waits for its first message again, with a fresh TTL and the state it had.",
        "The session waits again.",
    ),
    Action.EXTEND: Words(
        "Extend",
        "Extend this session?",
        "Its TTL counts from now; its deadline never comes nearer by it.",
        "The session has a fresh TTL.",
    ),
    Action.EXPIRE: Words(
        "Expire now",
        "Expire this session now?",
        "It is gone for every reader of ADK, as at its deadline. Its owner can have it back "
        "for a while, and a message that comes at this moment wins.",
        "The session is expired.",
    ),
    Action.DELETE: Words(
        "Delete",
        "Delete this session for good?",
        "The session, its state and every event of it are deleted. Nothing brings them back.",
        "The session is deleted.",
    ),
}

ALLOWED: Final[Mapping[Status, tuple[Action, ...]]] = {
    Status.WAITING: (Action.EXTEND, Action.EXPIRE, Action.DELETE),
    Status.EXPIRED: (Action.RESURRECT, Action.DELETE),
    Status.USED: (Action.DELETE,),
    Status.ORPHAN: (Action.DELETE,),
}
"""What is offered; the store decides once more when it is done."""


@dataclass(frozen=True, slots=True)
class HandSwept:
    """What a sweep by hand did; `ended` is False where more is due."""

    expired: int
    purged: int
    kept: int
    ended: bool


class Doing:
    """Does it, in the name of an operator."""

    def __init__(self, service: LapseSessionService, brakes: BrakeOptions) -> None:
        self._service = service
        self._store = service.store
        self._brakes = Brakes(brakes)

    async def do(self, action: Action, key: SessionKey, operator: Operator) -> Lifecycle | None:
        """Do something to a session and return its record; None once it is deleted.

        Raises:
            NoSuchSessionError: it is unknown, or nothing is left to resurrect.
            WrongStatusError: its status does not allow it.
        """
        with acting(Principal(operator.name, Role.OPERATOR)):
            match action:
                case Action.RESURRECT:
                    return await self._service.resurrect(key)
                case Action.EXTEND:
                    return await self._service.extend(key)
                case Action.EXPIRE:
                    return await self._service.expire(key)
                case Action.DELETE:
                    if await Sessions(self._store).lifecycle(key) is None:
                        raise NoSuchSessionError(f"session {key.short}… does not exist")
                    await self._service.delete_session(*key)
                    return None

    async def dues(self) -> Dues:
        """Return what a sweep would do now; it changes nothing."""
        return await SweepStore(self._store).dues(most=MOST_COUNTED)

    async def sweep(self, operator: Operator) -> HandSwept:
        """Sweep until nothing is due, for _SWEEP at most."""
        end = time.monotonic() + _SWEEP.total_seconds()
        expired = purged = kept = 0
        full = True
        while full and time.monotonic() < end:
            report = await sweep_once(self._store, self._service.feed, brakes=self._brakes)
            expired, purged, kept = (
                expired + report.expired,
                purged + report.purged,
                kept + report.kept,
            )
            full = report.full
            await asyncio.sleep(0)
        detail = {"expired": expired, "purged": purged, "kept": kept}
        await AuditLog(self._store).record_act(operator.name, "swept", detail)
        return HandSwept(expired, purged, kept, ended=not full)

    async def release(self, brake: Brake, operator: Operator) -> bool:
        """Let go of a brake; False where it is not set any more."""
        if not await SweepStore(self._store).release_brake(since=brake.since):
            return False
        detail = {"reason": str(brake.reason), "sessions": brake.sessions}
        await AuditLog(self._store).record_act(operator.name, "confirmed", detail)
        return True
