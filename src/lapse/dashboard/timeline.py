"""The timeline of one session, with the time between its steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from lapse.audit.store import Act
from lapse.core.lifecycle import Lifecycle, Status
from lapse.core.messages import UsedBy
from lapse.dashboard.words import span

MOST_ACTS: Final = 200
"""A timeline has the newest acts on its session, at most this many."""


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
        steps.append(_step(record.expires_at, title, now, _unless(record)))
    if record.status in {Status.WAITING, Status.EXPIRED} and record.restorable_until is not None:
        steps.append(_step(record.restorable_until, "Purged", now, "Restorable until then"))
    if record.status is Status.ARCHIVED and record.archived_at is not None:
        steps.append(_step(record.archived_at, "Archived", now, "For ADK it no longer exists"))
        if record.restorable_until is not None:
            steps.append(_step(record.restorable_until, "Purged", now, _kept(record)))
    steps += [_step(act.at, f"{did(act)} by {act.by}", now, detail_of(act)) for act in acts]
    steps.append(Step(now, f"Now: {record.status}", Tense.NOW, _resurrections(record)))
    steps.sort(key=lambda step: step.at)
    return [
        Step(step.at, step.title, step.tense, step.note, step.at - before.at if before else None)
        for before, step in zip([None, *steps], steps, strict=False)
    ]


def did(act: Act) -> str:
    """Return what was done, in words: `State changed`."""
    return act.action.replace("_", " ").capitalize()


def detail_of(act: Act) -> str:
    """Return the detail of an act in words, without the content of a session."""
    return ", ".join(_in_words(name, value) for name, value in act.detail.items())


def _in_words(name: str, value: object) -> str:
    if value is True:
        return name
    return f"{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def _step(at: datetime, title: str, now: datetime, note: str = "") -> Step:
    return Step(at, title, Tense.AHEAD if at > now else Tense.PAST, note)


def _unless(record: Lifecycle) -> str:
    if record.used_by is UsedBy.ANYONE:
        return "Unless a message comes first"
    heard = "Only the agent spoke. " if record.agent_spoke else ""
    return f"{heard}Unless the user writes first"


def _kept(record: Lifecycle) -> str:
    if record.pinned or record.on_hold:
        return f"Not as long as it is {'pinned' if record.pinned else 'on hold'}"
    return "Restorable until then"


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
