"""The life of a session: its status, its record, its changes, and the rules of its deadlines.

The statements of the stores make the rules atomic; `docs/architecture.md` says which statement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from lapse.core.arguments import check_fields
from lapse.core.errors import InvalidValueError
from lapse.core.keys import SessionKey
from lapse.core.messages import UsedBy
from lapse.core.minutes import spelt

DEFAULT_HORIZON: Final = timedelta(hours=24)
LONGEST_HORIZON: Final = timedelta(days=366)

SHORTEST_RESTORE: Final = timedelta(hours=1)
"""An expired session is restorable for at least this long, however old it is."""

HELD_EVENTS: Final = 64
HELD_BYTES: Final = 256 * 1024
"""A waiting session with more held events than this, or more bytes of them, counts as used, or
the event is refused."""


class Status(StrEnum):
    """Where a session stands in its life.

    ORPHAN is a session in ADK's tables that has no message and that Lapse did not create.
    It has no deadline; nothing touches it until it is adopted. ARCHIVED is a used session that a
    confirmed retention policy has moved out of ADK's tables; its owner can have it back.
    """

    WAITING = "waiting"
    USED = "used"
    EXPIRED = "expired"
    ORPHAN = "orphan"
    ARCHIVED = "archived"


class OnItsWay(StrEnum):
    """The stored status of a session whose messages another session service holds, or will.

    MOVING is on its way there, and reads as waiting. ELSEWHERE is there, and reads as used.
    DELETING is on its way out of both, and does not exist for any reader.
    """

    MOVING = "moving"
    ELSEWHERE = "elsewhere"
    DELETING = "deleting"


_READS_AS: Final[Mapping[str, Status]] = {
    **{str(status): status for status in Status},
    OnItsWay.MOVING: Status.WAITING,
    OnItsWay.ELSEWHERE: Status.USED,
}


def status_of(stored: str) -> Status:
    """Return the status as which a lobby row reads; KeyError for one that is being deleted."""
    return _READS_AS[stored]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a store enforces.

    Attributes:
        horizon: how long an empty session stays restorable, counted from its creation.
            Zero: nothing is restorable, and a session is deleted at its deadline.
        enforced: False while clean-up is switched off: deadlines are recorded, but nothing
            expires and nothing is hidden.
        artifacts: write each session that ends into an outbox, for a server that deletes its
            artifacts.
        shared_state: maximum size of the state of an app, and of that of a user in an app, in
            bytes of JSON. State that is larger already may only shrink.
    """

    horizon: timedelta = DEFAULT_HORIZON
    enforced: bool = True
    artifacts: bool = False
    shared_state: int = 1024 * 1024

    def __post_init__(self) -> None:
        check_fields(self)
        if not timedelta(0) <= self.horizon <= LONGEST_HORIZON:
            raise InvalidValueError("horizon", f"must be 0 to 366 days, not {spelt(self.horizon)}")

    @property
    def extensible(self) -> timedelta:
        """Return how far from its creation a session's deadline can be extended."""
        return self.horizon or DEFAULT_HORIZON

    def restorable_until(self, created_at: datetime, expired_at: datetime) -> datetime:
        """Return when a session that expired at `expired_at` is purged."""
        if not self.horizon:
            return expired_at
        return max(created_at + self.horizon, expired_at + SHORTEST_RESTORE)

    def as_it_reads(self, record: Lifecycle, now: datetime) -> Lifecycle:
        """Return a lobby row's record as it reads at a moment, whether it was swept or not.

        A waiting session past its deadline reads as expired. The sweep that will expire it counts
        SHORTEST_RESTORE from its own time, so here that is counted from `now`.
        """
        if record.status is not Status.WAITING or record.expires_at is None:
            return record
        if not self.enforced or now < record.expires_at:
            until = self.restorable_until(record.created_at, record.expires_at)
            return replace(record, restorable_until=until)
        return replace(
            record,
            status=Status.EXPIRED,
            expired_at=record.expires_at,
            restorable_until=self.restorable_until(record.created_at, now),
        )

    def still_stands(self, record: Lifecycle, now: datetime) -> bool:
        """Return whether a session still exists: an expired one does while it is restorable."""
        if record.status is not Status.EXPIRED or not self.enforced:
            return True
        return record.restorable_until is not None and now < record.restorable_until


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The record of a session's life.

    All times are aware and in UTC. `ttl` and `expires_at` are None for sessions that Lapse
    did not create; `expires_at` and `restorable_until` are None for a used session. An archived one
    is purged at `restorable_until`; None: never. `archives_at` is set where it is known that a
    retention policy archives the session soon, if nobody uses it until then. `used_by` says
    whose message makes the session used, and `agent_spoke` whether the agent has said something
    that did not. `on_hold` is told of a session that is read or shown; the record in a `Change`
    does not tell it.
    """

    key: SessionKey
    status: Status
    created_at: datetime
    ttl: timedelta | None = None
    expires_at: datetime | None = None
    first_message_at: datetime | None = None
    expired_at: datetime | None = None
    restorable_until: datetime | None = None
    resurrections: int = 0
    metadata: Mapping[str, Any] | None = None
    used_by: UsedBy = UsedBy.ANYONE
    agent_spoke: bool = False
    archived_at: datetime | None = None
    pinned: bool = False
    archives_at: datetime | None = None
    on_hold: bool = False

    @property
    def has_messages(self) -> bool:
        """Return whether the session has a message; such a session never expires."""
        return self.status in {Status.USED, Status.ARCHIVED}


class ChangeKind(StrEnum):
    """What happened to a session."""

    CREATED = "created"
    USED = "used"
    EXTENDED = "extended"
    AMENDED = "amended"
    EXPIRED = "expired"
    RESURRECTED = "resurrected"
    PURGED = "purged"
    DELETED = "deleted"
    KEPT = "kept"
    """Its deadline came while ADK's tables already held it: it counts as used from then on."""
    ADOPTED = "adopted"
    """It moved from ADK's tables, where it had no message, into the lobby."""
    ARCHIVING = "archiving"
    """A retention policy will archive it soon, if nobody uses it until then."""
    ARCHIVED = "archived"
    """A retention policy moved it out of ADK's tables."""
    RESTORED = "restored"
    """It came back into ADK's tables from the archive."""


class Cause(StrEnum):
    """What resurrected or restored a session."""

    MESSAGE = "message"
    RUN = "run"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change of a session's life.

    `record` is the session after the change; for PURGED and DELETED, as it last stood.
    `at` is the moment by the store's clock. `cause` is set for RESURRECTED and
    RESTORED only.
    """

    kind: ChangeKind
    at: datetime
    record: Lifecycle
    cause: Cause | None = None

    @property
    def lateness(self) -> timedelta | None:
        """Return how long after its deadline a session expired; None for other changes."""
        if self.kind is not ChangeKind.EXPIRED or self.record.expires_at is None:
            return None
        return self.at - self.record.expires_at

    @property
    def age(self) -> timedelta:
        """Return how old the session was; for USED, the time to its first message."""
        return self.at - self.record.created_at


@dataclass(frozen=True, slots=True)
class Expiries:
    """Sessions of one app that one statement expired, in place of a `Change` for each.

    Attributes:
        app_name: the app.
        at: the moment of their expiry, by the store's clock.
        latenesses: how many seconds after its deadline each expired, ascending.
        named: the sessions as JSON, a list of `[user_id, session_id]`. Only `keys` parses it,
            because most consumers do not ask which sessions they are.
    """

    app_name: str
    at: datetime
    latenesses: Sequence[float]
    named: str

    def __len__(self) -> int:
        return len(self.latenesses)

    @property
    def latest(self) -> timedelta:
        """Return the greatest lateness."""
        return timedelta(seconds=self.latenesses[-1])

    @property
    def keys(self) -> Iterator[SessionKey]:
        """Return the keys of the sessions, in no order."""
        for user_id, session_id in json.loads(self.named):
            yield SessionKey(self.app_name, user_id, session_id)
