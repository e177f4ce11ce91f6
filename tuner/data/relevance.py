"""Whether the other columns of a file help to forecast the target, by a linear forecast."""

from __future__ import annotations

import numpy as np

__all__ = ["gain_of_columns"]

_MOST_ROWS = 3000  # the last ones
_MOST_NUMBERS = 600  # that one forecast reads: of more columns fewer rows are read
_PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of standardized numbers
_FITTED = 0.75  # of the rows; what follows is forecast


def gain_of_columns(values: np.ndarray, targets: list[int], window: int, horizon: int) -> float:
    """Return by how much the error falls when all columns are read and not the targets alone.

    Args:
        values: the training part of one series, (rows, columns), without gaps.
        targets: which columns are forecast.
        window: rows that are read.
        horizon: rows that are forecast.

    Returns:
        The share of the root mean squared error that the other columns take off, on the last
        quarter of the rows; below 0 where they harm, and where there are too few rows to tell.
    """
    spread = values.std(axis=0)
    seen = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    seen = seen[-_MOST_ROWS:]
    window = max(1, min(window, _MOST_NUMBERS // values.shape[1]))
    starts = np.arange(window, len(seen) - horizon + 1)
    fitted = int(len(starts) * _FITTED)
    if fitted < 2 * window or len(starts) - fitted < 8:
        return -1.0
    coming = np.concatenate([seen[starts + k][:, targets] for k in range(horizon)], axis=1)
    past = np.stack([seen[starts - k] for k in range(1, window + 1)], axis=1)
    errors = [
        _error(read.reshape(len(starts), -1), coming, fitted)
        for read in (past[:, :, targets], past)
    ]
    return 1.0 - errors[1] / errors[0] if errors[0] > 0 else -1.0


def _error(read: np.ndarray, coming: np.ndarray, fitted: int) -> float:
    """Return the least error, over the penalties, of a ridge regression on the rows after."""
    read = read - read[:fitted].mean(axis=0)
    level = coming[:fitted].mean(axis=0)
    products, wanted = read[:fitted].T @ read[:fitted], read[:fitted].T @ (coming[:fitted] - level)
    errors = []
    for penalty in _PENALTIES:
        weights = np.linalg.solve(products + penalty * np.eye(len(products)), wanted)
        errors.append(((read[fitted:] @ weights + level - coming[fitted:]) ** 2).mean())
    return float(np.sqrt(min(errors)))
