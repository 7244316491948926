"""The changes that operators can make. The audit log records each with its operator."""

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
from lapse.core.errors import no_such_session
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import Lifecycle, Status
from lapse.dashboard.cookies import Operator
from lapse.store.sessions import Sessions
from lapse.sweep.brake import Brakes
from lapse.sweep.rules import Brake, BrakeOptions, Dues
from lapse.sweep.store import SweepStore
from lapse.sweep.sweeper import SweepReport, sweep_once

MOST_COUNTED: Final = 10_000
"""A dry run stops counting here."""

_SWEEP_TIME: Final = timedelta(seconds=10)
"""How long a sweep by hand may take; the sweeper does the rest."""


class Action(StrEnum):
    """A change of one session."""

    RESURRECT = "resurrect"
    RESTORE = "restore"
    EXTEND = "extend"
    EXPIRE = "expire"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Words:
    """The texts of an action: on its button, before it is done, and after it."""

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
    Action.RESTORE: Words(
        "Restore",
        "Restore this session from the archive?",
        "It is back in ADK's tables with all its events, and counts as active from now on.",
        "The session is restored.",
    ),
    Action.EXTEND: Words(
        "Extend",
        "Extend this session?",
        "Its TTL counts from now on. The deadline never comes nearer.",
        "The session has a fresh TTL.",
    ),
    Action.EXPIRE: Words(
        "Expire now",
        "Expire this session now?",
        "For ADK it no longer exists, as after its deadline. Its owner can restore it for a "
        "while, and a message that comes at this moment wins.",
        "The session is expired.",
    ),
    Action.DELETE: Words(
        "Delete",
        "Delete this session for good?",
        "The session, its state and all its events are deleted. Nothing can restore them.",
        "The session is deleted.",
    ),
}

ALLOWED: Final[Mapping[Status, tuple[Action, ...]]] = {
    Status.WAITING: (Action.EXTEND, Action.EXPIRE, Action.DELETE),
    Status.EXPIRED: (Action.RESURRECT, Action.DELETE),
    Status.USED: (Action.DELETE,),
    Status.ORPHAN: (Action.DELETE,),
    Status.ARCHIVED: (Action.RESTORE, Action.DELETE),
}
"""The actions that a page offers for each status. The store checks again when one is done."""


class Actions:
    """Makes changes in the name of an operator, and records them in the audit log."""

    def __init__(self, service: LapseSessionService, brakes: BrakeOptions) -> None:
        self._service = service
        self._store = service.store
        self._brakes = Brakes(brakes)

    async def do(self, action: Action, key: SessionKey, operator: Operator) -> Lifecycle | None:
        """Change a session and return its record, or None if it was deleted.

        Raises:
            NoSuchSessionError: the session is unknown or purged.
            WrongStatusError: the session's status does not allow the action.
        """
        with acting(Principal(operator.name, Role.OPERATOR)):
            match action:
                case Action.RESURRECT | Action.RESTORE:
                    return await self._service.resurrect(key)
                case Action.EXTEND:
                    return await self._service.extend(key)
                case Action.EXPIRE:
                    return await self._service.expire(key)
                case Action.DELETE:
                    if await Sessions(self._store).lifecycle(key) is None:
                        raise no_such_session(key.named)
                    await self._service.delete_session(*key)
                    return None

    async def dues(self) -> Dues:
        """Return what a sweep would do now, without doing it."""
        return await SweepStore(self._store).dues(most=MOST_COUNTED)

    async def sweep(self, operator: Operator) -> SweepReport:
        """Sweep until nothing is due, but not longer than ten seconds."""
        end = time.monotonic() + _SWEEP_TIME.total_seconds()
        total = SweepReport(full=True)
        while total.full and time.monotonic() < end:
            total += await sweep_once(self._store, self._service.feed, brakes=self._brakes)
            await asyncio.sleep(0)
        await AuditLog(self._store).record_act(operator.name, "swept", total.counts())
        return total

    async def release(self, brake: Brake, operator: Operator) -> bool:
        """Release a brake; return False if it is not set any more."""
        if not await SweepStore(self._store).release_brake(since=brake.since):
            return False
        detail = {"reason": str(brake.reason), "sessions": brake.sessions}
        await AuditLog(self._store).record_act(operator.name, "confirmed", detail)
        return True
