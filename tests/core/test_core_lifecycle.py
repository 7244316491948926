"""Rules, records, changes and keys."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import DUE, HOUR, T0, TTL, key
from lapse.core.errors import InvalidValueError
from lapse.core.keys import LONGEST_ID, SessionKey, check_key
from lapse.core.lifecycle import (
    Change,
    ChangeKind,
    Expiries,
    Lifecycle,
    Rules,
    Status,
    status_of,
)
from lapse.core.numbers import sessions

DAY = timedelta(hours=24)
DURATIONS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30))


def record(status=Status.EXPIRED, **others):
    return Lifecycle(key(), status, T0, ttl=TTL, **others)


def test_a_session_is_restorable_for_the_horizon_from_its_creation():
    assert Rules().restorable_until(T0, DUE) == T0 + DAY
    assert Rules(horizon=3 * DAY).restorable_until(T0, DUE) == T0 + 3 * DAY


@given(age=DURATIONS, horizon=DURATIONS)
def test_a_session_is_restorable_for_an_hour_whatever_its_age(age, horizon):
    expired_at = T0 + age
    until = Rules(horizon=horizon).restorable_until(T0, expired_at)
    assert until == (max(T0 + horizon, expired_at + HOUR) if horizon else expired_at)


def test_without_a_horizon_nothing_is_restorable_and_a_session_can_still_be_extended():
    rules = Rules(horizon=timedelta(0))
    assert rules.restorable_until(T0, DUE) == DUE
    assert rules.extensible == DAY


@pytest.mark.parametrize("horizon", [timedelta(microseconds=-1), timedelta(days=367)])
def test_a_horizon_out_of_bounds_is_refused(horizon):
    with pytest.raises(InvalidValueError, match="0 to 366 days"):
        Rules(horizon=horizon)


def test_only_an_expiry_has_a_lateness():
    late = timedelta(seconds=2)
    expired = Change(ChangeKind.EXPIRED, DUE + late, record(expires_at=DUE))
    assert expired.lateness == late
    assert expired.age == TTL + late
    assert Change(ChangeKind.PURGED, DUE, record(expires_at=DUE)).lateness is None


TICK = timedelta(microseconds=1)


def test_a_waiting_session_reads_as_expired_from_its_deadline_on():
    waiting = record(Status.WAITING, expires_at=DUE)
    before, at = (Rules().as_it_reads(waiting, now) for now in (DUE - TICK, DUE))
    assert (before.status, before.restorable_until) == (Status.WAITING, T0 + DAY)
    assert (at.status, at.expired_at, at.restorable_until) == (Status.EXPIRED, DUE, T0 + DAY)
    late = Rules().as_it_reads(waiting, DUE + 2 * DAY)
    assert (late.expired_at, late.restorable_until) == (DUE, DUE + 2 * DAY + HOUR)


def test_nothing_reads_as_expired_without_a_deadline_or_while_clean_up_is_off():
    waiting, used = record(Status.WAITING, expires_at=DUE), record(Status.USED, expires_at=DUE)
    without = record(Status.WAITING)
    assert Rules().as_it_reads(used, DUE) is used
    assert Rules().as_it_reads(without, DUE) is without
    off = Rules(enforced=False).as_it_reads(waiting, DUE + DAY)
    assert (off.status, off.expired_at, off.restorable_until) == (Status.WAITING, None, T0 + DAY)


def test_an_expired_session_stands_while_it_is_restorable():
    expired = record(restorable_until=DUE)
    assert Rules().still_stands(expired, DUE - TICK)
    assert not Rules().still_stands(expired, DUE)
    assert not Rules().still_stands(record(), T0)
    assert Rules(enforced=False).still_stands(expired, DUE)
    assert Rules().still_stands(record(Status.USED), DUE + DAY)


def test_the_rules_have_bounds_and_defaults():
    assert Rules() == Rules(horizon=DAY, enforced=True, artifacts=False, shared_state=1024 * 1024)
    assert Rules(horizon=timedelta(days=366)).extensible == timedelta(days=366)
    with pytest.raises(InvalidValueError) as refused:
        Rules(horizon=timedelta(days=367))
    assert (refused.value.field, refused.value.reason) == (
        "horizon",
        "must be 0 to 366 days, not 367 days",
    )


@pytest.mark.parametrize(
    ("field", "value"), [("horizon", 3600), ("enforced", "yes"), ("shared_state", "1")]
)
def test_a_rule_of_another_type_is_refused_by_its_name(field, value):
    with pytest.raises(InvalidValueError, match=field):
        Rules(**{field: value})


def test_a_stored_status_reads_as_what_its_owner_sees():
    assert [status_of(stored) for stored in ("waiting", "moving", "elsewhere", "archived")] == [
        Status.WAITING,
        Status.WAITING,
        Status.USED,
        Status.ARCHIVED,
    ]
    with pytest.raises(KeyError):
        status_of("deleting")


def test_a_lateness_needs_a_deadline():
    assert Change(ChangeKind.EXPIRED, DUE, record()).lateness is None


def test_expiries_tell_their_number_their_greatest_lateness_and_their_keys():
    expiries = Expiries("shop", DUE, (0.5, 2.0), '[["ann", "s1"], ["bob", "s2"]]')
    assert (len(expiries), expiries.latest) == (2, timedelta(seconds=2))
    assert list(expiries.keys) == [
        SessionKey("shop", "ann", "s1"),
        SessionKey("shop", "bob", "s2"),
    ]


def test_a_number_of_sessions_is_said_with_its_noun():
    told = [sessions(number) for number in (0, 1, 2, 1200)]
    assert told == ["0 sessions", "1 session", "2 sessions", "1,200 sessions"]


@pytest.mark.parametrize("status", list(Status))
def test_only_a_used_session_has_messages_archived_or_not(status):
    assert record(status).has_messages == (status in {Status.USED, Status.ARCHIVED})


def test_a_log_carries_eight_characters_of_a_session_id():
    assert SessionKey("a", "u", "0123456789").short == "01234567"


@pytest.mark.parametrize("text", ["x", "é", "😀", " ", "a/b", "x" * LONGEST_ID, "é" * LONGEST_ID])
@pytest.mark.parametrize("place", range(3))
def test_a_key_may_have_any_text_up_to_its_maximum_length(text, place):
    good = SessionKey(*(text if number == place else "ok" for number in range(3)))
    assert check_key(good) is good


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty"), ("x" * 129, "128 characters"), ("a\0b", "NUL"), ("a\ud800b", "surrogate")],
)
@pytest.mark.parametrize(("place", "field"), [(0, "app name"), (1, "user id"), (2, "session id")])
def test_an_invalid_part_of_a_key_is_refused_by_its_name(text, reason, place, field):
    bad = SessionKey(*(text if number == place else "ok" for number in range(3)))
    with pytest.raises(InvalidValueError, match=reason) as refused:
        check_key(bad)
    assert refused.value.field == field
