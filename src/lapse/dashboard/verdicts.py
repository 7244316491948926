"""From what a store tells to what operators are told: verdicts and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Final

from lapse.core.lifecycle import ChangeKind, Rules, Status
from lapse.dashboard.words import percent, sessions, span, when
from lapse.overview.store import COUNT_INTERVAL, Counted, Overview, Tally
from lapse.sweep.rules import Brake, BrakeReason
from lapse.ttl import Decision, Policy, Scope, Targets
from lapse.ttl.rounds import ttl_of

SHOWN: Final = timedelta(hours=24)
"""Of how much time the page tells."""

_SWEPT_LATELY: Final = timedelta(minutes=1)
_LATE: Final = timedelta(seconds=5)
_SLOW: Final = timedelta(milliseconds=250)
_ENOUGH: Final = 20
"""First messages below which their share says nothing."""

HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a page is made from.

    Attributes:
        overview: what the store tells.
        took: how long it took to tell.
        rules: what the store enforces.
        mode: how new sessions get their TTL.
        targets: what that aims at.
        in_force: what it has decided.
        sweeps: whether this process sweeps.
    """

    overview: Overview
    took: timedelta
    rules: Rules
    mode: Policy
    targets: Targets
    in_force: Mapping[Scope, Decision] = field(default_factory=dict)
    sweeps: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence on how things are; where they are not well, why, and what to do.

    Attributes:
        name: of the section that the sentence leads to.
        sentence: how things are.
        reason: why it is not well; empty where it is.
        remedies: what to do about it, in the order to try.
    """

    name: str
    sentence: str
    reason: str = ""
    remedies: Sequence[str] = ()

    @property
    def is_well(self) -> bool:
        """Return whether nothing is to be done."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class Number:
    """A large number under a small label."""

    label: str
    value: str
    hint: str
    is_wrong: bool = False


def unreachable(reason: str) -> Verdict:
    """Return what is told while the store does not answer."""
    return Verdict(
        "store",
        "The store does not answer",
        f"Nothing below could be read: {reason}.",
        (
            "Is the database up, and does it take connections from here?",
            "Sessions are safe meanwhile: deadlines are data, and the first sweep catches up.",
        ),
    )


def verdicts(reading: Reading) -> Sequence[Verdict]:
    """Return the sentences, those that always stand first and in one order."""
    told = [_swept(reading), _overdue(reading), _answers(reading), _heard(reading)]
    told += [_braked(brake, reading.overview.now) for brake in _set(reading.overview.brake)]
    told += _alarms(reading)
    return told


def numbers(reading: Reading) -> Sequence[Number]:
    """Return the six numbers."""
    overview = reading.overview
    midnight = datetime.combine(overview.now.astimezone(UTC).date(), time(0), UTC)
    late = _lateness(overview, enforced=reading.rules.enforced)
    ttl, hint = _ttl(reading)
    return (
        Number("waiting", f"{tallied(overview.tallies, Status.WAITING):,}", "for a first message"),
        Number("used today", f"{counted(overview, ChangeKind.USED, midnight):,}", "since 0:00 UTC"),
        _of_an_hour("expired, 1 h", overview, ChangeKind.EXPIRED),
        _of_an_hour("resurrected, 1 h", overview, ChangeKind.RESURRECTED),
        Number("oldest overdue", span(late) if late else "none", "past its deadline", late > _LATE),
        Number("TTL", ttl, hint),
    )


def _of_an_hour(label: str, overview: Overview, kind: ChangeKind) -> Number:
    lately = counted(overview, kind, overview.now - HOUR)
    return Number(
        label, f"{lately:,}", f"{counted(overview, kind, overview.now - SHOWN):,} in 24 h"
    )


def tallied(tallies: Iterable[Tally], status: Status | None = None) -> int:
    """Return how many sessions have a status, of all apps; with None, any."""
    return sum(tally.sessions for tally in tallies if status in {None, tally.status})


def counted(overview: Overview, kind: ChangeKind, since: datetime) -> int:
    """Return how many changes of a kind there were, to the COUNT_INTERVAL."""
    return sum(
        count.sessions
        for count in overview.counts
        if count.kind is kind and count.at > since - COUNT_INTERVAL
    )


def heard_expired(counts: Iterable[Counted]) -> tuple[int, int]:
    """Return how many sessions were resurrected and how many had their first message."""
    of_kind = {ChangeKind.RESURRECTED: 0, ChangeKind.USED: 0}
    for count in counts:
        if count.kind in of_kind:
            of_kind[count.kind] += count.sessions
    return of_kind[ChangeKind.RESURRECTED], of_kind[ChangeKind.USED]


def _set(brake: Brake | None) -> tuple[Brake, ...]:
    return () if brake is None else (brake,)


def _swept(reading: Reading) -> Verdict:
    now, swept_at = reading.overview.now, reading.overview.swept_at
    if not reading.rules.enforced:
        return Verdict(
            "sweeper",
            "Clean-up is switched off",
            "SESSION_CLEANUP_ENABLED is false: nothing expires, nothing is hidden, and deadlines "
            "are only recorded.",
            ("Set SESSION_CLEANUP_ENABLED=true and restart when sessions are to expire.",),
        )
    if swept_at is not None and now - swept_at <= _SWEPT_LATELY:
        return Verdict("sweeper", f"Sweeper ran {when(swept_at, now).replace('now', 'just now')}")
    sentence = (
        "No sweeper has run yet" if swept_at is None else (f"Sweeper ran {when(swept_at, now)}")
    )
    here = (
        "This process sweeps: its log says why it cannot, and /readyz whether it is alive."
        if reading.sweeps
        else "This process does not sweep (LAPSE_SWEEPER=off): is `lapse sweep --watch` running?"
    )
    return Verdict(
        "sweeper",
        sentence,
        "A sweeper says that it works at least every 15 s, whichever process it is in. Without "
        "one, expired sessions are hidden all the same, but stay in the store.",
        (here, "Sweep now, below, or `lapse sweep` by hand, does its work once."),
    )


def _lateness(overview: Overview, *, enforced: bool) -> timedelta:
    """Return for how long the oldest deadline has passed; zero where none has."""
    if overview.next_expiry is None or not enforced:
        return timedelta(0)
    return max(timedelta(0), overview.now - overview.next_expiry)


def _overdue(reading: Reading) -> Verdict:
    late = _lateness(reading.overview, enforced=reading.rules.enforced)
    if late <= _LATE:
        return Verdict("overdue", "No session is overdue")
    return Verdict(
        "overdue",
        f"A session is overdue by {span(late)}",
        "Its deadline has passed and no sweep has met it. To users it reads as expired all the "
        "same; its row waits to be swept.",
        (
            (
                "While the sweeper runs this ends by itself: a sweep takes 500 sessions, a full "
                "one goes on at once."
            ),
            "If it grows, look at the sweeper's verdict first, then at the store's load.",
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
        f"Reading this page's numbers took longer than {span(_SLOW)}; 10 ms is usual, with a "
        "million sessions, too.",
        (
            "Is the database short of CPU or of connections (LAPSE_POOL_SIZE)?",
            "Are its statistics fresh? `VACUUM (ANALYZE) lapse_lobby` on PostgreSQL.",
        ),
    )


def _heard(reading: Reading) -> Verdict:
    resurrected, used = heard_expired(reading.overview.counts)
    if used < _ENOUGH:
        return Verdict("heard", f"{used} first messages in 24 h, too few to judge the TTL by")
    share = min(1.0, resurrected / used)
    sentence = f"{percent(share)} of first messages found an expired session"
    if share <= reading.targets.soft:
        return Verdict("heard", sentence)
    return Verdict(
        "heard",
        sentence,
        f"In the last 24 h {resurrected:,} sessions were resurrected and {used:,} had their first "
        f"message. The target is {percent(reading.targets.soft)} (LAPSE_TTL_SOFT_TARGET). Nobody "
        "lost anything: such a session comes back with its state.",
        (
            (
                "Is the TTL too short? The curve below shows how long people take. "
                "SESSION_CLEANUP_TTL_MINUTES sets it."
            ),
            (
                "LAPSE_TTL_POLICY=shadow has Lapse say which TTL would meet the target; "
                "`lapse ttl explain` tells why."
            ),
        ),
    )


def _braked(brake: Brake, now: datetime) -> Verdict:
    match brake.reason:
        case BrakeReason.SHARE:
            why = (
                f"A sweep would have deleted {sessions(brake.sessions)} for good, an unusual share."
            )
            look = (
                "Did many sessions begin at once a day ago, such as in a load test? Then confirm."
            )
        case BrakeReason.CLOCK:
            why = f"The store's clock jumped by {span(brake.jump)} against the sweeper's own."
            look = "Is the store's clock right now? Compare `date` there; then confirm."
    return Verdict(
        "brake",
        f"A brake holds back every purge, set {when(brake.since, now)}",
        f"{why} Expiring goes on; nothing is deleted until the brake lets go.",
        (look, f"Left alone it lets go by itself {when(brake.until, now)}."),
    )


def _alarms(reading: Reading) -> list[Verdict]:
    """Return what the decisions on the TTL warn of, by app."""
    told = []
    for scope, decision in sorted(reading.in_force.items()):
        name = "/".join(part for part in scope if part)
        if decision.horizon_too_short:
            told.append(
                Verdict(
                    "horizon",
                    f"Messages to {name} come when nothing is left to bring back",
                    f"{decision.refused:,} first messages came after their session was purged.",
                    ("Only a longer LAPSE_RESTORE_HOURS helps; the TTL has no part in it.",),
                )
            )
        if decision.control_alarm:
            told.append(
                Verdict(
                    "control",
                    f"Sessions of {name} that live longer hear messages that others do not",
                    "One session in a hundred keeps the longest TTL, to see what others miss.",
                    ("Does the page give up when its session expires? It may just send on.",),
                )
            )
    return told


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
