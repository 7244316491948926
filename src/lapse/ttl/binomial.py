"""Exact probabilities and confidence bounds of a binomial share (Clopper and Pearson).

A sample has `count` hits in `trials`. Shares, probabilities and `doubt` are between 0 and 1; the
confidence is `1 - doubt`.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p
from typing import Final

_NEGLIGIBLE: Final = 1e-17
"""A term smaller than this part of the sum cannot change a float."""

_BISECTIONS: Final = 60
"""Enough to find a share to the last bit of a float."""


def at_most(count: int, trials: int, share: float) -> float:
    """Return the probability of at most `count` hits in `trials`, each a hit with `share`."""
    if count < 0:
        return 0.0
    if count >= trials or share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    if count > trials * share:
        # Above the mean, the upper tail has the smaller probabilities: sum that one.
        return 1.0 - _tail(trials - count - 1, trials, 1 - share)
    return _tail(count, trials, share)


def at_least(count: int, trials: int, share: float) -> float:
    """Return the probability of at least `count` hits in `trials`, each a hit with `share`."""
    return at_most(trials - count, trials, 1 - share)


def upper(count: int, trials: int, doubt: float) -> float:
    """Return the upper confidence bound of the share.

    If the true share were above it, a count this low would have a probability below `doubt`.
    """
    if count >= trials:
        return 1.0
    low, high = count / trials, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if at_most(count, trials, middle) > doubt:
            low = middle
        else:
            high = middle
    return high


def lower(count: int, trials: int, doubt: float) -> float:
    """Return the lower confidence bound of the share.

    If the true share were below it, a count this high would have a probability below `doubt`.
    """
    return 1.0 - upper(trials - count, trials, doubt)


def excess(count: int, trials: int, other_count: int, other_trials: int) -> float:
    """Return the p-value of the first sample having a higher share than the other.

    It is Fisher's exact test, one-sided: the probability of a count at least this high if both
    samples have the same share, given the sum of both counts.
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
    """Sum the probabilities of `count` and fewer hits, largest first; `count` is below the mean."""
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
