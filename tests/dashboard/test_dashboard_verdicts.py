"""Verdicts, numbers, charts and timelines, made from what a store reports."""

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from backends import HOUR, T0, TTL, key
from lapse.audit.store import Act
from lapse.core.lifecycle import ChangeKind, Lifecycle, Rules, Status
from lapse.core.messages import UsedBy
from lapse.dashboard.charts import Range, change_chart, curve_chart, early_chart
from lapse.dashboard.timeline import Tense, timeline
from lapse.dashboard.verdicts import Reading, numbers, verdicts
from lapse.dashboard.words import clock, span, when
from lapse.overview.store import Counted, Overview, Tally
from lapse.sweep.rules import Brake, BrakeReason
from lapse.ttl import Decision, Policy, Reason, Scope, Targets
from lapse.ttl.curve import Curve

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def counted(kind, sessions, ago=timedelta(0), app="app"):
    return Counted(app, kind, T0 - ago, sessions)


CALM = Overview(
    now=T0,
    tallies=[Tally("app", Status.WAITING, 3), Tally("b", Status.USED, 1200)],
    counts=[counted(ChangeKind.USED, 1000), counted(ChangeKind.RESURRECTED, 21)],
    next_expiry=T0 + MINUTE,
    next_purge=None,
    swept_at=T0 - 4 * SECOND,
    brake=None,
)
READING = Reading(CALM, 2 * SECOND / 1000, Rules(), Policy.FIXED, Targets())


def verdicts_of(reading=READING, **overview):
    return verdicts(replace(reading, overview=replace(reading.overview, **overview)))


def amber(found):
    return [verdict.name for verdict in found if not verdict.is_well]


def test_every_verdict_of_a_healthy_service_is_green():
    assert [verdict.sentence for verdict in verdicts_of()] == [
        "Sweeper ran 4 s ago",
        "No session is overdue",
        "Store answers in 2 ms",
        "2.1 % of first messages found an expired session",
    ]
    assert amber(verdicts_of()) == []


def test_the_number_of_waiting_sessions_tells_in_how_many_only_the_agent_spoke():
    assert numbers(READING)[0].hint == "for a first message"
    heard = replace(READING, overview=replace(CALM, agent_only={"app": 1200, "b": 1}))
    assert numbers(heard)[0].hint == "in 1,201 only the agent spoke"


def test_a_timeline_tells_that_a_session_waits_for_the_user():
    waiting = Lifecycle(key(), Status.WAITING, T0, TTL, T0 + TTL, used_by=UsedBy.USER)
    notes = {step.title: step.note for step in timeline(waiting, [], T0)}
    assert notes["Expires"] == "Unless the user writes first"
    heard = timeline(replace(waiting, agent_spoke=True), [], T0)
    assert "Only the agent spoke. Unless the user writes first" in {step.note for step in heard}


@pytest.mark.parametrize(
    ("overview", "name", "sentence"),
    [
        ({"swept_at": None}, "sweeper", "No sweeper has run yet"),
        ({"swept_at": T0 - 121 * SECOND}, "sweeper", "Sweeper ran 2 min 1 s ago"),
        ({"next_expiry": T0 - 61 * SECOND}, "overdue", "A session is overdue by 1 min 1 s"),
        (
            {"counts": [counted(ChangeKind.USED, 100), counted(ChangeKind.RESURRECTED, 11)]},
            "heard",
            "11.0 % of first messages found an expired session",
        ),
        (
            {"brake": Brake(BrakeReason.SHARE, T0 - MINUTE, T0 + HOUR, 1500)},
            "brake",
            "A brake holds back every purge, set 1 min ago",
        ),
        (
            {"brake": Brake(BrakeReason.CLOCK, T0 - MINUTE, T0 + HOUR, jump=HOUR)},
            "brake",
            "A brake holds back every purge, set 1 min ago",
        ),
    ],
)
def test_an_amber_verdict_says_why_and_what_to_do(overview, name, sentence):
    (verdict,) = [verdict for verdict in verdicts_of(**overview) if not verdict.is_well]
    assert (verdict.name, verdict.sentence) == (name, sentence)
    assert verdict.reason
    assert verdict.remedies


@pytest.mark.parametrize(
    "overview",
    [
        {"swept_at": T0 - 120 * SECOND},
        {"swept_at": T0 + SECOND},  # a replica that was a moment later
        {"next_expiry": T0 - 60 * SECOND},
        {"next_expiry": None},
        {"counts": [counted(ChangeKind.USED, 100), counted(ChangeKind.RESURRECTED, 10)]},
        {"counts": [counted(ChangeKind.USED, 50), counted(ChangeKind.RESURRECTED, 50)]},
        {"counts": []},
    ],
)
def test_a_value_just_within_its_limit_is_green(overview):
    assert amber(verdicts_of(**overview)) == []


def test_a_slow_store_and_disabled_clean_up_are_amber():
    assert amber(verdicts_of(replace(READING, took=timedelta(milliseconds=251)))) == ["store"]
    off = replace(READING, rules=Rules(enforced=False))
    assert amber(verdicts_of(off, next_expiry=T0 - HOUR, swept_at=None)) == ["sweeper"]
    assert "switched off" in verdicts_of(off)[0].sentence


def test_alarms_of_ttl_decisions_are_shown():
    decision = Decision(
        Scope("app"), T0, Reason.CHOSEN, observations=1000, refused=200, control_alarm=True,
        targets=Targets().as_document(),
    )  # fmt: skip
    assert amber(verdicts_of(replace(READING, in_force={decision.scope: decision}))) == [
        "horizon",
        "control",
    ]


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (T0, "12:00"),
        (T0 + 11 * HOUR, "23:00"),
        (T0 + 12 * HOUR, "00:00 tomorrow"),
        (T0 - 13 * HOUR, "23:00 yesterday"),
        (T0 + 72 * HOUR, f"12:00 on {(T0 + 72 * HOUR).day} {T0 + 72 * HOUR:%b}"),
        (T0 - 24 * 400 * HOUR, f"12:00 on {(T0 - 24 * 400 * HOUR).day} {T0 - 9600 * HOUR:%b %Y}"),
    ],
)
def test_a_time_of_another_day_says_its_day(at, told):
    """Seen to fail with `%H:%M`: a time of tomorrow read like one that had passed."""
    assert clock(at, T0) == told


def test_the_overview_has_six_numbers():
    counts = [
        counted(ChangeKind.USED, 7, ago=11 * HOUR),
        counted(ChangeKind.USED, 5, ago=13 * HOUR),  # yesterday: T0 is noon
        counted(ChangeKind.EXPIRED, 4, ago=MINUTE),
        counted(ChangeKind.EXPIRED, 2, ago=2 * HOUR),
    ]
    reading = replace(READING, overview=replace(CALM, counts=counts, next_expiry=T0 - 61 * SECOND))
    assert [(number.label, number.value, number.is_wrong) for number in numbers(reading)] == [
        ("waiting", "3", False),
        ("used today", "7", False),
        ("expired, 1 h", "4", False),
        ("resurrected, 1 h", "0", False),
        ("oldest overdue", "1 min 1 s", True),
        ("TTL", "30 min", False),
    ]


def test_ttls_of_several_segments_are_shown_as_a_range():
    decisions = [
        Decision(Scope(app), T0, Reason.CHOSEN, ttl=ttl * MINUTE)
        for app, ttl in (("a", 12), ("b", 40))
    ]
    in_force = {decision.scope: decision for decision in decisions}
    shown = numbers(replace(READING, mode=Policy.ADAPTIVE, in_force=in_force))[-1]
    assert (shown.value, shown.hint) == ("12 min", "adaptive, up to 40 min")


def test_the_chart_of_a_day_has_a_slot_for_each_hour_with_its_own_counts():
    now = T0 + 20 * MINUTE
    counts = [
        counted(ChangeKind.CREATED, 8),
        counted(ChangeKind.CREATED, 2, app="other"),
        counted(ChangeKind.EXPIRED, 10, ago=23 * HOUR),
        counted(ChangeKind.EXPIRED, 99, ago=24 * HOUR),  # before the first slot
        counted(ChangeKind.EXTENDED, 99),
    ]
    chart = change_chart(counts, now)
    assert (len(chart.slots), chart.totals, chart.axis) == (24, (10, 0, 10, 0), 50.0)
    day = T0 - 23 * HOUR
    assert chart.slots[0].in_words == f"{day.day} {day:%b} 13:00 to 14:00 UTC: 10 expired"
    created, expired = sorted(chart.bars, key=lambda bar: bar.y)
    assert (created.y, created.height, expired.y, expired.height) == (0, 50, 50, 50)
    assert change_chart([], now).is_empty


@pytest.mark.parametrize("reach", Range)
def test_every_range_ends_now_and_has_each_change_in_one_slot(reach):
    now = T0 + MINUTE
    counts = [counted(ChangeKind.USED, 1, ago=reach.length * part / 12) for part in range(10)]
    chart = change_chart(counts, now, reach)
    assert chart.totals == (0, 10, 0, 0)
    assert chart.slots[-1].begins <= now < chart.slots[-1].ends
    assert all(a.ends == b.begins for a, b in itertools.pairwise(chart.slots))
    assert chart.marks[0][0] == 0
    assert 3 <= len(chart.marks) <= 8


@pytest.mark.parametrize(
    ("highest", "labels"),
    [(1, ["4", "2", "0"]), (37, ["40", "20", "0"]), (1_000_000, ["1M", "500k", "0"])],
)
def test_an_axis_is_readable_at_one_and_at_a_million(highest, labels):
    chart = change_chart([counted(ChangeKind.CREATED, highest)], T0)
    assert [label for _, label in chart.ticks] == labels
    assert chart.bars[0].height == pytest.approx(100 * highest / max(4, round(highest, -1)), abs=9)
    small = change_chart([counted(ChangeKind.CREATED, highest), counted(ChangeKind.EXPIRED, 1)], T0)
    assert all(bar.height >= 1 for bar in small.bars)


def test_the_curve_of_the_first_messages_so_far_says_what_it_does_not_know():
    chart = early_chart("shop", [30 * SECOND, MINUTE, HOUR], TTL)
    assert chart.in_words == (
        "Of 3 first messages of shop so far, 66.7 % came within the TTL of 30 min"
    )
    assert (chart.top, chart.so_far) == (1, 3)


def test_the_curve_shows_which_share_of_first_messages_comes_within_the_ttl():
    silent = tuple(1 - 0.4 * edge / 96 for edge in range(97))
    chart = curve_chart("app", Curve(silent), HOUR * 24)
    assert (chart.ttl_x, chart.ttl_y, chart.within) == (100, 0, 1)
    assert curve_chart("app", Curve(silent), TTL).within < 0.7
    mute = curve_chart("app", Curve((1.0,) * 97), TTL)
    assert (mute.within, mute.top) == (None, 0)
    assert "0.0 % of sessions" in mute.in_words


WAITING = Lifecycle(
    key("0123456789"), Status.WAITING, T0, TTL, T0 + TTL, restorable_until=T0 + 24 * HOUR
)


def titles(record, acts=(), now=T0 + MINUTE):
    return [(step.title, step.tense, step.after) for step in timeline(record, acts, now)]


def test_the_timeline_of_a_waiting_session_includes_its_future_deadlines():
    assert titles(WAITING) == [
        ("Created", Tense.PAST, None),
        ("Now: waiting", Tense.NOW, MINUTE),
        ("Expires", Tense.AHEAD, 29 * MINUTE),
        ("Purged", Tense.AHEAD, 23.5 * HOUR),
    ]


def test_the_timeline_of_a_used_session_ends_at_the_present():
    used = replace(
        WAITING, status=Status.USED, first_message_at=T0 + 3 * SECOND, expires_at=None,
        restorable_until=None, resurrections=2,
    )  # fmt: skip
    steps = timeline(used, (), T0 + MINUTE)
    assert [step.title for step in steps] == ["Created", "First message", "Now: used"]
    assert steps[-1].note == "Resurrected 2 times"


def test_a_timeline_shows_acts_in_words():
    act = Act(1, T0 + SECOND, "operator:ann", "extended", "app", "01234567")
    assert titles(WAITING, [act])[1] == ("Extended by operator:ann", Tense.PAST, SECOND)
    detail = {"state": ["app", "session"], "message": True, "ttl_minutes": 5}
    act = replace(act, action="state_changed", detail=detail)
    step = timeline(WAITING, [act], T0 + MINUTE)[1]
    assert step.title == "State changed by operator:ann"
    assert step.note == "state app session, message, ttl_minutes 5"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.0004, "0 s"),
        (0.25, "250 ms"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_are_shown_in_two_units(seconds, words):
    assert span(timedelta(seconds=seconds)) == words


def test_moments_are_shown_relative_to_now():
    assert when(T0 - 4 * SECOND, T0) == "4 s ago"
    assert when(T0 + MINUTE, T0) == "in 1 min"
    assert when(T0 + SECOND / 2, T0) == "now"
