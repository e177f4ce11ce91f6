"""Writes arrays as the data preparation does, for tests of what comes after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tuner.data import SeriesRef, Shape


def write_series(
    folder: Path,
    targets: np.ndarray,
    inputs: np.ndarray | None = None,
    *,
    train_end: int,
    window: int = 8,
    longest_window: int | None = None,
    offset: float = 0.0,
    scale: float = 1.0,
    train: tuple[int, int] | None = None,
    evaluate: tuple[int, int] | None = None,
    **shape: Any,
) -> SeriesRef:
    """One series, (rows, targets): trained on up to `train_end`, then scored.

    Its units are `offset` and `scale` away from the targets; `shape` has fields of a `Shape`.
    """
    inputs = targets if inputs is None else inputs
    n_rows, n_targets = targets.shape
    arrays = {
        "inputs": inputs.astype(np.float32),
        "targets": targets.astype(np.float32),
        "truth": targets.astype(np.float64) * scale + offset,
        "known": np.ones(n_rows, bool),
        "train": np.array([train or (0, train_end)]),
        "evaluate": np.array([evaluate or (train_end, n_rows)]),
        "naive": np.ones((1, n_targets)),
        "reach": np.array([[0, n_rows]]),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return SeriesRef(
        folder=str(folder),
        shape=Shape("forecast", inputs.shape[1], targets=n_targets, **shape),
        window=window,
        longest_window=longest_window or window,
        offset=(offset,) * n_targets,
        scale=(scale,) * n_targets,
    )
