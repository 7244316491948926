"""The timeline of one session, with the time between its steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lapse.audit.store import Act
from lapse.core.lifecycle import Lifecycle, Status
from lapse.dashboard.words import span


class Tense(StrEnum):
    """Whether a step has happened."""

    PAST = "past"
    NOW = "now"
    AHEAD = "ahead"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a session's life.

    Attributes:
        at: when the step happened or will happen.
        title: what happens.
        tense: whether it has happened.
        note: more about the step; may be empty.
        after: the time since the step before; None for the first step.
    """

    at: datetime
    title: str
    tense: Tense
    note: str = ""
    after: timedelta | None = None


def timeline(record: Lifecycle, acts: Iterable[Act], now: datetime) -> Sequence[Step]:
    """Return the steps of a session in order of time, with the present as one of them.

    A record has the time of the last change of each kind, and of resurrections only the number.
    """
    steps = [_step(record.created_at, "Created", now, _wait(record))]
    if record.first_message_at is not None:
        steps.append(_step(record.first_message_at, "First message", now, "Kept from now on"))
    if record.expired_at is not None and record.status is Status.EXPIRED:
        steps.append(_step(record.expired_at, "Expired", now, "For ADK it no longer exists"))
    if record.status is Status.WAITING and record.expires_at is not None:
        title = "Expires" if record.expires_at > now else "Deadline passed"
        steps.append(_step(record.expires_at, title, now, "Unless a message comes first"))
    if record.status in {Status.WAITING, Status.EXPIRED} and record.restorable_until is not None:
        steps.append(_step(record.restorable_until, "Purged", now, "Restorable until then"))
    steps += [_step(act.at, f"{act.action.capitalize()} by {act.by}", now) for act in acts]
    steps.append(Step(now, f"Now: {record.status}", Tense.NOW, _resurrections(record)))
    steps.sort(key=lambda step: step.at)
    return [
        Step(step.at, step.title, step.tense, step.note, step.at - before.at if before else None)
        for before, step in zip([None, *steps], steps, strict=False)
    ]


def acts_on(record: Lifecycle, acts: Iterable[Act]) -> Sequence[Act]:
    """Return the acts on a session. Acts hold the beginning of an id only, which is compared."""
    key = record.key
    return [act for act in acts if (act.app_name, act.session) == (key.app_name, key.short)]


def _step(at: datetime, title: str, now: datetime, note: str = "") -> Step:
    return Step(at, title, Tense.AHEAD if at > now else Tense.PAST, note)


def _wait(record: Lifecycle) -> str:
    return "" if record.ttl is None else f"With a TTL of {span(record.ttl)}"


def _resurrections(record: Lifecycle) -> str:
    match record.resurrections:
        case 0:
            return ""
        case 1:
            return "Resurrected once"
        case times:
            return f"Resurrected {times} times"
