"""TTLs in minutes: which are taken, what refuses the others, and how durations are said."""

import math
from datetime import timedelta

import pytest

from lapse.core.errors import InvalidValueError
from lapse.core.minutes import LONGEST_TTL, SHORTEST_TTL, minutes_of, spelt, ttl_from_minutes

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.mark.parametrize(
    ("minutes", "ttl"),
    [
        (30, timedelta(minutes=30)),
        (0.5, timedelta(seconds=30)),
        (1 / 60_000, SHORTEST_TTL),
        (43_200, LONGEST_TTL),
    ],
)
def test_a_number_within_the_bounds_is_a_ttl(minutes, ttl):
    assert ttl_from_minutes(minutes, field="ttl") == ttl


@pytest.mark.parametrize(
    ("minutes", "reason"),
    [
        (True, "must be a number of minutes, not True"),
        ("30", "must be a number of minutes, not '30'"),
        (0, "must be above 0 and at most 43200 minutes (30 days), not 0"),
        (-1, "must be above 0 and at most 43200 minutes (30 days), not -1"),
        (43_201, "must be above 0 and at most 43200 minutes (30 days), not 43201"),
        (math.nan, "must be above 0 and at most 43200 minutes (30 days), not nan"),
        (1e-9, "must be at least 1 millisecond, not 1e-09 minutes"),
    ],
)
def test_any_other_value_is_refused_with_its_field_and_its_bounds(minutes, reason):
    with pytest.raises(InvalidValueError) as refused:
        ttl_from_minutes(minutes, field="ttl")
    assert (refused.value.field, refused.value.reason) == ("ttl", reason)


@pytest.mark.parametrize(
    ("longest", "bound"),
    [(HOUR, "60 minutes,"), (LONGEST_TTL, "43200 minutes (30 days),"), (DAY * 31, "43200 min")],
)
def test_a_shorter_bound_is_told_and_a_longer_one_changes_nothing(longest, bound):
    with pytest.raises(InvalidValueError, match="at most") as refused:
        ttl_from_minutes(50_000, field="ttl", longest=longest)
    assert f"at most {bound}" in refused.value.reason
    assert ttl_from_minutes(60, field="ttl", longest=longest) == HOUR


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (DAY, "1 day"),
        (DAY * 2, "2 days"),
        (DAY * 1.5, "1.5 days"),
        (HOUR, "1 h"),
        (HOUR * 1.5, "1.5 h"),
        (timedelta(minutes=1), "1 min"),
        (timedelta(minutes=59.5), "59.5 min"),
        (timedelta(seconds=59), "59 s"),
        (timedelta(milliseconds=1), "0.001 s"),
        (timedelta(0), "0 s"),
    ],
)
def test_a_duration_is_said_in_its_largest_unit(duration, words):
    assert spelt(duration) == words


def test_whole_minutes_are_an_int():
    assert [minutes_of(HOUR), minutes_of(timedelta(seconds=90))] == [60, 1.5]
    assert isinstance(minutes_of(HOUR), int)
