"""Whether open days without a row are holidays, as the training part alone tells."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tuner.data.filling import even_rows
from tuner.data.open_days import are_open_days, few_enough
from tuner.data.preparation import Preparation
from tuner.data.reading import Series
from tuner.data.splitting import Parts
from tuner.data.times import find_holidays
from tuner.errors import DataError

__all__ = ["has_holidays"]


def has_holidays(
    read: Series, data: Preparation, split: Callable[[Series, np.ndarray], Parts]
) -> bool | None:
    """Say whether series of open days have holidays; None where it is of no use to decide.

    They have some where few of the open days of the training part are without a row, long breaks
    aside. Where it has none, a day without a row is a gap.
    With holidays there are fewer rows, so the training part may end elsewhere: what is before
    both of its ends decides. What is later, in the test part say, moves nothing.

    Args:
        read: the series, as they were read.
        data: says what is done about missing rows.
        split: returns the parts of series with even rows, the first (series,) rows of each aside.
    """
    frequency = read.frequency
    if frequency is None or not are_open_days(frequency):
        return None
    refuses = data.missing == "refuse"
    lengths: list[list[int]] = []  # of each series' training part, in rows that were read
    for holidays in (True,) if refuses else (True, False):
        with contextlib.suppress(DataError):  # refused later on, if it comes to that
            even = even_rows(replace(read, holidays=holidays), data)
            ends = split(even, np.zeros(len(even.names), int)).train[0][:, 1]
            lengths.append(
                [
                    int(read.times_of(i).searchsorted(even.times_of(i)[:end].max(), side="right"))
                    if end
                    else 0
                    for i, end in enumerate(ends)
                ]
            )
    if not lengths:
        return None
    n_missing = n_every = 0
    for i, length in enumerate(np.min(lengths, axis=0)):
        if length:
            closed = len(find_holidays(read.times_of(i)[:length], frequency, holidays=True))
            n_missing += closed
            n_every += closed + int(length)
    return few_enough(n_missing, n_every) or (None if refuses else False)
