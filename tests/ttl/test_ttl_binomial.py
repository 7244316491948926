"""The exact bounds, against scipy; ages in buckets."""

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lapse.core.ages import BUCKETS, EDGES, Histogram, bucket_of, edge_at_most
from lapse.ttl.binomial import at_least, at_most, excess, lower, upper

TICK = timedelta(microseconds=1)
DOUBTS = st.sampled_from([0.001, 0.01, 0.05, 0.5])
SAMPLES = st.integers(1, 30_000).flatmap(
    lambda trials: st.tuples(st.integers(0, trials), st.just(trials))
)
BUCKET_LISTS = st.lists(st.integers(0, BUCKETS - 1), max_size=50)


@given(SAMPLES, DOUBTS)
def test_the_bounds_are_those_of_clopper_and_pearson(sample, doubt):
    count, trials = sample
    above = 1.0 if count == trials else stats.beta.ppf(1 - doubt, count + 1, trials - count)
    below = 0.0 if count == 0 else stats.beta.ppf(doubt, count, trials - count + 1)
    assert upper(count, trials, doubt) == pytest.approx(above, abs=1e-9)
    assert lower(count, trials, doubt) == pytest.approx(below, abs=1e-9)


@given(SAMPLES, st.floats(1e-6, 1 - 1e-6))
def test_the_tails_are_those_of_the_binomial_distribution(sample, share):
    count, trials = sample
    assert at_most(count, trials, share) == pytest.approx(
        stats.binom.cdf(count, trials, share), abs=1e-9
    )
    assert at_least(count, trials, share) == pytest.approx(
        stats.binom.sf(count - 1, trials, share), abs=1e-9
    )


@given(SAMPLES, DOUBTS)
def test_the_upper_bound_grows_with_the_count_and_falls_with_the_doubt(sample, doubt):
    count, trials = sample
    bound = upper(count, trials, doubt)
    assert bound >= count / trials
    assert upper(min(count + 1, trials), trials, doubt) >= bound
    assert upper(count, trials, doubt / 2) >= bound


@pytest.mark.parametrize(
    "sample", [(0, 1, 0, 1), (3, 20, 40, 900), (20, 20, 0, 5), (9, 80, 200, 7000)]
)
def test_two_groups_are_compared_by_fishers_exact_test(sample):
    count, trials, other, others = sample
    expected = stats.fisher_exact(
        [[count, trials - count], [other, others - other]], alternative="greater"
    )
    assert excess(*sample) == pytest.approx(expected.pvalue, abs=1e-9)


def test_the_edges_of_buckets_are_log_spaced_and_one_is_a_day():
    assert EDGES[:2] == (timedelta(0), timedelta(seconds=15))
    assert EDGES[96] == timedelta(hours=24)
    assert EDGES[-1] >= timedelta(days=366)
    ratios = {round(after / before, 3) for before, after in pairwise(EDGES[1:])}
    assert ratios == {1.095}


@given(st.integers(1, BUCKETS - 2))
def test_a_bucket_includes_its_upper_edge_and_not_its_lower(edge):
    assert bucket_of(EDGES[edge]) == edge - 1
    assert bucket_of(EDGES[edge] + TICK) == edge
    assert edge_at_most(EDGES[edge]) == edge
    assert edge_at_most(EDGES[edge] - TICK) == edge - 1


@pytest.mark.parametrize("age", [timedelta(days=-1), -TICK, timedelta(0), TICK])
def test_an_age_of_almost_zero_or_less_counts_in_the_first_bucket(age):
    assert bucket_of(age) == 0


@given(BUCKET_LISTS, BUCKET_LISTS, BUCKET_LISTS)
def test_histograms_merge_in_any_order(one, two, three):
    a, b, c = map(Histogram.of, (one, two, three))
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + b == Histogram.of([*one, *two])
    assert a + Histogram() == a


@given(BUCKET_LISTS, st.integers(1, BUCKETS - 1))
def test_the_count_of_later_messages_falls_with_the_age_and_stops_at_the_horizon(buckets, edge):
    later = Histogram.of(buckets).later_than(edge)
    assert list(later) == sorted(later, reverse=True)
    assert later == tuple(sum(j <= b < edge for b in buckets) for j in range(edge + 1))
