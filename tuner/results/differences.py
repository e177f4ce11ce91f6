"""Whether one configuration is better than another beyond the luck of its seeds, and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.experiment.metrics import METRICS

__all__ = ["ENOUGH", "Difference", "compare", "gap_in_words", "percent", "relative"]

ENOUGH = 5
"""Repeats of each below which no two are said to differ; see `compare`."""

_CONFIDENCE = 0.95
_RESAMPLES = 9_999
_ROLE = 105  # keys this generator apart from those of the search
_NO_GAIN = 0.0005  # a share of an error that is no gain
_MOST = 10.0  # a score more than so many times another one is not told in percent


@dataclass(frozen=True)
class Difference:
    """How much better the first of two configurations is, by its mean score."""

    metric: str
    first: float  # mean score
    second: float
    repeats: int  # of the one that has fewer
    low: float | None = None  # 95 % interval of the gain; None where there is a single repeat,
    high: float | None = None  # or a score is not finite

    @property
    def gain(self) -> float:
        """By how much the first is better, in the metric's units; negative where it is worse."""
        return METRICS[self.metric].sign * (self.second - self.first)

    @property
    def equal(self) -> bool:
        """Whether they are the same as people read them.

        Their first four digits are, or one error is less than 0.05 % above the other.
        """
        if f"{self.first:.4g}" == f"{self.second:.4g}":
            return True
        share = relative(self.metric, abs(self.gain), max(self.first, self.second))
        return not METRICS[self.metric].maximize and share is not None and share < _NO_GAIN

    @property
    def better(self) -> bool:
        """Whether the first is better, and as far as one can tell not by chance alone."""
        return self.gain > 0 and not self.equal and self.real is not False

    @property
    def real(self) -> bool | None:
        """Whether they differ beyond chance; None where nobody can tell."""
        if self.low is None or self.high is None:
            return None
        rounding = 1e-12 * max(abs(self.first), abs(self.second))
        return self.low > rounding or self.high < -rounding

    def in_words(self, first: str, second: str) -> str:
        """Say which of the two is better, and by how much."""
        if not (math.isfinite(self.first) and math.isfinite(self.second)):
            return f"{first} and {second} cannot be compared: a score is not finite"
        if self.low is None or self.high is None or self.repeats < ENOUGH:
            more = f"the same command with --set finalists.repeats={ENOUGH}"
            return f"too few repeats to tell ({self.repeats}; five or more are needed: {more})"
        if not self.real:
            return f"{first} and {second} cannot be told apart"
        if self.gain > 0:
            better, worse, low, high = first, second, self.low, self.high
        else:
            better, worse, low, high = second, first, -self.high, -self.low
        sign = METRICS[self.metric].sign
        reference = sign * max(sign * self.first, sign * self.second)  # the worse one
        shares = [relative(self.metric, gain, reference) for gain in (low, high)]
        told = [percent(share) for share in shares if share is not None]
        unit = " %"
        if len(told) < 2:
            told, unit = [f"{gain:.3g}" for gain in (low, high)], f" in {self.metric}"
        by = " to ".join(dict.fromkeys(told))
        return f"{better} beats {worse} by {by}{unit} (95 % interval)"


def compare(
    metric: str, first: Sequence[float], second: Sequence[float] | float, seed: Sequence[int]
) -> Difference:
    """Compare the scores of one configuration's repeats with another's, or with a fixed score.

    The interval is a bootstrap of the difference of the means: the expanded percentile interval
    of Hesterberg (The American Statistician 69, 2015), because the plain one is too narrow for
    few repeats (five of each: it covers 89 % instead of 95 %), with the degrees of freedom of
    Welch (Biometrika 34, 1947). Two to four scores are too few to resample: for them it is the
    t-interval of the same degrees of freedom. It is wide, and that is all that so few can say.

    Args:
        metric: of `tuner.experiment.metrics.METRICS`.
        first: its scores, one at least.
        second: likewise, or the score of something that has no seeds.
        seed: keys the resampling: the same gives the same interval.
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
    """Return a gain as a share of the score that it is over; None where that would mean nothing.

    So it would of r2, which has no natural zero, of scores that are not above 0, and of gains
    that are many times the score.
    """
    if metric == "r2" or not (math.isfinite(gain) and math.isfinite(reference)) or reference <= 0:
        return None
    share = gain / reference
    return share if abs(share) <= _MOST else None


def percent(share: float) -> str:
    """Write a share as a number of percent, without the sign for it."""
    value = 100 * abs(share)
    text = f"{value:.0f}" if value >= 1 else f"{value:.1g}" if value >= 0.01 else "less than 0.01"
    return f"-{text}" if share < 0 else text


def gap_in_words(metric: str, gap: float | None, search: float | None) -> str | None:
    """Write how far a mean lies from the search's score, which it was chosen for; None for none."""
    if gap is None or search is None:
        return None
    gap += 0.0  # no -0
    share = relative(metric, gap, search)
    if share is None:
        return f"{gap:+.3g}"
    percent = round(100 * share)
    return f"{gap:+.3g} ({percent:+d} %)" if percent else f"{gap:+.3g} (0 %)"


def _interval(
    metric: str, samples: Sequence[Sequence[float]], known: float | None, seed: Sequence[int]
) -> tuple[float, float]:
    """Return the interval of the gain of the first sample over the second, or over `known`."""
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
    """Return by how much resampling so few scores understates the error, and its freedom.

    The degrees of freedom are Welch's and Satterthwaite's, as configurations differ in how much
    their seeds matter. Both are those of equal deviations where no score deviates at all.
    """
    sizes = np.array([len(sample) for sample in samples], dtype=float)
    errors, _ = _errors(samples)
    if not errors.any():
        errors = np.ones_like(errors)
    understated = float((errors * (sizes - 1) / sizes).sum() / errors.sum())
    freedom = float(errors.sum() ** 2 / (errors**2 / (sizes - 1)).sum())
    return math.sqrt(understated), freedom


def _errors(samples: Sequence[Sequence[float]]) -> tuple[np.ndarray, float]:
    """Return the squared errors of the means, (samples,), in units of a spread, and the spread.

    Scores are told relative to the first of each sample: of huge ones that are all alike the mean
    is another by rounding, which is no error.
    """
    spread = max(max(sample) - min(sample) for sample in samples) or 1.0
    away = [np.subtract(sample, sample[0]) / spread for sample in samples]
    return np.array([a.var(ddof=1) / len(a) for a in away]), spread


def _mean(scores: Sequence[float]) -> float:
    with np.errstate(all="ignore"):
        return float(np.mean(scores))
