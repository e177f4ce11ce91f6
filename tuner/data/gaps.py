"""Which rows of series came from the file whole: windows that cross others may be left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuner.transform_steps import differences_of

if TYPE_CHECKING:
    from tuner.data.preparation import Preparation
    from tuner.data.reading import Series

__all__ = ["SKIP", "windows_without_gaps", "without_gaps"]

SKIP = "skip"
"""What `data.missing` says where windows that cross a gap are left out."""


def without_gaps(series: Series, data: Preparation) -> tuple[np.ndarray, np.ndarray]:
    """Return of which rows nothing that a model reads, and no target, rests on a missing value.

    Args:
        series: with even rows, nan where a value is missing.
        data: which columns are read; a lag or a difference rests on earlier rows as well.

    Returns:
        (rows,), bool, of what is read, and (rows, targets), bool, of the targets.
    """
    lacking = {str(name): series.frame[name].isna().to_numpy() for name in series.frame}
    for name in series.targets:
        for rows in differences_of(data.transform):
            lacking[name] = lacking[name] | _later(lacking[name], series.bounds, rows)
    read = [lacking[name] for name in {*series.features, *series.levels}]
    for name, lags in data.lags.items():
        read += [_later(lacking[name], series.bounds, lag) for lag in lags]
    targets = np.column_stack([lacking[name] for name in series.targets])
    return ~np.logical_or.reduce(read), ~targets


def windows_without_gaps(whole: np.ndarray, starts: np.ndarray, window: int) -> np.ndarray:
    """Return which windows read rows that are whole alone, (samples,), bool.

    Args:
        whole: (rows,), bool.
        starts: (samples,), the row after the last one that each reads.
        window: rows that are read.
    """
    broken = np.concatenate([[0], np.cumsum(~whole)])  # in the rows before
    return np.asarray(broken[starts] == broken[starts - window])


def _later(lacking: np.ndarray, bounds: np.ndarray, rows: int) -> np.ndarray:
    """Return which rows lack the value so many rows before them, in their series, (rows,)."""
    found = np.zeros(len(lacking), bool)
    for start, end in bounds:
        found[start + rows : end] = lacking[start : max(start, end - rows)]
    return found
