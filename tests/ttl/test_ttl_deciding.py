"""The rule: when it decides, what it decides, and what it never does."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapse.core.ages import EDGES, Histogram, bucket_of
from lapse.core.errors import InvalidValueError
from lapse.ttl import Cohort, Decision, Reason, Scope, Targets, decide, guard
from lapse.ttl.binomial import upper
from lapse.ttl.curve import Curve
from lapse.ttl.deciding import reset_window
from lapse.ttl.rounds import daily, ttl_of

NOW = datetime(2030, 3, 1, 0, 30, tzinfo=UTC)
SCOPE = Scope("app")
TARGETS = Targets()
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TTL = TARGETS.default


def ages(counts):
    """Return a histogram of as many ages of each length."""
    return Histogram.of(bucket_of(age) for age, count in counts.items() for _ in range(count))


def days(counts, *, many=1, newest=2, **more):
    """Return cohorts, the newest `newest` days ago: the newest that is mature."""
    return [Cohort((NOW - (newest + n) * DAY).date(), ages(counts), **more) for n in range(many)]


def last(ttl, **more):
    return Decision(SCOPE, NOW - DAY, Reason.CHOSEN, ttl=ttl, horizon=TARGETS.horizon, **more)


@pytest.mark.parametrize(
    ("soft", "doubt", "least"), [(0.005, 0.05, 598), (0.05, 0.05, 59), (0.005, 0.01, 919)]
)
def test_a_decision_needs_as_many_observations_as_a_sample_without_a_miss(soft, doubt, least):
    targets = replace(TARGETS, soft=soft, doubt=doubt)
    few = decide(SCOPE, days({MINUTE: least - 1}), None, targets, NOW)
    assert (few.reason, few.ttl, few.observations) == (Reason.TOO_FEW, None, least - 1)
    enough = decide(SCOPE, days({MINUTE: least}), None, targets, NOW)
    assert (enough.reason, enough.observations) == (Reason.HELD, least)
    assert enough.wanted == EDGES[bucket_of(MINUTE) + 1]


def test_a_decision_takes_the_smallest_edge_whose_bound_is_within_the_target():
    sample = days({MINUTE: 900, 2 * HOUR: 60, 5 * HOUR: 40})
    decision = decide(SCOPE, sample, None, TARGETS, NOW)
    edge = EDGES.index(decision.ttl)
    later = sample[0].used.later_than(96)
    bounds = [upper(missed, 1000, TARGETS.doubt) for missed in later]
    assert decision.reason is Reason.CHOSEN
    assert bounds[edge] <= TARGETS.soft < bounds[edge - 1]
    assert (decision.missed, decision.bound) == (later[edge], bounds[edge])
    assert decision.soft_miss_rate == later[edge] / 1000


@given(st.lists(st.integers(0, 95), min_size=59, max_size=400), st.integers(0, 95))
def test_later_messages_never_make_the_decided_ttl_shorter(buckets, moved):
    def wanted(sample):
        cohort = Cohort((NOW - 2 * DAY).date(), Histogram.of(sample))
        return decide(SCOPE, [cohort], None, TARGETS, NOW).wanted

    assert wanted([*buckets[1:], max(buckets[0], moved)]) >= wanted(buckets)


def test_only_mature_days_count_and_no_more_than_are_enough():
    immature = days({HOUR: 5000}, newest=1)
    assert decide(SCOPE, immature, None, TARGETS, NOW).reason is Reason.TOO_FEW
    mature = days({MINUTE: 3000}, many=9)
    decision = decide(SCOPE, [*immature, *mature], None, TARGETS, NOW)
    assert decision.observations == 9000
    assert (decision.first_day, decision.last_day) == (mature[2].day, mature[0].day)
    thin = decide(SCOPE, days({MINUTE: 10}, many=60), None, TARGETS, NOW)
    assert thin.observations == 280
    horizon = replace(TARGETS, horizon=2 * DAY)
    assert decide(SCOPE, days({MINUTE: 99}), None, horizon, NOW).observations == 0


def test_messages_beyond_the_horizon_do_not_count():
    sample = days({MINUTE: 100, 25 * HOUR: 100}, refused=7)
    decision = decide(SCOPE, sample, None, TARGETS, NOW)
    assert (decision.observations, decision.refused) == (100, 7)
    assert decision.hard_miss_rate == 7 / 107
    assert decision.horizon_too_short


def test_a_target_that_only_a_ttl_over_the_cap_would_meet_is_infeasible():
    decision = decide(SCOPE, days({23.5 * HOUR: 100}), None, TARGETS, NOW)
    assert (decision.reason, decision.ttl) == (Reason.INFEASIBLE, TARGETS.cap)
    capped = replace(TARGETS, cap=HOUR)
    decision = decide(SCOPE, days({2 * HOUR: 100}), None, capped, NOW)
    assert (decision.reason, decision.ttl, decision.missed) == (Reason.INFEASIBLE, HOUR, 100)
    assert decision.bound == 1.0


@pytest.mark.parametrize(
    ("current", "expected", "reason"),
    [
        (100 * MINUTE, 80 * MINUTE, Reason.HELD),  # a fifth a day
        (61 * MINUTE, None, Reason.CHOSEN),
        (30 * MINUTE, None, Reason.CHOSEN),  # up at once
    ],
)
def test_the_decided_ttl_falls_slowly_and_rises_at_once(current, expected, reason):
    decision = decide(SCOPE, days({50 * MINUTE: 100}), last(current), TARGETS, NOW)
    wanted = EDGES[bucket_of(50 * MINUTE) + 1]
    assert decision.wanted == wanted
    assert (decision.ttl, decision.reason) == (expected or wanted, reason)


def test_a_small_decrease_is_not_applied_and_the_floor_holds():
    sample = days({MINUTE: 100})
    edge = EDGES[bucket_of(MINUTE) + 1]
    loose = replace(TARGETS, floor=timedelta(0))
    near = edge / 0.95
    assert decide(SCOPE, sample, last(near), loose, NOW).ttl == near
    assert decide(SCOPE, sample, last(6 * MINUTE), TARGETS, NOW).ttl == TARGETS.floor
    assert decide(SCOPE, sample, last(5.5 * MINUTE), TARGETS, NOW).reason is Reason.CHOSEN


def test_dependent_observations_count_less():
    sample = days({MINUTE: 100})
    doubled = replace(TARGETS, design_effect=2)
    assert decide(SCOPE, sample, None, doubled, NOW).reason is Reason.TOO_FEW
    assert decide(SCOPE, days({MINUTE: 118}), None, doubled, NOW).reason is Reason.HELD


def test_the_guard_raises_only_on_strong_evidence():
    calm = ages({MINUTE: 381, HOUR: 19})
    assert guard(SCOPE, calm, last(TTL), TARGETS, NOW) is None
    assert guard(SCOPE, ages({HOUR: 99}), last(TTL), TARGETS, NOW) is None
    raised = guard(SCOPE, ages({MINUTE: 300, HOUR: 100}), last(TTL), TARGETS, NOW)
    assert raised.ttl == EDGES[bucket_of(HOUR) + 1]
    assert raised.window_from == date(2030, 2, 27)
    assert raised.held_until == NOW + TARGETS.horizon
    capped = replace(TARGETS, cap=2 * HOUR)
    alarmed = ages({5 * HOUR: 400})
    assert guard(SCOPE, alarmed, last(HOUR), capped, NOW).ttl == 2 * HOUR
    assert guard(SCOPE, alarmed, last(2 * HOUR), capped, NOW) is None


def test_after_an_alarm_older_days_do_not_count_and_the_ttl_does_not_fall():
    raised = guard(SCOPE, ages({2 * HOUR: 400}), last(TTL), TARGETS, NOW)
    old = days({MINUTE: 3000}, many=3, newest=3)
    after = decide(SCOPE, old, raised, TARGETS, NOW + HOUR)
    assert (after.reason, after.ttl) == (Reason.TOO_FEW, raised.ttl)
    fresh = days({MINUTE: 3000}, newest=2)
    held = decide(SCOPE, fresh, raised, TARGETS, NOW + HOUR)
    assert (held.reason, held.ttl) == (Reason.HELD, raised.ttl)
    later = decide(SCOPE, fresh, raised, TARGETS, NOW + TARGETS.horizon)
    assert (later.reason, later.held_until) == (Reason.HELD, None)
    assert later.ttl == 0.8 * raised.ttl


def test_a_reset_forgets_the_days_before_and_keeps_the_ttl():
    reset = reset_window(last(HOUR), NOW)
    decision = decide(SCOPE, days({MINUTE: 3000}, many=9), reset, TARGETS, NOW + DAY)
    assert (decision.reason, decision.ttl, decision.observations) == (Reason.TOO_FEW, HOUR, 0)


def test_a_longer_horizon_begins_a_new_window():
    longer = replace(TARGETS, horizon=2 * DAY)
    sample = days({MINUTE: 3000}, many=9, newest=3)
    decision = decide(SCOPE, sample, last(HOUR), longer, NOW)
    assert (decision.reason, decision.window_from) == (Reason.TOO_FEW, NOW.date())
    assert decide(SCOPE, sample, decision, longer, NOW + DAY).reason is Reason.TOO_FEW


def test_a_control_group_with_more_late_messages_decides_alone():
    """For example if clients hide the input of an expired session except in the control group."""
    sample = days({MINUTE: 5000}, control=ages({MINUTE: 60, 3 * HOUR: 30}))
    decision = decide(SCOPE, sample, last(TTL), TARGETS, NOW)
    assert decision.control_alarm
    assert decision.observations == 90
    assert decision.ttl > 3 * HOUR
    calm = days({MINUTE: 5000, 3 * HOUR: 100}, control=ages({MINUTE: 60, 3 * HOUR: 2}))
    assert not decide(SCOPE, calm, last(TTL), TARGETS, NOW).control_alarm


def test_many_withdrawn_sessions_raise_an_alarm():
    assert decide(
        SCOPE, days({MINUTE: 100}, withdrawn=ages({MINUTE: 2})), None, TARGETS, NOW
    ).withdrawn
    assert not decide(SCOPE, days({MINUTE: 100}), None, TARGETS, NOW).withdrawn


def test_a_segment_with_too_few_data_takes_the_ttl_of_its_app_or_the_default():
    segment = Scope("app", "new")
    cohorts = {segment: days({MINUTE: 20}), SCOPE: days({50 * MINUTE: 100})}
    decisions = {decision.scope: decision for decision in daily(cohorts, {}, TARGETS, NOW)}
    assert decisions[segment].ttl is None
    assert ttl_of(segment, decisions, TTL) == decisions[SCOPE].ttl > TTL
    assert ttl_of(Scope("other"), decisions, TTL) == TTL


@pytest.mark.parametrize("reason", Reason)
def test_a_decision_survives_json(reason):
    decision = decide(SCOPE, days({MINUTE: 100}), None, TARGETS, NOW)
    decision = replace(decision, reason=reason, window_from=NOW.date(), held_until=NOW)
    read = json.loads(json.dumps(decision.as_document())) | {"of a newer version": 1}
    assert Decision.from_document(read) == decision


def test_targets_out_of_order_are_refused():
    with pytest.raises(InvalidValueError, match="must be at most the cap"):
        Targets(cap=2 * DAY)


def test_the_curve_falls_with_each_message_and_drops_withdrawn_sessions():
    sample = days({MINUTE: 30, HOUR: 10}, withdrawn=ages({10 * MINUTE: 20}), unused=40)
    curve = Curve.of(sample, TARGETS.horizon, NOW)
    assert curve.silent[0] == 1
    assert curve.silent[bucket_of(MINUTE) + 1] == pytest.approx(0.7)
    assert curve.silent[-1] == pytest.approx(0.7 * (1 - 10 / 50))
    assert list(curve.silent) == sorted(curve.silent, reverse=True)
    exact = EDGES[bucket_of(MINUTE) + 1]
    assert curve.cost(exact) == exact
    assert Curve.of(days({MINUTE: 1}, newest=1), TARGETS.horizon, NOW) is None
