"""What the targets of windows count, by the weights of rows and of the horizon's steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["counting_windows", "weights_of_windows"]


def weights_of_windows(
    rows: np.ndarray | None, steps: Sequence[float], starts: np.ndarray, horizon: int
) -> np.ndarray:
    """Return what each target row of windows counts, (windows, horizon), float64.

    Args:
        rows: (rows,), or None where all count alike.
        steps: (horizon,), or empty where all count alike.
        starts: (windows,), the first target row of each.
        horizon: rows.
    """
    of_steps = np.asarray(steps, np.float64) if len(steps) else np.ones(horizon)
    if rows is None:
        return np.tile(of_steps, (len(starts), 1))
    return np.asarray(rows[starts[:, None] + np.arange(horizon)] * of_steps)


def counting_windows(
    rows: np.ndarray, steps: Sequence[float], starts: np.ndarray, horizon: int
) -> np.ndarray:
    """Return which windows have a target that counts, (windows,), bool."""
    if (rows > 0).all():
        return np.ones(len(starts), bool)
    found = np.zeros(len(starts), bool)
    for step in range(horizon):
        if not len(steps) or steps[step] > 0:
            found |= rows[starts + step] > 0
    return found
