"""Which of 01/02/2020 is the day: what no single date tells, the times of all rows may."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuner.data.time_order import falls_throughout
from tuner.data.times import (
    as_times,
    common_frequency,
    find_gaps,
    keeps,
    possible_orders,
    show_time,
    some_ambiguous,
    where_falling,
)
from tuner.errors import DataError

__all__ = ["DateOrder", "order_of"]

_REMEDY = "write them as 2020-01-31 if that is wrong"


@dataclass(frozen=True)
class DateOrder:
    """How texts of dates such as 01/02/2020 were read."""

    day_first: bool | None = None  # None where there are no such texts, or both would be the same
    chosen: str = ""  # what one of them was read as, where no date alone tells
    in_doubt: bool = False  # the other order would have been as good

    @property
    def layout(self) -> str:
        """How people write it."""
        return "day/month/year" if self.day_first else "month/day/year"

    @property
    def note(self) -> str:
        """What is said of a choice that no date alone tells; "" of any other."""
        if not self.chosen:
            return ""
        return f"read as {self.layout}, {self.chosen}; {_REMEDY}"

    def blamed(self, error: DataError) -> DataError:
        """Return a refusal of times, with the order added where that may be the reason."""
        if not self.in_doubt:
            return error
        problem, _, remedy = str(error).rpartition("; ")
        text = f"{problem} (dates read as {self.layout}, {self.chosen})"
        return DataError(f"{text}; {_REMEDY}, {remedy}")


def order_of(
    column: pd.Series,
    bounds: np.ndarray,
    *,
    known: bool | None = None,
    frequency: str | None = None,
    may_repeat: bool = False,
) -> DateOrder:
    """Return how texts of dates are read.

    Where no date tells, it is the order in which the times of each series rise; if both do, the
    one in which they have a frequency; if both do, the one in which they have no gaps; and else
    the month first.

    Args:
        column: series by series.
        bounds: (series, 2), the rows [start, end) of each.
        known: how they were read in training, which is not asked again.
        frequency: that they must keep; by default any.
        may_repeat: whether times may.
    """
    if known is not None:
        return DateOrder(known)
    orders = possible_orders(column)
    if len(orders) < 2:
        return DateOrder(orders[0] if orders else None)
    if (example := some_ambiguous(column)) is None:
        return DateOrder(None)
    merits = [
        _merit(as_times(column, order), bounds, frequency, may_repeat=may_repeat)
        for order in orders
    ]
    day_first = merits[1] > merits[0]
    read = show_time(as_times(pd.Series([example]), day_first)[0])
    return DateOrder(day_first, f"{example} as {read}", in_doubt=merits[0] == merits[1])


def _merit(times: pd.Series, bounds: np.ndarray, frequency: str | None, *, may_repeat: bool) -> int:
    """Return 0 where times do not rise, 1 where they do, 2 with a frequency, 3 without gaps."""
    index = pd.DatetimeIndex(times)
    if not index.hasnans and falls_throughout(index, bounds):  # as rows that are sorted later
        index, bounds = index[::-1], len(index) - bounds[::-1, ::-1]
    if index.hasnans or len(where_falling(index, bounds, may_repeat=may_repeat)):
        return 0
    every = [index[start:end].unique() for start, end in bounds]
    if frequency is None:
        frequency = common_frequency(every)
    elif not all(keeps(of, frequency) for of in every):
        frequency = None
    if frequency is None:
        return 1
    return 2 if any(len(find_gaps(of, frequency)) for of in every) else 3
