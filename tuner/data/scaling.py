"""What is done to columns before a model sees them: a transform of the targets, then scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuner.data.reading import Series
from tuner.data.tables import refusal

__all__ = ["Scaler", "first_usable_row", "transform_targets"]


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

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return (values - offset) / scale."""
        return np.asarray((values - self.offset) / self.scale)

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """Return the values that `transform` made `scaled` of."""
        return np.asarray(scaled * self.scale + self.offset)


def first_usable_row(kind: str) -> int:
    """Return the first row that has a transformed value."""
    return 1 if kind == "difference" else 0


def transform_targets(series: Series, kind: str) -> np.ndarray:
    """Return the target columns (rows, targets) after the transform none, log or difference.

    Each row depends on itself and the row before it; the first difference is nan.

    Raises:
        DataError: a value has no logarithm.
    """
    values = series.frame[series.targets].to_numpy()
    if kind == "log":
        if (values <= 0).any():
            row, at = np.argwhere(values <= 0)[0]
            text = (
                f"log needs values above 0, got {values[row, at]} in column "
                f"{series.targets[at]!r}, {series.place(int(row))}; write transform: none"
            )
            raise refusal(series.path, "data.transform", text)
        return np.asarray(np.log(values))
    if kind == "difference":
        return np.diff(values, axis=0, prepend=np.nan)
    return values
