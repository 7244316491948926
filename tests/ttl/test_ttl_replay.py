"""Replays: what is counted as a miss, and that virtual days decide as real ones."""

import math
from datetime import UTC, date, datetime, timedelta

import pytest

from lapse.core.ages import bucket_of
from lapse.ttl import Outcome, Reason, Scope, Targets
from lapse.ttl.observed import Count
from lapse.ttl.simulation.generators import GENERATORS, Plan, generate
from lapse.ttl.simulation.replay import replay
from lapse.ttl.simulation.traces import NEVER, Arrival, drawn_from

START = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86_400.0
TARGETS = Targets()


def arrivals(*delays, every=60.0, start=START):
    return [Arrival(start + number * every, delay) for number, delay in enumerate(delays)]


def test_soft_and_hard_misses_and_empty_hours_equal_those_counted_by_hand():
    history = arrivals(10, 1799, 1800, 24 * HOUR, 24 * HOUR + 1, NEVER)
    replayed = replay(history, TARGETS)
    fixed = replayed.fixed(TARGETS.default)
    for score in (replayed.adaptive, fixed):
        assert (score.sessions, score.within, score.soft, score.hard) == (6, 4, 2, 1)
        assert score.soft_miss_rate == 2 / 4
        assert score.hard_miss_rate == 1 / 5
        assert score.empty_seconds == 10 + 1799 + 4 * 1800


def test_the_oracle_is_the_shortest_fixed_ttl_that_meets_the_target():
    replayed = replay(arrivals(*range(1, 101), NEVER), TARGETS)
    best = replayed.oracle(0.05)
    assert replayed.fixed(best).soft_miss_rate == 0.05
    assert replayed.fixed(best - timedelta(milliseconds=1)).soft_miss_rate > 0.05


def test_an_empty_history_is_no_error():
    replayed = replay([], TARGETS)
    assert replayed.adaptive.soft_miss_rate == replayed.fixed(TARGETS.default).soft_miss_rate == 0
    assert replayed.oracle(0.05) == timedelta(0)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_makes_an_ordered_and_repeatable_history(name):
    plan = Plan(days=3, per_day=200, never_used=0.5)
    history = list(generate(name, plan))
    assert history == list(generate(name, plan)) != list(generate(name, Plan(3, 200, 0.5, 2)))
    assert [arrival.created for arrival in history] == sorted(a.created for a in history)
    assert len(history) == 600
    assert 0.4 < sum(math.isinf(arrival.delay) for arrival in history) / 600 < 0.6


def test_the_ttl_of_a_stationary_history_meets_the_target_near_the_oracle():
    replayed = replay(generate("mixture", Plan(days=60, per_day=600)), TARGETS)
    oracle = replayed.fixed(replayed.oracle(TARGETS.soft))
    assert replayed.adaptive.soft_miss_rate < TARGETS.soft
    assert replayed.adaptive.empty_seconds < 1.6 * oracle.empty_seconds
    assert replayed.decisions[-1].reason is not Reason.TOO_FEW


def test_after_a_slowdown_the_guard_brings_the_misses_back_under_the_target():
    """Seen to fail without the guard's rounds."""
    replayed = replay(generate("step", Plan(days=40, per_day=800)), TARGETS)
    assert any(decision.reason is Reason.RAISED for decision in replayed.decisions)
    settled = date(2030, 1, 21) + 2 * TARGETS.horizon + timedelta(days=3)
    after = [counts for day, counts in replayed.days.items() if day >= settled]
    assert sum(missed for _, missed in after) / sum(heard for heard, _ in after) < TARGETS.soft


def test_three_sessions_of_one_user_and_day_count():
    """Seen to fail when all of them counted."""
    crowd = [
        Arrival(START + number * 300.0, 60.0, f"u{number}") for number in range(4 * 288)
    ]  # a session in five minutes, for four days
    pest = [Arrival(START + number * 200.0 + 1, 10 * HOUR, "pest") for number in range(4 * 432)]
    replayed = replay(sorted([*crowd, *pest]), TARGETS)
    assert replayed.ttls[-1][1] <= TARGETS.default
    assert replay(sorted([*crowd, *(p._replace(user=None) for p in pest)]), TARGETS).ttls[-1][
        1
    ] > timedelta(hours=9)


def test_segments_have_ttls_of_their_own():
    quick = [Arrival(START + n * 100.0, 30.0, None, "quick") for n in range(6 * 864)]
    slow = [Arrival(START + n * 100.0 + 1, 2 * HOUR, None, "slow") for n in range(6 * 864)]
    replayed = replay(sorted([*quick, *slow]), TARGETS)
    last = {decision.scope.segment: decision for decision in replayed.decisions}
    assert last["quick"].ttl < timedelta(hours=1) < timedelta(hours=2) < last["slow"].ttl


def test_a_history_is_drawn_from_the_counts_of_a_store():
    day = date(2030, 1, 1)
    scope = Scope("app", "new")
    bucket = bucket_of(timedelta(minutes=2))
    late = bucket_of(timedelta(hours=30))
    history = drawn_from(
        [
            Count(scope, day, Outcome.USED, bucket, 5),
            Count(scope, day, Outcome.SURPLUS, bucket, 2),
            Count(scope, day, Outcome.UNUSED, 0, 4),
            Count(scope, day, Outcome.WITHDRAWN, bucket, 1),
            Count(scope, day, Outcome.REFUSED, late, 1),
        ],
        TARGETS.horizon,
    )
    # The one that was refused is one of the unused.
    assert len(history) == 12
    assert {bucket_of(timedelta(seconds=a.delay)) for a in history if a.delay < NEVER} == {
        bucket,
        late,
    }
    assert sum(arrival.delay == NEVER for arrival in history) == 4
    assert all(START <= arrival.created < START + DAY for arrival in history)
