"""What several searches of each strategy say: a median's interval, and which differences are real.

- Interval of a median: order statistics, whose coverage is a binomial probability whatever the
  scores' distribution is (Thompson, Annals of Mathematical Statistics 7, 1936).
- Difference of two strategies: Mann and Whitney's U test (Annals of Mathematical Statistics 18,
  1947), two-sided, not paired.
- All pairs together: Holm's correction (Scandinavian Journal of Statistics 6, 1979).
- Size of a difference: Vargha and Delaney's A (Journal of Educational and Behavioral Statistics
  25, 2000).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ALPHA", "Difference", "Interval", "fewest_seeds", "median_interval", "pairwise"]

ALPHA = 0.05
"""How likely it may be, at most, that any difference is called real where none is."""

_FEWEST = 5  # seeds, however few the pairs are
_MOST_PERMUTED = 8  # values in a sample whose permutations are counted one by one


@dataclass(frozen=True)
class Interval:
    """Where a median lies."""

    low: float
    high: float
    confidence: float  # that it covers the median; 0.95 at least from six values on


def median_interval(values: Sequence[float]) -> Interval:
    """Return the interval between the two values that covers the median in 95 % of all cases.

    Of fewer than six values it is their range, which covers it less often.

    Args:
        values: independent, one at least; infinite ones are the outermost.
    """
    ordered, n = sorted(values), len(values)

    def below(k: int) -> float:
        """How likely fewer than `k` of the values lie below the median."""
        return float(sum(math.comb(n, i) for i in range(k)) / 2**n)

    k = max((k for k in range(2, n // 2 + 1) if below(k) <= ALPHA / 2), default=1)
    return Interval(ordered[k - 1], ordered[n - k], 1 - 2 * below(k))


@dataclass(frozen=True)
class Difference:
    """Two strategies, and whether the one is better than the other."""

    better: str
    worse: str
    wins: float  # share of the pairs of their searches that the better one wins; a draw is half
    p_value: float  # of this pair alone
    adjusted: float  # the p-value after the correction for all pairs


def pairwise(costs: Mapping[str, Sequence[float]]) -> list[Difference]:
    """Compare every two strategies, the surest difference first.

    Args:
        costs: by strategy what each of its searches came to, less being better; infinite where
            it came to nothing.
    """
    found = []
    for a, b in itertools.combinations(sorted(costs), 2):
        wins, p_value = _mann_whitney(costs[a], costs[b])
        better, worse = (a, b) if wins >= 0.5 else (b, a)
        found.append((p_value, better, worse, max(wins, 1 - wins)))
    found.sort()
    adjusted = _holm([p_value for p_value, *_ in found])
    return [
        Difference(better, worse, wins, p_value, p)
        for (p_value, better, worse, wins), p in zip(found, adjusted, strict=True)
    ]


def fewest_seeds(n_strategies: int) -> int:
    """Return how many seeds it takes to tell two of the strategies apart, if they never overlap."""
    n_pairs = math.comb(n_strategies, 2)
    return next(n for n in itertools.count(_FEWEST) if 2 * n_pairs / math.comb(2 * n, n) <= ALPHA)


def _mann_whitney(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return in which share of the pairs `a` is less than `b`, and the p-value.

    It is exact where no two values are equal, or the samples are small.
    """
    from scipy.stats import PermutationMethod, mannwhitneyu, rankdata

    ranks = rankdata([*a, *b])  # infinite values have ranks like others
    ranks_a, ranks_b = ranks[: len(a)], ranks[len(a) :]
    n_distinct = len(np.unique(ranks))
    if n_distinct == 1:
        return 0.5, 1.0
    if n_distinct == len(ranks):
        method: Any = "exact"
    elif max(len(a), len(b)) <= _MOST_PERMUTED:
        method = PermutationMethod(n_resamples=math.comb(len(ranks), len(a)))  # all of them
    else:
        method = "asymptotic"
    result = mannwhitneyu(ranks_a, ranks_b, method=method)
    return 1 - float(result.statistic) / (len(a) * len(b)), min(1.0, float(result.pvalue))


def _holm(p_values: Sequence[float]) -> list[float]:
    """Return rising p-values, each as the correction for all of them leaves it."""
    n = len(p_values)
    steps = [min(1.0, (n - i) * p_value) for i, p_value in enumerate(p_values)]
    return list(itertools.accumulate(steps, max))
