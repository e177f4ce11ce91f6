"""The reference that a job carries: where the prepared arrays are, and what their rows mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["DataRef"]


@dataclass(frozen=True)
class DataRef:
    """Prepared arrays in a folder of .npy files, and where the parts begin in them.

    A window that forecasts from row t reads the input rows [t - window, t) and forecasts the
    target rows [t, t + horizon).
    """

    folder: str
    window: int
    horizon: int
    train: tuple[int, int]  # rows [start, end) whose targets are trained on; no window reads before
    evaluate: tuple[int, int]  # rows that are scored: validation, or the test part once it is open
    transform: str  # none | log | difference, of the target columns
    offset: tuple[float, ...]  # of the target columns: scaled = (transformed - offset) / scale
    scale: tuple[float, ...]

    def inputs(self) -> np.ndarray:
        """Return the scaled input columns: (rows, features), float32, read-only.

        Under the transform `difference` a target column has no value in row 0: it is nan there.
        """
        return self._load("inputs")

    def targets(self) -> np.ndarray:
        """Return the scaled target columns: (rows, targets), float32, read-only."""
        return self._load("targets")

    def truth(self) -> np.ndarray:
        """Return the target columns in the data's units: (rows, targets), float64, read-only."""
        return self._load("truth")

    def starts(self, part: tuple[int, int]) -> np.ndarray:
        """Return the first target row of every window whose targets all lie in `part`.

        Inputs may look back over the part's beginning, never before the training part's.
        """
        first = max(part[0], self.train[0] + self.window)
        return np.arange(first, max(first, part[1] - self.horizon + 1))

    def invert(self, scaled: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Bring forecasts back to the data's units.

        Args:
            scaled: (windows, horizon, targets), as a model forecasts them.
            starts: (windows,), the first target row of each.

        Returns:
            (windows, horizon, targets), float64; infinite where a forecast is absurd.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(scaled, np.float64) * np.array(self.scale) + np.array(self.offset)
            if self.transform == "log":
                values = np.exp(values)
            if self.transform == "difference":
                values = self.truth()[starts - 1][:, None, :] + values.cumsum(axis=1)
        return np.asarray(values)

    def _load(self, name: str) -> np.ndarray:
        array: np.ndarray = np.load(Path(self.folder) / f"{name}.npy", mmap_mode="r")
        return array
