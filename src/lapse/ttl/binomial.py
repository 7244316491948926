"""Exact bounds for a share of which a sample was counted (Clopper and Pearson)."""

from __future__ import annotations

from math import exp, lgamma, log, log1p
from typing import Final

_NEGLIGIBLE: Final = 1e-17
_HALVINGS: Final = 60


def at_most(count: int, trials: int, share: float) -> float:
    """Return the probability that a binomial variable is at most `count`."""
    if count < 0:
        return 0.0
    if count >= trials or share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    if count > trials * share:
        # Beyond the middle the other tail is the short one.
        return 1.0 - _tail(trials - count - 1, trials, 1 - share)
    return _tail(count, trials, share)


def at_least(count: int, trials: int, share: float) -> float:
    """Return the probability that a binomial variable is at least `count`."""
    return at_most(trials - count, trials, 1 - share)


def upper(count: int, trials: int, doubt: float) -> float:
    """Return the share above which a count this low would come with probability below `doubt`."""
    if count >= trials:
        return 1.0
    low, high = count / trials, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if at_most(count, trials, middle) > doubt:
            low = middle
        else:
            high = middle
    return high


def lower(count: int, trials: int, doubt: float) -> float:
    """Return the share below which a count this high would come with probability below `doubt`."""
    return 1.0 - upper(trials - count, trials, doubt)


def excess(count: int, trials: int, other_count: int, other_trials: int) -> float:
    """Return how probable a count at least this high is if both samples share one rate.

    Fisher's exact test of two proportions, one-sided: the total of both counts is given.
    """
    total, everyone = count + other_count, trials + other_trials
    most = min(total, trials)
    whole = _log_choices(everyone, total)
    return min(
        1.0,
        sum(
            exp(_log_choices(trials, k) + _log_choices(other_trials, total - k) - whole)
            for k in range(max(count, total - other_trials), most + 1)
        ),
    )


def _tail(count: int, trials: int, share: float) -> float:
    """Sum the probabilities from `count` down, largest first; `count` is below the middle."""
    term = exp(_log_choices(trials, count) + count * log(share) + (trials - count) * log1p(-share))
    total, odds = 0.0, (1 - share) / share
    for i in range(count, -1, -1):
        total += term
        if term <= total * _NEGLIGIBLE:
            break
        term *= odds * i / (trials - i + 1)
    return min(1.0, total)


def _log_choices(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
