"""Buckets of ages, and the histograms of them."""

from datetime import timedelta
from itertools import pairwise

import pytest

from lapse.core.ages import BUCKETS, EDGES, Histogram, bucket_of, edge_at_most

SECOND = timedelta(seconds=1)


def test_the_edges_are_those_that_are_promised():
    assert len(EDGES) == BUCKETS
    assert [EDGES[0], EDGES[1], EDGES[96]] == [timedelta(0), 15 * SECOND, timedelta(hours=24)]
    ratios = {round(above / below, 3) for below, above in pairwise(EDGES[1:])}
    assert ratios == {1.095}
    assert EDGES[-1] > timedelta(days=366)


@pytest.mark.parametrize("number", [1, 2, 96, BUCKETS - 1])
def test_a_bucket_holds_the_ages_above_its_edge_up_to_the_next(number):
    tick = timedelta(microseconds=1)
    assert bucket_of(EDGES[number]) == number - 1
    assert bucket_of(EDGES[number] + tick) == number
    assert edge_at_most(EDGES[number]) == number
    assert edge_at_most(EDGES[number] - tick) == number - 1


def test_an_age_of_zero_or_less_is_in_the_first_bucket():
    assert [bucket_of(age * SECOND) for age in (-1, 0, 1)] == [0, 0, 0]
    assert edge_at_most(timedelta(0)) == 0


def test_histograms_count_add_and_tell_how_many_are_later():
    one, other = Histogram.of([0, 2, 2, 5]), Histogram.of([2, 161])
    both = one + other
    assert both.counts[:6] == (1, 0, 3, 0, 0, 1)
    assert (sum(both.counts), len(both.counts), both.counts[161]) == (6, BUCKETS, 1)
    assert both.later_than(6) == (5, 4, 4, 1, 1, 1, 0)
    assert both.later_than(5) == (4, 3, 3, 0, 0, 0)
    assert Histogram().later_than(2) == (0, 0, 0)
