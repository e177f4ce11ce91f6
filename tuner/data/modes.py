"""Empirical mode decomposition: the intrinsic mode functions of each window, by itself."""

from __future__ import annotations

import importlib.util
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuner.data.reference import SeriesRef
from tuner.data.scratch import save_arrays
from tuner.data.tables import refusal

if TYPE_CHECKING:
    from tuner.data.splitting import Parts
    from tuner.experiment import Experiment

__all__ = [
    "INSTALL",
    "MOST_BYTES",
    "MOST_WINDOWS",
    "check_modes",
    "emd_is_installed",
    "modes_of",
    "save_modes",
]

INSTALL = "pip install 'lstm-tuner[emd]'"

MOST_WINDOWS = 200_000
"""In a search: each takes 2 ms where it has 24 rows, 9 ms where it has 336."""
MOST_BYTES = 2**31
"""Of all windows of a search together."""


def emd_is_installed() -> bool:
    """Say whether there is a library that decomposes."""
    return importlib.util.find_spec("PyEMD") is not None


def modes_of(windows: np.ndarray, modes: int) -> np.ndarray:
    """Return the first intrinsic mode functions of windows.

    The empirical mode decomposition of Huang et al. (1998), "The empirical mode decomposition and
    the Hilbert spectrum for nonlinear and non-stationary time series analysis", by EMD-signal. What
    is said of a window follows from it alone: neither rows after it nor rows before it play a role.

    Args:
        windows: (windows, rows, targets).
        modes: how many of each target, the fastest first; a window that has fewer gets zeros.

    Returns:
        (windows, rows, targets * modes), float32; the modes of a target stand side by side.
    """
    with warnings.catch_warnings():  # of its other parts, when it is imported
        warnings.simplefilter("ignore")
        from PyEMD import EMD
    n, rows, targets = windows.shape
    found = np.zeros((n, rows, targets, modes), np.float32)
    if rows < 3:
        return found.reshape(n, rows, targets * modes)  # nothing swings
    emd = EMD()
    values = windows.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # of windows that hardly swing
        for i, at in np.ndindex(n, targets):
            emd.emd(values[i, :, at], max_imf=modes)
            functions, _ = emd.get_imfs_and_residue()
            found[i, :, at, : len(functions)] = np.transpose(functions)
    return found.reshape(n, rows, targets * modes)


def save_modes(ref: SeriesRef, experiment: Experiment, folder: Path, *, trains: bool) -> None:
    """Write the modes of every window that a trial may read, of each length an array.

    Args:
        ref: of the arrays that are there.
        experiment: says how long windows may be.
        folder: where they are written.
        trains: whether the training part is read as well, not the evaluation part alone.
    """
    for window in _windows(experiment) if ref.shape.modes else ():
        own = ref.with_window(window)
        samples = own.evaluate_samples()
        if trains:
            samples = np.union1d(own.train_samples(), samples)
        save_arrays(folder, {f"modes_{window}": _modes_before(ref, window, samples)})


def _modes_before(ref: SeriesRef, window: int, samples: np.ndarray) -> np.ndarray:
    """Return the array `modes_N` of the windows of N rows before some samples."""
    targets = ref.load("inputs")[:, list(ref.shape.target_columns)]
    width = ref.shape.modes * ref.shape.targets
    found = np.full((max(len(targets) - window + 1, 0), window, width), np.nan, np.float32)
    if len(samples):
        rows = np.lib.stride_tricks.sliding_window_view(targets, window, axis=0).swapaxes(1, 2)
        begins = samples - window
        found[begins] = modes_of(rows[begins], ref.shape.modes)
    return found


def _windows(experiment: Experiment) -> list[int]:
    """Return how many rows a forecast may read: by a trial, by default, or as it is fixed."""
    domain, given = experiment.search_space.get("window"), experiment.given("window")
    if domain is None:
        return [given]
    searched = domain.bounds()
    if domain.type == "int":
        searched = tuple(range(domain.low, domain.high + 1, domain.step))
    longest = max(searched)
    return sorted({*searched, min(given, longest), min(experiment.task.window, longest)})


def check_modes(experiment: Experiment, path: Path, parts: Parts, n_targets: int) -> None:
    """Refuse modes that cannot be found, or would take too long or too much memory.

    Args:
        experiment: says what is decomposed, or may be by a trial.
        path: of the data.
        parts: of which rows each fold is.
        n_targets: of the series.

    Raises:
        DataError: naming file, key, rule, value and remedy.
    """
    searched, key = experiment.search_space.get("decompose"), "data.decompose"
    chosen = [experiment.data.decompose]
    if searched is not None:
        key = "search_space.decompose"
        chosen = [
            experiment.prepared_as({"decompose": choice}).data.decompose
            for choice in searched.bounds()
        ]
    n_modes = [each.components - 1 for each in chosen if each != "none" and each.components]
    if not n_modes:
        return
    n_others = math.prod(  # preparations that are written besides
        len(domain.bounds())
        for name in experiment.preparation({})
        if name != "decompose" and (domain := experiment.search_space.get(name))
    )
    windows, folds = _windows(experiment), list(zip(parts.train, parts.validation, strict=True))
    rows = (
        n_targets * n_others * sum(int(np.diff(part).sum()) for fold in folds for part in fold)
    )  # that are forecast first, in each fold
    n_windows = rows * len(windows) * len(n_modes)
    held = n_targets * n_others * sum(int(validation[:, 1].sum()) for _, validation in folds)
    n_bytes = 4 * held * sum(windows) * sum(n_modes)
    if not emd_is_installed():
        raise refusal(path, key, f"emd needs EMD-signal, which is not installed; {INSTALL}")
    remedy = "write moving_average, fewer or shorter windows in search_space.window, or less data"
    if n_windows > MOST_WINDOWS:
        text = f"emd splits each window, {MOST_WINDOWS:,} at most, got {n_windows:,}; {remedy}"
        raise refusal(path, key, text)
    if n_bytes > MOST_BYTES:
        text = f"emd keeps {MOST_BYTES / 1e9:.1f} GB of windows at most, got {n_bytes / 1e9:.1f} GB"
        raise refusal(path, key, f"{text}; {remedy}")
