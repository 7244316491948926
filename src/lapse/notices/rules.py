"""Notices: what a browser is told about a session, worked out from what it knows and the record.

A notice is the difference between two states of a session. It is never stored, and never queued for
a browser that is away: a browser that comes back, to any replica, says which state it knows, and is
told what has happened since and still matters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from lapse.core.arguments import check_fields
from lapse.core.errors import InvalidValueError
from lapse.core.lifecycle import Lifecycle, Status
from lapse.core.minutes import spelt

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_STATUSES: Final = {str(status)[0]: status for status in Status}


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How sessions are watched.

    Attributes:
        warn_before: how long before its deadline a browser is warned, but at most half the
            session's TTL. Zero: never.
        heartbeat: the time between two heartbeats of a stream. All watched sessions are read as
            often, to see what other processes did.
        per_session: the maximum of streams for one session in one process.
        per_user: the maximum of streams for one user, over all apps, in one process.
    """

    warn_before: timedelta = timedelta(minutes=5)
    heartbeat: timedelta = timedelta(seconds=15)
    per_session: int = 3
    per_user: int = 10

    def __post_init__(self) -> None:
        check_fields(self)
        if self.warn_before < timedelta(0):
            raise InvalidValueError(
                "warn_before", f"must not be negative: {spelt(self.warn_before)}"
            )
        if self.heartbeat <= timedelta(0):
            raise InvalidValueError("heartbeat", f"must be above 0, not {spelt(self.heartbeat)}")
        if min(self.per_session, self.per_user) < 1:
            raise InvalidValueError("streams", "at least one must be allowed")


class NoticeKind(StrEnum):
    """The kind of a notice, which is the name of its server-sent event."""

    LIFECYCLE = "lifecycle"
    """The session's record: on connecting, when another session has taken its id, and when it is
    not archived as was announced."""

    EXPIRING = "expiring"
    EXTENDED = "extended"
    """Its deadline has moved."""

    EXPIRED = "expired"
    RESURRECTED = "resurrected"
    USED = "used"
    ARCHIVING = "archiving"
    """A retention policy archives it soon, if nobody uses it until then."""

    ARCHIVED = "archived"
    RESTORED = "restored"
    """It came back from the archive."""

    DELETED = "deleted"
    """The session is gone: deleted by its owner, or purged."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a browser knows of a session; as text it is the id of the events sent to the browser.

    `expires_at` is the deadline, or when a used session will be archived. `warned` is True if the
    browser was warned of that.
    """

    created_at: datetime
    status: Status
    expires_at: datetime | None
    resurrections: int
    warned: bool = False

    @classmethod
    def of(cls, record: Lifecycle) -> Known:
        """Return what a browser knows that has been shown this record."""
        deadline = record.expires_at or record.archives_at
        return cls(record.created_at, record.status, deadline, record.resurrections)

    @property
    def text(self) -> str:
        """Return the text that `parse` reads; it has no spaces."""
        expires = "" if self.expires_at is None else _micros(self.expires_at)
        status = str(self.status)[0] + ("!" if self.warned else "")
        return f"{status}.{_micros(self.created_at)}.{expires}.{self.resurrections}"

    @classmethod
    def parse(cls, text: str) -> Known | None:
        """Read a text that `text` has returned; None if it is another text."""
        try:
            status, created, expires, resurrections = text.split(".")
            return cls(
                created_at=_moment(created),
                status=_STATUSES[status.removesuffix("!")],
                expires_at=_moment(expires) if expires else None,
                resurrections=int(resurrections),
                warned=status.endswith("!"),
            )
        except (ValueError, KeyError, OverflowError):
            return None


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell a browser, and what the browser knows afterwards.

    `at` is the moment by the store's clock at which `record` was read.
    """

    kind: NoticeKind
    record: Lifecycle
    at: datetime
    known: Known

    @property
    def time_left(self) -> timedelta | None:
        """Return how far ahead the deadline or archive is, at least zero; None: there is none."""
        deadline = self.record.expires_at or self.record.archives_at
        return None if deadline is None else max(timedelta(0), deadline - self.at)


def warning_at(record: Lifecycle, before: timedelta) -> datetime | None:
    """Return when to warn of a deadline: `before` it, but at most half the TTL; None: never."""
    if record.status is not Status.WAITING or not before:
        return None
    if record.expires_at is None or record.ttl is None:
        return None
    return record.expires_at - min(before, record.ttl / 2)


def next_moment(record: Lifecycle, known: Known, before: timedelta) -> datetime | None:
    """Return when a session must be read again, if nobody changes it; None: never."""
    match record.status:
        case Status.WAITING:
            warning = None if known.warned else warning_at(record, before)
            return warning or record.expires_at
        case Status.EXPIRED:
            return record.restorable_until
        case Status.USED | Status.ORPHAN | Status.ARCHIVED:
            return None


def greeting(
    known: Known | None, record: Lifecycle, at: datetime, before: timedelta
) -> list[Notice]:
    """Return what to tell a browser that connects: the record, and what happened since `known`."""
    shown = Known.of(record)
    first = Notice(NoticeKind.LIFECYCLE, record, at, known or shown)
    if known is not None and known.created_at == record.created_at:
        return [first, *news(known, record, at, before)]
    return [replace(first, known=shown), *news(shown, record, at, before)]


def news(known: Known, record: Lifecycle, at: datetime, before: timedelta) -> list[Notice]:
    """Return what to tell a browser that knows an older state of a session, in order."""
    shown = Known.of(record)
    same_deadline = known.expires_at == shown.expires_at
    kinds = _kinds(known, shown)
    shown = replace(shown, warned=known.warned and same_deadline and not kinds)
    notices = [Notice(kind, record, at, shown) for kind in kinds]
    if shown.warned:
        return notices
    warning = warning_at(record, before)
    if record.archives_at is not None:
        notices.append(Notice(NoticeKind.ARCHIVING, record, at, replace(shown, warned=True)))
    elif warning is not None and warning <= at:
        notices.append(Notice(NoticeKind.EXPIRING, record, at, replace(shown, warned=True)))
    return notices


def _kinds(known: Known, shown: Known) -> list[NoticeKind]:
    if known.created_at != shown.created_at:
        return [NoticeKind.LIFECYCLE]
    revived = shown.resurrections > known.resurrections
    resurrected = [NoticeKind.RESURRECTED] if revived else []
    match known.status, shown.status:
        case _, Status.USED | Status.ARCHIVED:
            return _kinds_with_messages(known, shown, resurrected)
        case _, Status.EXPIRED:
            return [NoticeKind.EXPIRED] if revived or known.status != shown.status else []
        case Status.WAITING, Status.WAITING:
            # On its way to another service it has no deadline, which is no news: it is used soon.
            is_moved = shown.expires_at not in {known.expires_at, None}
            return resurrected or [NoticeKind.EXTENDED] * is_moved
        case Status.EXPIRED, Status.WAITING:
            return [NoticeKind.RESURRECTED]
        case _:
            # The session was adopted, or put back: it was an orphan before, or is one now.
            return [NoticeKind.LIFECYCLE] if known.status != shown.status else []


def _kinds_with_messages(
    known: Known, shown: Known, resurrected: list[NoticeKind]
) -> list[NoticeKind]:
    match known.status, shown.status:
        case Status.USED, Status.USED:
            is_taken_back = known.warned and shown.expires_at is None
            return [NoticeKind.LIFECYCLE] * is_taken_back
        case _, Status.ARCHIVED:
            return [NoticeKind.ARCHIVED] if known.status != shown.status else []
        case Status.ARCHIVED, _:
            return [NoticeKind.RESTORED]
        case _:
            return [*resurrected, NoticeKind.USED]


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(micros: str) -> datetime:
    return _EPOCH + timedelta(microseconds=int(micros))
