"""What targets count in loss and metric: `data.weight` of rows, `task.step_weights` of steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.data.preparation import Preparation
from tuner.data.tables import RawTable, as_numbers, refusal
from tuner.errors import nearest

__all__ = ["counting_windows", "row_weights", "weights_of_windows"]

_LARGEST = 1e30  # a float32 still holds it


def row_weights(table: RawTable, data: Preparation, targets: Sequence[np.ndarray]) -> np.ndarray:
    """Return what each row counts, (rows,), 0 or more; 0 where neither weight nor target is given.

    Args:
        table: with the column that `data.weight` names.
        data: names it.
        targets: (rows,) each, nan where there is no value.

    Raises:
        DataError: a weight is missing beside a target, is negative, or no number.
    """
    name = data.weight
    assert name is not None
    if name not in table.names:
        text = f"no column {name!r} in the file{nearest(name, table.names)}"
        raise refusal(table.path, "data.weight", text)
    if doubt := table.doubts.get(name):
        problem = doubt.problem.format(place=table.place_of(doubt.row))
        raise refusal(table.path, "data.weight", f"column {name!r} {problem}; {doubt.remedy}")
    column = table.frame[name]
    values, bad = as_numbers(column)
    must = f"column {name!r} must hold a number from 0 to below 1e30 in every row, got "
    for row in bad[:1]:
        text = f"{must}{column.iloc[row]!r} in {table.place_of(int(row))}; write a number there"
        raise refusal(table.path, "data.weight", text)
    missing = np.isnan(values)
    wanted = np.zeros(len(values), bool)
    for target in targets:
        wanted |= ~np.isnan(target)
    for row in np.flatnonzero(missing & wanted)[:1]:
        text = f"{must}none in {table.place_of(int(row))}; fill it in: 0 leaves the row out"
        raise refusal(table.path, "data.weight", text)
    for row in np.flatnonzero((values < 0) | (values >= _LARGEST))[:1]:
        remedy = "correct it: 0 leaves the row out"
        text = f"{must}{values[row]:g} in {table.place_of(int(row))}; {remedy}"
        raise refusal(table.path, "data.weight", text)
    return np.where(missing, 0.0, values)


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
