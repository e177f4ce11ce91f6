"""What a series is like, as far as its first rows tell: season, trend, growth."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Profile", "profile_of"]

_SHOWS = 0.25  # share of the variance without a trend that a season explains, to be one,
_SHOWS_OFTEN = 0.1  # and where it is seen so many times that chance is ruled out:
_OFTEN = 40
_REPEATS = 0.3  # autocorrelation at the length of a cycle, to be one
_CYCLES = 4  # that must be there, to see one
_TRENDS = 1.0  # standard deviations between the first third and the last
_UNIT_ROOT = 14.0  # n (1 - r): Dickey and Fuller's 5 % for a series about a level
_GROWS = 0.5  # least power of the level that the spread follows, and correlation of the two
_LEVELS = 0.3  # of the logarithms of levels: below, a logarithm changes little
_UNEVEN = 3.0  # times the spread of the series in the middle, for the largest one to decide
_WHITE = 3.0  # standard errors that the autocorrelation of noise keeps within,
_HARDLY = 0.1  # and what no forecast can use, however sure it is


@dataclass(frozen=True)
class Profile:
    """What most of the series in a file are like, in the rows that were looked at."""

    rows: int  # that were looked at, of the series in the middle
    series: int
    season: int | None  # rows that a season takes, where one shows
    strength: float  # share of the variance without a trend that the season explains, 0 to 1
    trending: bool  # the level does not come back: there is no level to learn
    growing: bool  # all is above 0, and the spread grows with the level
    walking: bool  # the steps are noise: beyond the last value nothing is seen to repeat
    uneven: bool = False  # the largest of several series would decide an error in their unit

    @property
    def described(self) -> str:
        """What was found, in words."""
        season = "no season" if self.season is None else f"a season of {self.season} rows"
        level = "a level that wanders" if self.trending else "a level that it comes back to"
        grows = ", a spread that grows with the level" if self.growing else ""
        steps = ", steps like noise" if self.walking else ""
        return f"{season}, {level}{grows}{steps}"


def profile_of(series: Sequence[np.ndarray], usual: int | None, *, positive: bool) -> Profile:
    """Look at series, and say what most of them are like.

    Args:
        series: the target's values of each, (rows,), without gaps: those that a model is trained
            on, so that nothing which is written down was learned from later rows.
        usual: rows in a season, as the frequency has it; None where it has none, and a cycle is
            looked for in the values.
        positive: whether all values of the target are above 0, also later ones.
    """
    long = [x for x in series if len(x) >= 8] or [x for x in series if len(x)]
    if not long:
        return Profile(0, len(series), None, 0.0, False, False, False)
    rows = int(statistics.median(len(x) for x in long))
    found = usual or _most_common([_cycle(x) for x in long])
    strength = 0.0 if found is None else statistics.median(_strength(x, found) for x in long)
    least = _SHOWS if found is None or rows < _OFTEN * found else _SHOWS_OFTEN
    season = None if usual is not None and strength < least else found
    growing = positive and _most(_grows(x, season) for x in long)
    known = [np.log(x) if growing else x for x in long]
    trending = _most(_trends(x, season) for x in known)
    walking = season is None and trending and _most(_walks(x) for x in known)
    uneven = _uneven(series, {1, usual or season or 1})
    return Profile(rows, len(series), season, strength, trending, growing, walking, uneven)


def _uneven(series: Sequence[np.ndarray], lags: set[int]) -> bool:
    """Whether series differ in their spread, and each has steps to be measured by.

    Args:
        series: (rows,) each.
        lags: rows between which all of them must have steps other than 0.
    """
    if len(series) < 2 or any(
        len(x) <= lag or not np.abs(x[lag:] - x[:-lag]).any() for x in series for lag in lags
    ):
        return False
    spreads = np.array([x.std() for x in series])
    return bool(spreads.max() > _UNEVEN * np.median(spreads))


def _most(found: Iterable[bool]) -> bool:
    answers = list(found)
    return sum(answers) * 2 > len(answers)


def _most_common(cycles: list[int | None]) -> int | None:
    """Return the cycle in the middle, where most series have one."""
    found = sorted(c for c in cycles if c is not None)
    return found[len(found) // 2] if len(found) * 2 > len(cycles) else None


def _strength(values: np.ndarray, season: int) -> float:
    """Return which share of the variance about a moving average the mean of each phase explains.

    Hyndman and Athanasopoulos' strength of a season, with the variance of what is left over
    estimated by its degrees of freedom, so that noise has none.
    """
    if season < 2 or len(values) < 2 * season + 2:
        return 0.0
    rest = _without_trend(values, season)
    phase = np.arange(len(rest)) % season
    over = rest - _by_phase(rest, phase, season)
    total, freedom = float(((rest - rest.mean()) ** 2).sum()), len(rest) - season
    if total <= 1e-12 * max(1.0, float((values**2).sum())) or freedom < 1:
        return 0.0
    return max(0.0, 1.0 - (float(over @ over) / freedom) / (total / (len(rest) - 1)))


def _without_trend(values: np.ndarray, season: int) -> np.ndarray:
    """Take off the moving average over a season, in whose middle each row stands."""
    even = season % 2 == 0
    weights = np.r_[0.5, np.ones(season - 1), 0.5] if even else np.ones(season)
    trend = np.convolve(values, weights / season, "valid")
    first = len(weights) // 2
    return np.asarray(values[first : first + len(trend)] - trend)


def _by_phase(values: np.ndarray, phase: np.ndarray, season: int) -> np.ndarray:
    counts = np.maximum(np.bincount(phase, minlength=season), 1)
    return np.asarray((np.bincount(phase, values, minlength=season) / counts)[phase])


def _autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Return the autocorrelation at 0 to `lags`: (lags + 1,); of a constant 0 but for the first."""
    centred = values - values.mean()
    size = 1 << int(2 * len(values) - 1).bit_length()
    products = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)[: lags + 1]
    least = 1e-12 * max(1.0, float((values**2).sum()))
    constant = products[0] <= least
    return np.eye(1, lags + 1)[0] if constant else np.asarray(products / products[0])


def _cycle(values: np.ndarray) -> int | None:
    """Return the length of the cycle that the values repeat in, where they do.

    It is the first lag whose autocorrelation is a peak nearly as high as the highest one after
    the first fall below 0; of steps, where the level wanders.
    """
    seen = np.diff(values) if _distance(values) > _TRENDS else values
    lags = len(seen) // _CYCLES
    if lags < 3:
        return None
    found = _autocorrelation(seen, lags + 1)
    below = np.flatnonzero(found < 0)
    if not len(below) or below[0] >= lags:
        return None
    lag = np.arange(max(2, below[0]), lags + 1)
    peak = (found[lag] >= found[lag - 1]) & (found[lag] >= found[lag + 1])
    high = found[lag] >= max(_REPEATS, 0.8 * found[lag].max())
    peaks = lag[peak & high]
    return int(peaks[0]) if len(peaks) else None


def _distance(values: np.ndarray) -> float:
    """Return how far the last third lies from the first, in their standard deviation."""
    third = max(1, len(values) // 3)
    first, last = values[:third], values[-third:]
    spread = np.sqrt((first.var() + last.var()) / 2)
    moved = abs(float(last.mean() - first.mean()))
    return moved / spread if spread > 1e-9 * max(1.0, moved) else (np.inf if moved else 0.0)


def _trends(values: np.ndarray, season: int | None) -> bool:
    """Whether the level moves away, or nothing shows that it comes back."""
    if season is not None and len(values) >= 2 * season:
        values = values - _by_phase(values, np.arange(len(values)) % season, season)
    if _distance(values) > _TRENDS:
        return True
    return len(values) * (1.0 - float(_autocorrelation(values, 1)[1])) < _UNIT_ROOT


def _grows(values: np.ndarray, season: int | None) -> bool:
    """Whether steps within a stretch are wider the higher its level is."""
    length = max(season or 0, 8)
    n = len(values) // length
    if n < 4 or values.min() <= 0:
        return False
    stretches = values[len(values) - n * length :].reshape(n, length)
    level = np.log(stretches.mean(axis=1))
    spread = np.log(np.sqrt((np.diff(stretches, axis=1) ** 2).mean(axis=1)) + 1e-12)
    if np.ptp(level) < _LEVELS or spread.std() == 0:
        return False
    power = np.polyfit(level, spread, 1)[0]
    return bool(power >= _GROWS and np.corrcoef(level, spread)[0, 1] >= _GROWS)


def _walks(values: np.ndarray) -> bool:
    """Whether the steps from row to row are noise."""
    steps = np.diff(values)
    if len(steps) < 20 or steps.std() <= 1e-6 * np.abs(steps).max():
        return False
    found = np.abs(_autocorrelation(steps, 5)[1:]).max()
    return bool(found < max(_WHITE / np.sqrt(len(steps)), _HARDLY))
