"""The JSON of records, overviews and brakes: the same for HTTP, pages and the command line.

Names are camelCase. Times are ISO 8601 in UTC with `Z`. Durations are numbers, with their unit in
the name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from lapse.core.clock import iso, iso_or_none
from lapse.core.lifecycle import ChangeKind, Lifecycle, Status
from lapse.core.minutes import minutes_of
from lapse.overview.store import Counted, Overview, Tally
from lapse.sweep.rules import Brake, Dues


def record_json(record: Lifecycle, now: datetime) -> dict[str, Any]:
    """Return a session's record as `GET …/lifecycle` answers it at the time `now`."""
    return {
        "appName": record.key.app_name,
        "userId": record.key.user_id,
        "sessionId": record.key.session_id,
        "status": str(record.status),
        "hasMessages": record.has_messages,
        "createdAt": iso(record.created_at),
        "firstMessageAt": iso_or_none(record.first_message_at),
        "ttlMinutes": None if record.ttl is None else minutes_of(record.ttl),
        "expiresAt": iso_or_none(record.expires_at),
        "expiredAt": iso_or_none(record.expired_at),
        "restorableUntil": iso_or_none(record.restorable_until),
        "resurrections": record.resurrections,
        "metadata": dict(record.metadata or {}),
        "archivedAt": iso_or_none(record.archived_at),
        "pinned": record.pinned,
        "onHold": record.on_hold,
        "serverTime": iso(now),
    }


def overview_json(
    overview: Overview,
    since: timedelta,
    *,
    most_apps: int | None = None,
    unrecorded: int | None = None,
) -> dict[str, Any]:
    """Return an overview as JSON; its counts begin `since` ago.

    `sessions` and `changes` are sums over all apps, and have every status and every kind of
    change, also those with 0; `agentOnly` is how many of the waiting sessions heard the agent
    only. `apps` has all of it for each app; with `most_apps` it has that many of the largest apps,
    and `appsLeftOut` is the number of the others. `unrecorded` is the number of sessions of ADK's
    tables without a record, which are in no other number; null if they are not counted yet.
    """
    apps = overview.largest_apps(most_apps)
    levels, changes = defaultdict[str, list[Tally]](list), defaultdict[str, list[Counted]](list)
    for tally in overview.tallies:
        levels[tally.app_name].append(tally)
    for counted in overview.counts:
        changes[counted.app_name].append(counted)
    return {
        "serverTime": iso(overview.now),
        "sessions": _levels(overview.tallies),
        "agentOnly": sum(overview.agent_only.values()),
        "unrecorded": unrecorded,
        "changes": changes_of(overview.counts),
        "changesSinceSeconds": since.total_seconds(),
        "apps": [
            {
                "appName": app,
                "sessions": _levels(levels.get(app, ())),
                "agentOnly": overview.agent_only.get(app, 0),
                "changes": changes_of(changes.get(app, ())),
            }
            for app in apps
        ],
        "appsLeftOut": len({*levels, *changes}) - len(apps),
        "nextExpiry": iso_or_none(overview.next_expiry),
        "nextPurge": iso_or_none(overview.next_purge),
        "overdueSeconds": overview.overdue.total_seconds(),
        "usedButExpired": overview.used_but_expired,
        "sweptAt": iso_or_none(overview.swept_at),
        "brake": None if overview.brake is None else brake_json(overview.brake),
    }


def changes_of(counts: Iterable[Counted]) -> dict[str, int]:
    """Return the number of changes of each kind; a kind without changes has 0."""
    found = dict.fromkeys(ChangeKind, 0)
    for counted in counts:
        found[counted.kind] += counted.sessions
    return {str(kind): sessions for kind, sessions in found.items()}


def brake_json(brake: Brake) -> dict[str, Any]:
    """Return a brake as JSON."""
    return {
        "reason": str(brake.reason),
        "since": iso(brake.since),
        "until": iso(brake.until),
        "sessions": brake.sessions,
        "jumpSeconds": brake.jump.total_seconds(),
    }


def dues_json(dues: Dues) -> dict[str, Any]:
    """Return the numbers of sessions that a sweep would expire and purge, and of all records."""
    return {"expire": dues.expire, "purge": dues.purge, "stored": dues.stored}


def _levels(tallies: Iterable[Tally]) -> dict[str, int]:
    found = Counter(
        dict.fromkeys((Status.WAITING, Status.USED, Status.EXPIRED, Status.ARCHIVED), 0)
    )
    for tally in tallies:
        found[tally.status] += tally.sessions
    return {str(status): sessions for status, sessions in found.items()}
