"""The life of a session: its status, its record, its changes, and what counts as a message.

This is the only place where the rules stand. The stores make them atomic.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from lapse.core.errors import InvalidValueError

DEFAULT_HORIZON: Final = timedelta(hours=24)
LONGEST_HORIZON: Final = timedelta(days=366)

SHORTEST_RESTORE: Final = timedelta(hours=1)
"""However old a session is when it expires, its owner has this long to come back for it."""

HELD_EVENTS: Final = 64
HELD_BYTES: Final = 256 * 1024
"""More held events than this, or more bytes of them, count as use."""

LONGEST_ID: Final = 128
"""Characters of an app name, a user id or a session id: the width of ADK's columns."""


EVALUATION_PREFIXES: Final = ("adk-eval-session-", "___eval___session___")
"""How the ids of sessions begin that ADK's evaluation makes."""


class Status(StrEnum):
    """Where a session stands in its life.

    ORPHAN is a session in ADK's tables that has no message and that Lapse did not create.
    It has no deadline; nothing touches it until it is adopted.
    """

    WAITING = "waiting"
    USED = "used"
    EXPIRED = "expired"
    ORPHAN = "orphan"


SHOWN_ID: Final = 8
"""Characters of a session id that a log may carry."""


class SessionKey(NamedTuple):
    """What identifies a session."""

    app_name: str
    user_id: str
    session_id: str

    @property
    def short(self) -> str:
        """Return as much of the session id as a log may carry."""
        return self.session_id[:SHOWN_ID]

    @property
    def digest(self) -> str:
        """Return what names it, to who knows the key, where the key must not be shown."""
        return blake2b("\0".join(self).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a store enforces.

    Attributes:
        horizon: how long an empty session stays restorable, counted from its creation.
            Zero: nothing is restorable, and a session is deleted at its deadline.
        enforced: False while clean-up is switched off: deadlines are recorded, but nothing
            expires and nothing is hidden.
        artifacts: note the sessions that end while nobody has spoken to them in an outbox,
            for whoever deletes their artifacts.
    """

    horizon: timedelta = DEFAULT_HORIZON
    enforced: bool = True
    artifacts: bool = False

    def __post_init__(self) -> None:
        if not timedelta(0) <= self.horizon <= LONGEST_HORIZON:
            raise InvalidValueError("horizon", f"must be 0 to 366 days, not {self.horizon}")

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
        """Return a lobby row's record as it reads at a moment, swept by then or not.

        Past its deadline a waiting session reads as expired; the sweep that will meet it
        counts the hour to come back from then, so it is counted from now.
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
        """Return False for an expired record past restoring, purged by then or not."""
        if record.status is not Status.EXPIRED or not self.enforced:
            return True
        return record.restorable_until is not None and now < record.restorable_until


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The record of a session's life, as it stands.

    All times are aware and in UTC. `ttl` and `expires_at` are None for sessions that Lapse
    did not create; `expires_at` and `restorable_until` are None for a used session.
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

    @property
    def has_messages(self) -> bool:
        """Return whether the session has a message; such a session never expires."""
        return self.status is Status.USED


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
    """Its deadline came while ADK's tables already held it: kept, for good."""
    ADOPTED = "adopted"
    """ADK's tables held it without a message: it is in the lobby now."""


class Cause(StrEnum):
    """What resurrected a session."""

    MESSAGE = "message"
    RUN = "run"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a session's life, committed.

    `record` is the session after the change; for PURGED and DELETED, as it last stood.
    `at` is the moment by the store's clock. `cause` is set for RESURRECTED only.
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


def utc_now() -> datetime:
    """Return this host's time: what a store without a clock of its own goes by."""
    return datetime.now(UTC)


def is_message(event: Mapping[str, Any]) -> bool:
    """Return whether an event makes its session used.

    `event` is an ADK event as stored: snake_case keys, absent values left out. A message
    carries content of the user or of the agent. State changes, compaction, rewind,
    checkpoints and partial events are not messages, whoever their author is.
    """
    if event.get("partial"):
        return False
    parts = (event.get("content") or {}).get("parts")
    if event.get("author") == "user":
        actions = event.get("actions") or {}
        if actions.get("compaction") or actions.get("rewind_before_invocation_id"):
            return False
        heard = (event.get("input_transcription") or {}).get("text")
        return bool(heard or parts)
    return bool(
        parts
        or event.get("output_transcription") is not None
        or event.get("output") is not None
        or event.get("error_code")
    )


def awaits_answer(event: Mapping[str, Any]) -> bool:
    """Return whether somebody is asked to confirm a tool's call, or to answer a long one."""
    actions = event.get("actions") or {}
    return bool(actions.get("requested_tool_confirmations") or event.get("long_running_tool_ids"))


def check_key(key: SessionKey) -> SessionKey:
    """Return the key when every store can hold it.

    Raises:
        InvalidValueError: a part is empty, over LONGEST_ID characters, or holds NUL or a
            lone surrogate.
    """
    for field, value in zip(("app name", "user id", "session id"), key, strict=True):
        if not value:
            raise InvalidValueError(field, "must not be empty")
        if len(value) > LONGEST_ID:
            reason = f"must be at most {LONGEST_ID} characters long, not {len(value)}"
            raise InvalidValueError(field, reason)
        if "\0" in value:
            raise InvalidValueError(field, "must not contain a NUL character")
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise InvalidValueError(field, "must not contain a lone surrogate")
    return key


def check_new_key(key: SessionKey) -> SessionKey:
    """Return the key when a session may be created under it.

    Raises:
        InvalidValueError: no store could hold it, or a part would be trouble in a log, a path
            or a file's name: it holds a control character, or is `.` or `..`.
    """
    for field, value in zip(("app name", "user id", "session id"), check_key(key), strict=True):
        if unseen := unseen_in(value):
            raise InvalidValueError(field, f"must not contain {unseen}")
        if value in {".", ".."}:
            raise InvalidValueError(field, f"must not be {value!r}")
    return key


def unseen_in(text: str) -> str:
    """Name the first character that moves a cursor or ends a line; empty: there is none."""
    if text.isprintable():
        return ""
    for character in text:
        match unicodedata.category(character):
            case "Cc" | "Zl" | "Zp":
                return f"the control character {character!a}"
            case "Cs":
                return "a lone surrogate (half of a character)"
    return ""


def can_exist(key: SessionKey) -> bool:
    """Return whether a store can hold the key; see `check_key`."""
    try:
        check_key(key)
    except InvalidValueError:
        return False
    return True
