"""The verdicts and numbers on the overview page, computed from a reading of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Final

from lapse.check.thresholds import (
    ENOUGH_HEARD,
    FOUND_EXPIRED,
    HEARD_WITHIN,
    are_too_many_expired,
    is_overdue,
    is_policy_forgotten,
    is_retention_behind,
    is_silent,
    is_webhook_behind,
)
from lapse.core.lifecycle import ChangeKind, Rules, Status
from lapse.core.numbers import sessions
from lapse.dashboard.words import percent, span, when
from lapse.overview.store import COUNT_INTERVAL, Counted, Overview, Tally
from lapse.retention.state import RetentionState
from lapse.sweep.rules import Brake, BrakeReason
from lapse.ttl import Decision, Policy, Scope, Targets
from lapse.ttl.rounds import ttl_of
from lapse.webhooks.store import WebhookLevels

SHOWN: Final = timedelta(hours=24)
"""The period of the page's counts."""

_SLOW: Final = timedelta(milliseconds=250)

HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of the store and of the TTL policy at one moment.

    Attributes:
        overview: counts and times from the store.
        took: how long reading the overview took.
        rules: the rules that the store enforces.
        mode: how new sessions get their TTL.
        targets: the targets of the TTL policy.
        in_force: the decisions of the TTL policy that are in force.
        sweeps: whether this process sweeps.
        webhook: how the operators' webhook stands; None: there is none.
    """

    overview: Overview
    took: timedelta
    rules: Rules
    mode: Policy
    targets: Targets
    in_force: Mapping[Scope, Decision] = field(default_factory=dict)
    sweeps: bool = True
    webhook: WebhookLevels | None = None
    retention: RetentionState | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence on the state of something; if it is not well, also the reason and remedies.

    Attributes:
        name: the name of the section with the reason, to which the sentence links.
        sentence: the state.
        reason: why the state is not well; empty if it is well.
        remedies: what to do about it, in the order to try.
    """

    name: str
    sentence: str
    reason: str = ""
    remedies: Sequence[str] = ()

    @property
    def is_well(self) -> bool:
        """Return whether there is nothing to do."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class Number:
    """A large number under a small label."""

    label: str
    value: str
    hint: str
    is_wrong: bool = False


def unreachable(reason: str) -> Verdict:
    """Return the verdict for a store that does not answer."""
    return Verdict(
        "store",
        "The store does not answer",
        f"The page could not be read: {reason}.",
        (
            "Is the database up, and does it accept connections from this host?",
            "Sessions are safe meanwhile: deadlines are stored, and the first sweep catches up.",
        ),
    )


def verdicts(reading: Reading) -> Sequence[Verdict]:
    """Return the verdicts: four that are always there, in a fixed order, then the others."""
    found = [_swept(reading), _overdue(reading), _answers(reading), _met_expired(reading)]
    if reading.overview.used_but_expired:
        found.append(_used_but_expired(reading.overview.used_but_expired))
    found += [_braked(brake, reading.overview.now) for brake in _brakes(reading.overview.brake)]
    if reading.webhook is not None:
        found.append(_webhook(reading.webhook))
    if reading.retention is not None:
        found.append(_retention(reading.retention))
    found += _alarms(reading)
    return found


def numbers(reading: Reading) -> Sequence[Number]:
    """Return the six numbers at the top of the page."""
    overview = reading.overview
    midnight = datetime.combine(overview.now.astimezone(UTC).date(), time(0), UTC)
    late = _lateness(overview, enforced=reading.rules.enforced)
    ttl, hint = _ttl(reading)
    return (
        Number("waiting", f"{tallied(overview.tallies, Status.WAITING):,}", _heard(overview)),
        Number("used today", f"{counted(overview, ChangeKind.USED, midnight):,}", "since 0:00 UTC"),
        _of_an_hour("expired, 1 h", overview, ChangeKind.EXPIRED),
        _of_an_hour("resurrected, 1 h", overview, ChangeKind.RESURRECTED),
        Number(
            "oldest overdue", span(late) if late else "none", "past its deadline", is_overdue(late)
        ),
        Number("TTL", ttl, hint),
    )


def _heard(overview: Overview) -> str:
    """Return what waiting sessions wait for, and in how many of them only the agent spoke."""
    spoken = sum(overview.agent_only.values())
    return f"in {spoken:,} only the agent spoke" if spoken else "for a first message"


def _of_an_hour(label: str, overview: Overview, kind: ChangeKind) -> Number:
    lately = counted(overview, kind, overview.now - HOUR)
    return Number(
        label, f"{lately:,}", f"{counted(overview, kind, overview.now - SHOWN):,} in 24 h"
    )


def tallied(tallies: Iterable[Tally], status: Status | None = None) -> int:
    """Return how many sessions of all apps have a status, or any status with None."""
    return sum(tally.sessions for tally in tallies if status in {None, tally.status})


def counted(overview: Overview, kind: ChangeKind, since: datetime) -> int:
    """Return how many changes of a kind there were since a moment, rounded to a BUCKET."""
    return sum(
        count.sessions
        for count in overview.counts
        if count.kind is kind and count.at > since - COUNT_INTERVAL
    )


def resurrected_and_used(counts: Iterable[Counted]) -> tuple[int, int]:
    """Return how many sessions were resurrected, and how many had their first message."""
    of_kind = {ChangeKind.RESURRECTED: 0, ChangeKind.USED: 0}
    for count in counts:
        if count.kind in of_kind:
            of_kind[count.kind] += count.sessions
    return of_kind[ChangeKind.RESURRECTED], of_kind[ChangeKind.USED]


def _brakes(brake: Brake | None) -> tuple[Brake, ...]:
    return () if brake is None else (brake,)


def _swept(reading: Reading) -> Verdict:
    now, swept_at = reading.overview.now, reading.overview.swept_at
    if not reading.rules.enforced:
        return Verdict(
            "sweeper",
            "Clean-up is switched off",
            "SESSION_CLEANUP_ENABLED is false: no session expires or is hidden; deadlines are only "
            "recorded.",
            ("Set SESSION_CLEANUP_ENABLED=true and restart if sessions should expire.",),
        )
    if swept_at is not None and not is_silent(swept_at, now):
        return Verdict("sweeper", f"Sweeper ran {when(swept_at, now).replace('now', 'just now')}")
    sentence = (
        "No sweeper has run yet" if swept_at is None else (f"Sweeper ran {when(swept_at, now)}")
    )
    here = (
        "This process should sweep: its log says why it cannot, and /readyz whether it is ready."
        if reading.sweeps
        else "This process does not sweep (LAPSE_SWEEPER=off): is `lapse sweep --watch` running?"
    )
    return Verdict(
        "sweeper",
        sentence,
        "A working sweeper, in any process, reports at least every 15 s. Without a sweeper, "
        "expired sessions are hidden but stay in the store.",
        (here, "To sweep once: the page Sweep, or `lapse sweep`."),
    )


def _lateness(overview: Overview, *, enforced: bool) -> timedelta:
    """Return how long ago the oldest deadline passed; zero if none has passed."""
    if overview.next_expiry is None or not enforced:
        return timedelta(0)
    return max(timedelta(0), overview.now - overview.next_expiry)


def _overdue(reading: Reading) -> Verdict:
    late = _lateness(reading.overview, enforced=reading.rules.enforced)
    if not is_overdue(late):
        return Verdict("overdue", "No session is overdue")
    return Verdict(
        "overdue",
        f"A session is overdue by {span(late)}",
        "Its deadline has passed, and no sweep has reached it yet. It already reads as expired; "
        "only its row waits for a sweep.",
        (
            (
                "If a sweeper runs, it catches up: a sweep handles 500 sessions, and a full sweep "
                "is followed by another at once."
            ),
            "If the time grows, look at the sweeper's verdict first, then at the store's load.",
        ),
    )


def _answers(reading: Reading) -> Verdict:
    milliseconds = max(1, round(reading.took / timedelta(milliseconds=1)))
    sentence = f"Store answers in {milliseconds:,} ms"
    if reading.took <= _SLOW:
        return Verdict("store", sentence)
    return Verdict(
        "store",
        sentence,
        f"Reading this page's numbers took longer than {span(_SLOW)}; 10 ms is usual, even with "
        "a million sessions.",
        (
            "Is the database short of CPU or of connections (LAPSE_POOL_SIZE)?",
            "Are its statistics fresh? `VACUUM (ANALYZE) lapse_lobby` on PostgreSQL.",
        ),
    )


def _met_expired(reading: Reading) -> Verdict:
    since = reading.overview.now - HEARD_WITHIN
    resurrected = counted(reading.overview, ChangeKind.RESURRECTED, since)
    used = counted(reading.overview, ChangeKind.USED, since)
    if used <= ENOUGH_HEARD:
        return Verdict("heard", f"{used} first messages in an hour, too few to judge the TTL")
    share = min(1.0, resurrected / used)
    sentence = f"{percent(share)} of first messages found an expired session"
    if not are_too_many_expired(resurrected, used):
        return Verdict("heard", sentence)
    return Verdict(
        "heard",
        sentence,
        f"In the last hour {resurrected:,} sessions were resurrected and {used:,} had their first "
        f"message; above {percent(FOUND_EXPIRED)} the TTL is too short. Nothing was lost: such a "
        "session comes back with its state.",
        (
            "The curve below shows how long people take. SESSION_CLEANUP_TTL_MINUTES sets the TTL.",
            (
                "With LAPSE_TTL_POLICY=shadow Lapse computes the TTL that would meet the target "
                f"of {percent(reading.targets.soft)} (LAPSE_TTL_SOFT_TARGET); `lapse ttl explain` "
                "shows why."
            ),
        ),
    )


def _used_but_expired(number: int) -> Verdict:
    return Verdict(
        "used",
        f"{sessions(number)} with a message expired",
        "This must never happen: whoever opens such a session does not find its messages.",
        (
            "Stop every sweeper (LAPSE_SWEEPER=off), so that nothing is purged.",
            "Keep a copy of the store.",
            "Report it, with the copy's output of `lapse sessions --status expired --json`.",
        ),
    )


def _braked(brake: Brake, now: datetime) -> Verdict:
    match brake.reason:
        case BrakeReason.SHARE:
            why = (
                f"A sweep would have deleted {sessions(brake.sessions)} for good, an unusual share."
            )
            look = "Did many sessions begin at once a day ago, as in a load test? Then confirm."
        case BrakeReason.CLOCK:
            why = f"The store's clock jumped by {span(brake.jump)} against the sweeper's clock."
            look = "Is the store's clock right? Compare `date` on its host, then confirm."
    return Verdict(
        "brake",
        f"A brake holds back every purge, set {when(brake.since, now)}",
        f"{why} Sessions still expire, but none is deleted until the brake is released.",
        (look, f"If you do nothing, the brake ends {when(brake.until, now)}."),
    )


def _webhook(levels: WebhookLevels) -> Verdict:
    waiting = f"{levels.undelivered:,}" if levels.undelivered else "No"
    sentence = f"{waiting} event{'' if levels.undelivered == 1 else 's'} wait for the webhook"
    if not is_webhook_behind(levels.oldest, levels.given_up):
        return Verdict("webhook", sentence)
    reasons = []
    if levels.undelivered:
        reasons.append(f"The oldest event has waited for {span(levels.oldest)}.")
    if levels.given_up:
        reasons.append(
            f"{levels.given_up:,} were given up in the last 30 days, each after three days."
        )
    return Verdict(
        "webhook",
        sentence if not levels.given_up else f"{sentence}; {levels.given_up:,} were given up",
        " ".join(reasons),
        (
            "The log of the servers says what the webhook answers (`the webhook`).",
            "Is it up, and does it answer 2xx within ten seconds? Is LAPSE_WEBHOOK_URL right?",
            "Events that were given up are not sent again: `lapse sessions` shows their sessions.",
        ),
    )


def _retention(state: RetentionState) -> Verdict:
    if is_retention_behind(state.overdue):
        return Verdict(
            "retention",
            f"Retention is behind by {span(state.overdue)}",
            f"{sessions(state.due)} wait for a sweep by the policy: to be looked at, or purged.",
            (
                "Does a sweeper run that has the policy (LAPSE_RETENTION_FILE)? Its log tells.",
                "If much was due at the confirmation, wait: a sweep takes 200 sessions.",
            ),
        )
    if state.is_in_force:
        return Verdict("retention", "The retention policy is in force")
    if state.problems:
        sentence = f"The retention policy has {state.faults} fault" + "s" * (state.faults > 1)
    else:
        sentence = "The retention policy is not confirmed"
    if not is_policy_forgotten(state.unconfirmed_for, state.faults):
        return Verdict("retention", sentence)
    return Verdict(
        "retention",
        sentence,
        "It is without effect: nothing is archived or purged.",
        ("The page Retention shows its faults, or what it would take, and confirms it.",),
    )


def _alarms(reading: Reading) -> list[Verdict]:
    """Return the warnings in the TTL policy's decisions, by app."""
    found = []
    for scope, decision in sorted(reading.in_force.items()):
        name = "/".join(part for part in scope if part)
        if decision.horizon_too_short:
            found.append(
                Verdict(
                    "horizon",
                    f"Messages to {name} come after their sessions were purged",
                    f"{decision.refused:,} first messages came too late to restore their session.",
                    ("Only a longer LAPSE_RESTORE_HOURS helps; a longer TTL does not.",),
                )
            )
        if decision.control_alarm:
            found.append(
                Verdict(
                    "control",
                    f"Sessions of {name} with the longest TTL get messages that others do not get",
                    "One session in a hundred has the longest TTL, to measure what others miss.",
                    ("Does the page stop sending when its session expires? It should send on.",),
                )
            )
    return found


def _ttl(reading: Reading) -> tuple[str, str]:
    default = reading.targets.default
    if reading.mode is not Policy.ADAPTIVE:
        return span(default), str(reading.mode)
    learnt = sorted({ttl_of(scope, reading.in_force, default) for scope in reading.in_force})
    if not learnt:
        return span(default), "adaptive, nothing learnt yet"
    if len(learnt) == 1:
        return span(learnt[0]), "adaptive"
    return span(learnt[0]), f"adaptive, up to {span(learnt[-1])}"
