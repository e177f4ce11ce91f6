"""What is done to columns before a model sees them: a transform of the targets, then scaling.

And what is done to errors: MASE divides them by those of a naive forecast.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tuner.data.reading import Series
from tuner.data.tables import refusal

__all__ = ["Scaler", "naive_errors", "transform_targets"]


_LARGEST = 1e30  # a float32 holds little more


@dataclass(frozen=True, eq=False)
class Scaler:
    """A shift and a stretch of every column."""

    offset: np.ndarray  # (columns,)
    scale: np.ndarray  # (columns,), never 0

    @classmethod
    def fit(cls, kind: str, rows: np.ndarray) -> Scaler:
        """Fit a scaler (standard, minmax or none) on training rows; nothing else is known to it."""
        n_columns = rows.shape[1]
        offset, scale = np.zeros(n_columns), np.ones(n_columns)
        if kind == "standard":
            offset, scale = rows.mean(axis=0), rows.std(axis=0)
        elif kind == "minmax":
            offset, scale = rows.min(axis=0), np.ptp(rows, axis=0)
        constant = (np.ptp(rows, axis=0) == 0) | (scale == 0)
        return cls(offset, np.where(constant, 1.0, scale))

    def sharing(self, other: Scaler, columns: Iterable[tuple[int, int]]) -> Scaler:
        """Return the scaler with that of `other` in some columns, (own column, other's column)."""
        offset, scale = self.offset.copy(), self.scale.copy()
        for own, of_other in columns:
            offset[own], scale[own] = other.offset[of_other], other.scale[of_other]
        return Scaler(offset, scale)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return (values - offset) / scale as float32.

        What is far beyond all that was trained on is cut off, and so stays finite.
        """
        with np.errstate(over="ignore"):
            scaled = (values - self.offset) / self.scale
        return np.asarray(scaled.clip(-_LARGEST, _LARGEST).astype(np.float32))


def transform_targets(series: Series, values: np.ndarray, kind: str) -> np.ndarray:
    """Return the targets (rows, targets) after the transform none, log or difference.

    Each row depends on itself and the row before it in its series; the first difference of each
    series is nan.

    Args:
        series: that the values are of.
        values: (rows, targets), filled in where the series has none.
        kind: none, log or difference.

    Raises:
        DataError: a value has no logarithm.
    """
    if kind == "log":
        if (values <= 0).any():
            row, at = np.argwhere(values <= 0)[0]
            name = series.targets[at]
            was_filled = bool(np.isnan(series.frame[name].to_numpy()[row]))
            column = f"{'filled into' if was_filled else 'in'} column {name!r}"
            remedy = "write data.missing: ffill, or transform: none"
            text = (
                f"log needs values above 0, got {values[row, at]} {column}, "
                f"{series.place(int(row))}; {remedy if was_filled else 'write transform: none'}"
            )
            raise refusal(series.path, "data.transform", text)
        return np.asarray(np.log(values))
    if kind == "difference":
        differences = np.diff(values, axis=0, prepend=np.nan)
        starts, ends = series.bounds.T
        differences[starts[ends > starts]] = np.nan
        return differences
    return values


def naive_errors(
    truth: np.ndarray, known: np.ndarray, train: np.ndarray, season: int
) -> np.ndarray:
    """Return what MASE divides by, (series, targets); nan where there is no such error.

    It is the mean absolute error, in the training rows of the series, of the forecast that a
    value is that of one season before (Hyndman and Koehler 2006, doi
    10.1016/j.ijforecast.2006.03.001). Values that were filled in are left out.

    Args:
        truth: (rows, targets).
        known: (rows, targets), bool.
        train: (series, 2), the rows [start, end) of each series that are trained on.
        season: rows in a season.
    """
    values = np.where(known, truth, np.nan)
    found = np.full((len(train), truth.shape[1]), np.nan)
    for i, (a, b) in enumerate(train):
        errors = np.abs(values[a + season : b] - values[a : max(a, b - season)])
        counts = (~np.isnan(errors)).sum(axis=0)
        sums = np.nansum(errors, axis=0)
        found[i] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return found
