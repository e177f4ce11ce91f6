"""Statistics of scores: which differences between them are significant.

- Two configurations with a few repeats each: a bootstrap interval of the difference of their
  means, or a t-interval (`compare`).
- The median of a strategy's searches: an interval from order statistics, with a binomial coverage
  for any distribution (Thompson, Annals of Mathematical Statistics 7, 1936).
- Two strategies: Mann and Whitney's U test (Annals of Mathematical Statistics 18, 1947),
  two-sided, unpaired; for all pairs with Holm's correction (Scandinavian Journal of Statistics 6,
  1979). The size of a difference is Vargha and Delaney's A (Journal of Educational and Behavioral
  Statistics 25, 2000).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuner.metrics import METRICS

ENOUGH = 5  # repeats of each, below which no difference is reported
_CONFIDENCE = 0.95
_RESAMPLES = 9_999
_ROLE = 105  # key of the random generator
_NO_GAIN = 0.0005  # relative gain that counts as equal
_MOST = 10.0  # largest relative gain that is shown in percent


@dataclass(frozen=True)
class Difference:
    """How much better the first of two configurations is, by their mean scores."""

    metric: str
    first: float  # mean score
    second: float
    repeats: int  # of the configuration that has fewer
    low: float | None = None  # 95 % interval of the gain; None for a single repeat, and
    high: float | None = None  # for a score that is not finite

    @property
    def gain(self) -> float:
        """How much better the first is, in the metric's units; negative if it is worse."""
        return METRICS[self.metric].sign * (self.second - self.first)

    @property
    def equal(self) -> bool:
        """Whether their first four digits are equal, or errors differ by less than 0.05 %."""
        if f"{self.first:.4g}" == f"{self.second:.4g}":
            return True
        share = relative(self.metric, abs(self.gain), max(self.first, self.second))
        return not METRICS[self.metric].maximize and share is not None and share < _NO_GAIN

    @property
    def better(self) -> bool:
        """Whether the first is better, and the difference is not known to be noise."""
        return self.gain > 0 and not self.equal and self.real is not False

    @property
    def worse(self) -> bool:
        """Whether the first is worse, and the difference is not known to be noise."""
        return self.gain < 0 and not self.equal and self.real is not False

    @property
    def real(self) -> bool | None:
        """Whether the difference is significant; None without an interval."""
        if self.low is None or self.high is None:
            return None
        rounding = 1e-12 * max(abs(self.first), abs(self.second))
        return self.low > rounding or self.high < -rounding


def compare(
    metric: str, first: Sequence[float], second: Sequence[float] | float, seed: Sequence[int]
) -> Difference:
    """Compare the scores of one configuration's repeats with another's, or with a fixed score.

    The interval is a bootstrap of the difference of the means: the expanded percentile interval
    of Hesterberg (The American Statistician 69, 2015), because the plain one is too narrow for
    few repeats (five of each: it covers 89 % instead of 95 %), with the degrees of freedom of
    Welch (Biometrika 34, 1947). Two to four scores are too few to resample: for them it is the
    t-interval with the same degrees of freedom, which is wide.

    Args:
        metric: of `tuner.metrics.METRICS`.
        first: its scores, one at least.
        second: likewise, or a single score without seeds.
        seed: of the resampling.
    """
    samples = [first] if isinstance(second, float | int) else [first, second]
    means = _mean(first), second if isinstance(second, float | int) else _mean(second)
    repeats = min(map(len, samples))
    if repeats < 2 or not all(map(math.isfinite, means)):
        return Difference(metric, *means, repeats)
    if repeats < ENOUGH:
        gain = Difference(metric, *means, repeats).gain
        width = _half_width(samples)
        return Difference(metric, *means, repeats, gain - width, gain + width)
    known = means[1] if len(samples) == 1 else None
    return Difference(metric, *means, repeats, *_interval(metric, samples, known, seed))


def relative(metric: str, gain: float, reference: float) -> float | None:
    """Return a gain relative to a score; None if that is meaningless.

    That is so for r2, which has no natural zero, for scores not above 0, and for gains of more
    than ten times the score.
    """
    ratios = metric not in METRICS or METRICS[metric].ratios  # a user's metric by its short name
    if not (ratios and math.isfinite(gain) and 0 < reference < math.inf):
        return None
    share = gain / reference
    return share if abs(share) <= _MOST else None


def _interval(
    metric: str, samples: Sequence[Sequence[float]], known: float | None, seed: Sequence[int]
) -> tuple[float, float]:
    """Return the interval of the gain of the first sample over the second, or `known`."""
    from scipy.stats import bootstrap, norm, t  # half a second

    sign = METRICS[metric].sign

    def gain(*resampled: np.ndarray, axis: int) -> np.ndarray:
        means = [r.mean(axis=axis) for r in resampled]
        return np.asarray(sign * ((means[1] if known is None else known) - means[0]))

    narrow, freedom = _of_few(samples)
    widened = t.ppf((1 + _CONFIDENCE) / 2, freedom) / narrow
    with np.errstate(all="ignore"):
        found = bootstrap(
            samples,
            gain,
            n_resamples=_RESAMPLES,
            confidence_level=1 - 2 * norm.cdf(-widened),
            method="percentile",
            rng=np.random.default_rng([*seed, _ROLE]),
        ).confidence_interval
    return float(found.low), float(found.high)


def _half_width(samples: Sequence[Sequence[float]]) -> float:
    """Return half the width of Welch's t-interval of a mean, or of the difference of two."""
    from scipy.special import stdtrit

    errors, spread = _errors(samples)
    _, freedom = _of_few(samples)
    return float(stdtrit(freedom, (1 + _CONFIDENCE) / 2) * math.sqrt(errors.sum()) * spread)


def _of_few(samples: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return how much resampling few scores understates the error, and the degrees of freedom.

    The degrees of freedom are Welch's and Satterthwaite's, because variances differ. If no score
    deviates, both assume equal variances.
    """
    sizes = np.array([len(sample) for sample in samples], dtype=float)
    errors, _ = _errors(samples)
    if not errors.any():
        errors = np.ones_like(errors)
    understated = float((errors * (sizes - 1) / sizes).sum() / errors.sum())
    freedom = float(errors.sum() ** 2 / (errors**2 / (sizes - 1)).sum())
    return math.sqrt(understated), freedom


def _errors(samples: Sequence[Sequence[float]]) -> tuple[np.ndarray, float]:
    """Return the squared standard errors of the means, (samples,), in units of a spread, and it.

    The first score of each sample is subtracted, against rounding errors of large equal scores.
    """
    spread = max(max(sample) - min(sample) for sample in samples) or 1.0
    away = [np.subtract(sample, sample[0]) / spread for sample in samples]
    return np.array([a.var(ddof=1) / len(a) for a in away]), spread


def _mean(scores: Sequence[float]) -> float:
    with np.errstate(all="ignore"):
        return float(np.mean(scores))


ALPHA = 0.05  # family-wise error rate
_FEWEST = 5  # seeds, however few the pairs are
_MOST_PERMUTED = 8  # values in a sample whose permutations are counted one by one


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a median."""

    low: float
    high: float
    confidence: float  # at least 0.95 for six or more values


def median_interval(values: Sequence[float]) -> Interval:
    """Return the 95 % confidence interval of a median; of fewer than six values, their range.

    Args:
        values: independent, at least one; may be infinite.
    """
    ordered, n = sorted(values), len(values)

    def below(k: int) -> float:
        """Return the probability that fewer than `k` values lie below the median."""
        return float(sum(math.comb(n, i) for i in range(k)) / 2**n)

    k = max((k for k in range(2, n // 2 + 1) if below(k) <= ALPHA / 2), default=1)
    return Interval(ordered[k - 1], ordered[n - k], 1 - 2 * below(k))


@dataclass(frozen=True)
class StrategyDifference:
    """Two strategies, and how significant their difference is."""

    better: str
    worse: str
    wins: float  # Vargha and Delaney's A: share of pairs of searches won; a draw is half
    p_value: float  # uncorrected
    p_adjusted: float  # after Holm's correction


def pairwise(costs: Mapping[str, Sequence[float]]) -> list[StrategyDifference]:
    """Compare every two strategies; the smallest p-value is first.

    Args:
        costs: by strategy, the best score of each search; less is better, infinite for none.
    """
    found = []
    for a, b in itertools.combinations(sorted(costs), 2):
        wins, p_value = _mann_whitney(costs[a], costs[b])
        better, worse = (a, b) if wins >= 0.5 else (b, a)
        found.append((p_value, better, worse, max(wins, 1 - wins)))
    found.sort()
    adjusted = _holm([p_value for p_value, *_ in found])
    return [
        StrategyDifference(better, worse, wins, p_value, p)
        for (p_value, better, worse, wins), p in zip(found, adjusted, strict=True)
    ]


def fewest_seeds(n_strategies: int) -> int:
    """Return the fewest seeds at which a difference without overlap is significant."""
    n_pairs = math.comb(n_strategies, 2)
    return next(n for n in itertools.count(_FEWEST) if 2 * n_pairs / math.comb(2 * n, n) <= ALPHA)


def _mann_whitney(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return the share of pairs in which `a` is less than `b`, and the p-value.

    The p-value is exact if no two values are equal or the samples are small.
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
    """Correct p-values, which are in rising order."""
    n = len(p_values)
    steps = [min(1.0, (n - i) * p_value) for i, p_value in enumerate(p_values)]
    return list(itertools.accumulate(steps, max))
