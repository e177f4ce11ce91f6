"""Writes arrays as the data preparation does, for tests of what comes after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tuner.data import SeriesRef, Shape


def write_series(
    folder: Path,
    targets: np.ndarray,
    *,
    train_end: int,
    window: int = 8,
    horizon: int = 1,
    inputs: np.ndarray | None = None,
) -> SeriesRef:
    """One series, (rows, targets), scaled by nothing: trained on up to `train_end`, then scored."""
    inputs = targets if inputs is None else inputs
    n_rows, n_targets = targets.shape
    np.save(folder / "inputs.npy", inputs.astype(np.float32))
    np.save(folder / "targets.npy", targets.astype(np.float32))
    np.save(folder / "truth.npy", targets.astype(np.float64))
    np.save(folder / "known.npy", np.ones(n_rows, bool))
    np.save(folder / "train.npy", np.array([[0, train_end]]))
    np.save(folder / "evaluate.npy", np.array([[train_end, n_rows]]))
    np.save(folder / "naive.npy", np.ones((1, n_targets)))
    np.save(folder / "reach.npy", np.array([[0, n_rows]]))
    return SeriesRef(
        folder=str(folder),
        shape=Shape("forecast", inputs.shape[1], horizon=horizon, targets=n_targets),
        window=window,
        longest_window=window,
        offset=(0.0,) * n_targets,
        scale=(1.0,) * n_targets,
    )
