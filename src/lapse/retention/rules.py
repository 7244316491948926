"""A retention policy: what becomes of used sessions, and when."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

ONLY_OWN: Final = (
    "only sessions of ADK's tables in the store are archived; leave LAPSE_CONVERSATIONS_URI unset "
    "where there is a policy"
)
"""Why nothing is archived where another service has the used sessions."""

LONGEST: Final = timedelta(days=36_500)
"""The longest duration of a policy."""

RECHECK: Final = timedelta(hours=1)
"""An exempt session is looked at again after this time, or after the shortest limit of its app."""

NEVER_DUE: Final = timedelta(days=30)
"""A session that no limit but a count can take is looked at again after this time."""

SHORTEST_RECHECK: Final = timedelta(seconds=1)

LONGEST_WARNING: Final = timedelta(days=7)
"""Who watches a session hears so long before that it will be archived, but at most half of the
limit that archives it."""

STALE: Final = timedelta(seconds=8)
"""A run without a heartbeat for so long is not in flight any more; `lapse.runs.store` says so."""

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a policy for the sessions of an app. None: never, or without a limit.

    Attributes:
        idle: a session is archived after this time without an event.
        age: a session is archived this long after its first message, or after its last restore.
        archive: an archived session is purged after this time.
        awaiting: a session that awaits an answer is exempt for this long after its last event;
            None: as long as it awaits one.
        per_user: this many sessions of a user in an app are kept; of the others, those that have
            been idle the longest are archived.
    """

    idle: timedelta | None = None
    age: timedelta | None = None
    archive: timedelta | None = None
    awaiting: timedelta | None = None
    per_user: int | None = None

    @property
    def archives(self) -> bool:
        """Return whether a session of the app can fall due."""
        return any(one is not None for one in (self.idle, self.age, self.per_user))

    @property
    def document(self) -> Mapping[str, int | None]:
        """Return the limits as plain numbers; durations in microseconds."""
        return {one.name: _number(getattr(self, one.name)) for one in fields(self)}


@dataclass(frozen=True)
class Policy:
    """The limits of each app.

    Attributes:
        default: the limits of the apps that have none of their own.
        apps: the limits of the other apps; what an app does not say is taken from the default.
    """

    default: Limits = Limits()
    apps: Mapping[str, Limits] = field(default_factory=dict)

    def of(self, app_name: str) -> Limits:
        """Return the limits of an app."""
        return self.apps.get(app_name, self.default)

    @property
    def document(self) -> Mapping[str, Any]:
        """Return the policy as plain data, the same for every layout of its file."""
        apps = {name: limits.document for name, limits in sorted(self.apps.items())}
        return {"default": self.default.document, "apps": apps}

    @cached_property
    def text(self) -> str:
        """Return the policy as JSON, in one form."""
        return json.dumps(self.document, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """Return what a confirmation names: two policies are the same if their digests are."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Standing:
    """The facts that decide whether a used session falls due.

    Attributes:
        now: the moment of the look, by the store's clock.
        began_at: when its age begins: at its first message, or at its last restore.
        active_at: the latest of first message, last event and restore.
        is_exempt: whether it is pinned, on hold, or has a run in flight.
        awaits_since: since when it awaits an answer; None: it awaits none.
        rank: how many sessions of the user in the app were active later; pinned and held ones do
            not count.
    """

    now: datetime
    began_at: datetime
    active_at: datetime
    is_exempt: bool = False
    awaits_since: datetime | None = None
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """The result of a look at a used session.

    Attributes:
        at: when to look again; a moment that is not after `now`: it is due. None: it never falls
            due by these limits.
        warns: whether it falls due at that moment, which is near enough to tell of it.
    """

    at: datetime | None
    warns: bool = False


def look(limits: Limits, standing: Standing) -> Look:
    """Return when to look at a used session again, and whether to tell that it falls due then."""
    check_at, dues = next_check(limits, standing), _dues(limits, standing)
    if check_at is None or check_at <= standing.now or min(dues)[0] <= standing.now:
        return Look(check_at)
    due, span = min(dues)
    warning_at = due - min(LONGEST_WARNING, span / 2)
    if warning_at > standing.now:
        return Look(warning_at)
    if _is_exempt(limits, standing):
        return Look(min(due, _recheck(limits, standing)))
    return Look(due, warns=True)


def next_check(limits: Limits, standing: Standing) -> datetime | None:
    """Return when a used session falls due; a moment that is not after `now`: it is due.

    If it is exempt, that is when to look at it again. None: it never falls due by these limits.
    """
    due, _ = min(_dues(limits, standing), default=(None, None))
    if due is None or due > standing.now or not _is_exempt(limits, standing):
        return due
    return _recheck(limits, standing)


def _recheck(limits: Limits, standing: Standing) -> datetime:
    shortest = [span for span in (limits.idle, limits.age, limits.awaiting) if span is not None]
    return standing.now + max(SHORTEST_RECHECK, min([RECHECK, *shortest]))


def _dues(limits: Limits, standing: Standing) -> list[tuple[datetime, timedelta]]:
    """Return when each limit takes the session, and how long that limit is."""
    dues = []
    if limits.per_user is not None and standing.rank >= limits.per_user:
        dues.append((standing.now, timedelta(0)))
    if limits.idle is not None:
        dues.append((standing.active_at + limits.idle, limits.idle))
    if limits.age is not None:
        dues.append((standing.began_at + limits.age, limits.age))
    return dues


def _is_exempt(limits: Limits, standing: Standing) -> bool:
    if standing.is_exempt:
        return True
    if standing.awaits_since is None:
        return False
    return limits.awaiting is None or standing.now < standing.awaits_since + limits.awaiting


def _number(value: timedelta | int | None) -> int | None:
    return value // _MICROSECOND if isinstance(value, timedelta) else value
