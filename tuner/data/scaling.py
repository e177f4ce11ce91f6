"""What columns are scaled by before a model sees them, and errors by MASE."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

__all__ = ["Scaler", "SeriesScaler", "naive_errors"]


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
        return cls(offset, np.where(_constant(rows) | (scale == 0), 1.0, scale))

    def sharing(self, other: Scaler, columns: Iterable[tuple[int, int]]) -> Scaler:
        """Return the scaler with that of `other` in some columns, (own column, other's column)."""
        return Scaler(*_shared(self, other, columns))

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return (values - offset) / scale as float32.

        What is far beyond all that was trained on is cut off, and so stays finite.
        """
        with np.errstate(over="ignore"):
            scaled = (values - self.offset) / self.scale
        return np.asarray(scaled.clip(-_LARGEST, _LARGEST).astype(np.float32))


@dataclass(frozen=True, eq=False)
class SeriesScaler:
    """A scaler of each series: its own, or that of all series."""

    offset: np.ndarray  # (series, columns)
    scale: np.ndarray  # (series, columns), never 0

    @classmethod
    def fit(cls, kind: str, values: np.ndarray, train: np.ndarray, of_all: Scaler) -> SeriesScaler:
        """Fit a scaler to the training rows of each series; nothing else is known to it.

        A series without any has the scaler of all series. So has a column that does not change in
        a series' training rows, such as a store's size: its own scale would be none, and what it
        tells would be lost.

        Args:
            kind: standard, minmax or none.
            values: (rows, columns), of series one after another.
            train: (series, 2), the rows [start, end) of each series that are trained on.
            of_all: fitted to the training rows of all series.
        """
        offset = np.tile(of_all.offset, (len(train), 1))
        scale = np.tile(of_all.scale, (len(train), 1))
        for i, (first, end) in enumerate(train):
            if first < end:
                rows = values[first:end]
                own, changes = Scaler.fit(kind, rows), ~_constant(rows)
                offset[i, changes], scale[i, changes] = own.offset[changes], own.scale[changes]
        return cls(offset, scale)

    def sharing(self, other: SeriesScaler, columns: Iterable[tuple[int, int]]) -> SeriesScaler:
        """Return the scalers with those of `other` in some columns, (own column, other's)."""
        return SeriesScaler(*_shared(self, other, columns))

    def of(self, series: int) -> Scaler:
        """Return the scaler of one of the series."""
        return Scaler(self.offset[series], self.scale[series])

    def transform(self, values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Scale series, whose rows are [start, end) of bounds, each by its own, as float32."""
        parts = [self.of(i).transform(values[slice(*rows)]) for i, rows in enumerate(bounds)]
        return np.concatenate(parts)


def _shared(
    own: Scaler | SeriesScaler,
    other: Scaler | SeriesScaler,
    columns: Iterable[tuple[int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Return offset and scale, (..., columns), with those of `other` in some columns."""
    offset, scale = own.offset.copy(), own.scale.copy()
    for column, of_other in columns:
        offset[..., column] = other.offset[..., of_other]
        scale[..., column] = other.scale[..., of_other]
    return offset, scale


def _constant(rows: np.ndarray) -> np.ndarray:
    """Return which columns are the same in all rows, (columns,)."""
    return np.asarray(np.ptp(rows, axis=0) == 0)


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
