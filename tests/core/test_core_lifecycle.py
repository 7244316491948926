"""Rules, records, changes and keys."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import DUE, HOUR, T0, TTL, key
from lapse.core.errors import InvalidValueError
from lapse.core.keys import LONGEST_ID, SessionKey, check_key
from lapse.core.lifecycle import Change, ChangeKind, Lifecycle, Rules, Status

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
