"""The rules of the hand-over, by which a session's first message reaches another service.

A hand-over has three steps. *Claim* makes the lobby row `moving` and keeps the message in it. *Put*
makes the session in the service and stores there what the lobby has held, and then the message.
*Settle* makes the row `elsewhere`. Each step may be repeated, and whoever comes next can finish
what another process has left: put reads the service before it writes, and the steps in the lobby
are fenced by a token.

If the service refuses the message for good, *note refusal* takes the message out of the row before
anything else is done: nobody puts it after that. What was made is then removed from the service,
and *take back* lets the session wait again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Self
from uuid import uuid4

from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey
from lapse.core.lifecycle import OnItsWay, Status
from lapse.core.minutes import spelt
from lapse.store.records import EventRecord

MARK: Final = "_lapse_hand_over"
"""The key of a session's state in the service that says which hand-over has made it.

Where the service has chosen the session's id, Lapse's id stands behind the mark.
"""

LEASE: Final = 2.0
"""A lease lasts so many time-outs of a call."""

LEFT: Final = 1.5
"""A call begins only while so many time-outs of the lease are left: no call that its time-out has
ended is in the way of who takes the hand-over next."""


class Where(StrEnum):
    """Where a session is."""

    NOWHERE = "nowhere"
    """Lapse has no record of it; the service may have a conversation of its key."""

    LOBBY = "lobby"
    """It waits for its first message, or has expired."""

    HERE = "here"
    """ADK's own tables in Lapse's store hold it."""

    MOVING = "moving"
    ELSEWHERE = "elsewhere"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Token:
    """The token that a process must hold to work on a hand-over.

    `mark` names the hand-over, also in the service, and never changes. `fence` is new each time a
    process takes the hand-over over, and is never used again.
    """

    mark: str
    fence: int

    @classmethod
    def new(cls) -> Self:
        """Return a token that nobody has had."""
        return cls(uuid4().hex, new_fence())


def new_fence() -> int:
    """Return a fence that nobody has had."""
    return random.getrandbits(62)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session is, and who works on it.

    Attributes:
        where: the place.
        token: that of the newest who has worked on it; None if nobody has.
        service_id: its id in the service, if that is another than Lapse's.
        lease: how long nobody else may work on it; zero or less: whoever comes may take it over.
    """

    where: Where
    token: Token | None = None
    service_id: str | None = None
    lease: timedelta = timedelta(0)

    @property
    def is_on_its_way(self) -> bool:
        """Return whether somebody is at work on it, or has to finish what another has begun."""
        is_guarded = self.where is Where.LOBBY and self.lease > timedelta(0)
        return is_guarded or self.where in {Where.MOVING, Where.DELETING}


@dataclass(frozen=True, slots=True)
class HandOver:
    """A session on its way into the service.

    Attributes:
        key: the session.
        token: with which its steps are fenced.
        state: its state when it was claimed.
        held: the events that the lobby has held, in order.
        message: the first message; None if the service has refused it, or if there is none.
        service_id: its id in the service, if that is known to be another than Lapse's.
        is_delete: whether it is on its way out; there is then no message.
        is_stray: whether only what a late hand-over has left is to be removed, by its mark.
    """

    key: SessionKey
    token: Token
    state: Mapping[str, Any]
    held: Sequence[EventRecord]
    message: EventRecord | None
    service_id: str | None
    is_delete: bool = False
    is_stray: bool = False

    @property
    def is_refused(self) -> bool:
        """Return whether the service has refused the message: it is on its way back."""
        return self.message is None and not self.is_delete

    @property
    def events(self) -> Sequence[EventRecord]:
        """Return all events, in the order in which they are put."""
        return (*self.held, *(() if self.message is None else (self.message,)))

    def missing(self, stored: Sequence[str]) -> Sequence[EventRecord]:
        """Return the events that a session with these events' ids lacks, in order."""
        present = frozenset(stored)
        return [event for event in self.events if event.id not in present]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long calls of the service, and callers who wait for a hand-over, may take.

    Attributes:
        timeout: how long one call may take.
        wait: how long a caller waits for a hand-over of somebody else.
    """

    timeout: timedelta = timedelta(seconds=10)
    wait: timedelta = timedelta(seconds=2)

    def __post_init__(self) -> None:
        if not timedelta(milliseconds=10) <= self.timeout <= timedelta(minutes=10):
            raise InvalidValueError(
                "conversations timeout", f"must be 0.01 to 600 seconds, not {spelt(self.timeout)}"
            )

    @property
    def lease(self) -> timedelta:
        """Return how long a lease lasts."""
        return self.timeout * LEASE

    @property
    def left(self) -> timedelta:
        """Return how much of a lease must be left when a call begins."""
        return self.timeout * LEFT


def marked(mark: str, alias_of: str | None = None) -> str:
    """Return the mark that a hand-over puts into the state of the session that it makes.

    `alias_of` is Lapse's id of a session for which the service chooses another one.
    """
    return mark if alias_of is None else f"{mark} {alias_of}"


def has_mark(state: Mapping[str, Any], mark: str) -> bool:
    """Return whether a session's state in the service says that this hand-over has made it."""
    found = state.get(MARK)
    return isinstance(found, str) and found.partition(" ")[0] == mark


def alias_of(state: Mapping[str, Any]) -> str | None:
    """Return Lapse's id of a session whose id the service has chosen; None for all others."""
    found = state.get(MARK)
    return (found.partition(" ")[2] or None) if isinstance(found, str) else None


def where_of(status: str | None, *, is_stored: bool) -> Where:
    """Return where a session is by its lobby row's status, and by whether ADK's tables hold it."""
    if is_stored:
        return Where.HERE
    match status:
        case None | Status.USED:  # a record that outlives a session which others deleted
            return Where.NOWHERE
        case Status.WAITING | Status.EXPIRED:
            return Where.LOBBY
        case _:
            return Where(OnItsWay(status))
