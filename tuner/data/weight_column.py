"""The column that says what each row counts in loss and metric (`data.weight`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.data.preparation import Preparation
from tuner.data.tables import RawTable, as_numbers, refusal
from tuner.errors import nearest

__all__ = ["row_weights"]

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
