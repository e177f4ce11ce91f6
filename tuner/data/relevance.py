"""Which other columns of a file help to forecast the target, by a linear forecast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["columns_that_help", "gain_of_columns"]

_HELPS = 0.02  # least share of the error that a column takes off
_MOST_ROWS = 3000  # the last ones
_MOST_NUMBERS = 300  # that one forecast reads: of more columns fewer rows are read
_MOST_LOOKED_AT = 60_000  # rows of all series
_MOST_TRIED = 6  # columns that are tried together, of those that help most alone
_FIRST_LOOK = (1000, 60)  # rows and numbers by which these are found
_PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of standardized numbers
_FITTED = 0.75  # of the rows; what follows is forecast


def columns_that_help(
    parts: Sequence[np.ndarray], targets: list[int], others: list[int], window: int, horizon: int
) -> tuple[list[int], float]:
    """Choose columns one by one, each the one that takes most off the error beside the chosen.

    All of them are taken where that is better than those by more than one column must be: some
    help together alone.

    Args:
        parts: the training part of each series, (rows, columns), without gaps.
        targets: which columns are forecast, and read in any case.
        others: which columns may be read besides.
        window: rows that are read.
        horizon: rows that are forecast.

    Returns:
        Which of `others` are read, rising, and the share of the error that they take off.
    """
    parts = _some(sorted(parts, key=len, reverse=True))
    together = len(targets) + min(len(others), _MOST_TRIED)
    one_by_one = max(1, min(window, _MOST_NUMBERS // together))  # rows, the same for all sets

    def gain(
        columns: list[int], rows: int, most: tuple[int, int] = (_MOST_ROWS, _MOST_NUMBERS)
    ) -> float:
        read = [*targets, *columns]
        at = list(range(len(targets)))
        gains = [gain_of_columns(p[:, read], at, rows, horizon, most) for p in parts]
        return float(np.median(gains)) if gains else -1.0

    alone = {c: gain([c], window, _FIRST_LOOK) for c in others}
    tried = sorted(alone, key=lambda c: -alone[c])[:_MOST_TRIED]
    chosen: list[int] = []
    best = 0.0
    while tried:
        gains = {c: gain([*chosen, c], one_by_one) for c in tried}
        found = max(gains, key=lambda c: gains[c])
        if 1.0 - gains[found] > (1.0 - best) * (1.0 - _HELPS):
            break
        chosen, best = [*chosen, found], gains[found]
        tried = [c for c in tried if c != found]
    if len(others) > max(1, len(chosen)):
        of_all = gain(others, window)
        if 1.0 - of_all <= (1.0 - best) * (1.0 - _HELPS):
            return sorted(others), of_all
    return sorted(chosen), best


def gain_of_columns(
    values: np.ndarray,
    targets: list[int],
    window: int,
    horizon: int,
    most: tuple[int, int] = (_MOST_ROWS, _MOST_NUMBERS),
) -> float:
    """Return by how much the error falls when all columns are read and not the targets alone.

    Args:
        values: the training part of one series, (rows, columns), without gaps.
        targets: which columns are forecast.
        window: rows that are read.
        horizon: rows that are forecast.
        most: rows that are looked at, the last ones, and numbers that one forecast reads.

    Returns:
        The share of the root mean squared error that the other columns take off, on the last
        quarter of the rows; below 0 where they harm, and where there are too few rows to tell.
    """
    most_rows, most_numbers = most
    spread = values.std(axis=0)
    seen = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    seen = seen[-most_rows:]
    window = max(1, min(window, most_numbers // values.shape[1]))
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


def _some(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return as many series, the first ones, as are looked at."""
    taken, rows = [], 0
    for part in parts:
        if rows >= _MOST_LOOKED_AT:
            break
        taken.append(part)
        rows += min(len(part), _MOST_ROWS)
    return taken


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
