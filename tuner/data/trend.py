"""Whether the level of a series moves away from what a model of it is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Trend", "trend_of"]

_OUTSIDE = 0.25  # of the range of levels that are trained on: so far beyond it is outside
_CLEAR = 0.9  # a correlation of level and time, without a sign, above which a trend is clear
_FEWEST = 3  # stretches without a common row before a trend can be clear
_STRETCH = 10  # rows that a level is the mean of where there is no season


@dataclass(frozen=True)
class Trend:
    """A target whose level, the mean over some rows, moves before the test part."""

    target: str
    series: str  # the first one in which it does; "" where there is one alone
    others: int  # in which it does as well
    rows: int  # that a level is the mean of
    level: float  # of the last rows before the test part
    low: float  # the least of the training part
    high: float

    @property
    def outside(self) -> bool:
        """Whether the last level lies outside of all that is trained on."""
        return not self.low <= self.level <= self.high


def trend_of(
    target: str,
    season: int | None,
    series: Iterable[tuple[str, np.ndarray, np.ndarray]],
) -> Trend | None:
    """Return the trend of a target; None where its level stays.

    It moves where the mean of the last rows before the test part lies well outside of all such
    means of the training part, or where these means follow time nearly in a line.

    Args:
        target: its name.
        season: rows in one, which a level is the mean of, so that a season is no trend.
        series: of each the name, and the values of the training part and of all rows before the
            test part.
    """
    found: list[Trend] = []
    for name, train, before_test in series:
        rows = season if season is not None and 2 * season <= len(train) else _STRETCH
        if len(train) < 2 * rows or len(before_test) < _FEWEST * rows:
            continue
        known, levels = _levels(train, rows), _levels(before_test, rows)
        low, high, last = float(known.min()), float(known.max()), float(levels[-1])
        room = _OUTSIDE * (high - low)
        outside = not low - room <= last <= high + room
        if outside or abs(_correlation(levels)) > _CLEAR:
            found.append(Trend(target, name, 0, rows, last, low, high))
    if not found:
        return None
    return replace(found[0], others=len(found) - 1)


def _levels(values: np.ndarray, rows: int) -> np.ndarray:
    """Return the mean of every stretch of so many rows."""
    centre = values.mean()  # sums of numbers far from 0 lose digits
    sums = np.concatenate([[0.0], np.cumsum(values - centre)])
    return np.asarray((sums[rows:] - sums[:-rows]) / rows + centre)


def _correlation(levels: np.ndarray) -> float:
    """Return that of levels and time; 0 where nothing moves."""
    place, off = np.arange(len(levels)) - (len(levels) - 1) / 2, levels - levels.mean()
    size = float(np.sqrt((place**2).sum() * (off**2).sum()))
    return float((place * off).sum()) / size if size > 0 and np.isfinite(size) else 0.0
