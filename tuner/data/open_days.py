"""Days of the week on which there are rows, as a frequency; holidays, on which there are none.

Pandas calls them custom business days, and has no name for those of one weekmask: `C-Sun-Mon-Tue`
is such a name.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

__all__ = [
    "are_open_days",
    "few_enough",
    "holidays_in",
    "in_short_breaks",
    "offset_of",
    "open_days_of",
]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FEWEST_WEEKS = pd.Timedelta(weeks=4)  # in which a day of the week that is open has a row
_MOST_HOLIDAYS = 10  # open days, one after another: two weeks
_MOST_SHARE = 0.1  # of the open days may be holidays


def offset_of(frequency: str) -> BaseOffset:
    """Return the step of a frequency.

    Raises:
        ValueError: there is no such frequency.
    """
    if not frequency.startswith("C-"):
        return to_offset(frequency)
    days = frequency.removeprefix("C-").split("-")
    if not set(days) <= set(_DAYS):
        raise ValueError(f"no days of the week: {frequency}")
    return pd.offsets.CustomBusinessDay(weekmask=" ".join(days))


def open_days_of(times: pd.DatetimeIndex) -> str | None:
    """Return the frequency of the days of the week that rows of days are on; None if of all.

    Args:
        times: rising, at one time of day.
    """
    is_open = np.isin(np.arange(7), times.day_of_week)
    if is_open.all() or is_open.sum() < 2 or times[-1] - times[0] < _FEWEST_WEEKS:
        return None
    if is_open.tolist() == [True] * 5 + [False] * 2:
        return "B"
    return "C-" + "-".join(day for day, open_ in zip(_DAYS, is_open, strict=True) if open_)


def holidays_in(missing: pd.DatetimeIndex, every: pd.DatetimeIndex, frequency: str) -> bool:
    """Say whether all open days without rows may be holidays: they are few, and no long break.

    Args:
        missing: the open days without rows.
        every: all open days.
        frequency: of open days, or another one, which has no holidays.
    """
    if not are_open_days(frequency) or not few_enough(len(missing), len(every)):
        return False
    return len(in_short_breaks(missing, every)) == len(missing)


def are_open_days(frequency: str | None) -> bool:
    """Say whether a frequency is one of days of the week, of which some may be holidays."""
    return frequency is not None and (frequency == "B" or frequency.startswith("C-"))


def few_enough(n_missing: int, n_every: int) -> bool:
    """Say whether so many of the open days without a row may be holidays: some, and not many."""
    return 0 < n_missing <= _MOST_SHARE * n_every


def in_short_breaks(missing: pd.DatetimeIndex, every: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return the missing days that are in no long break: each may be a holiday."""
    if not len(missing):
        return missing
    starts = np.diff(every.searchsorted(missing), prepend=-2) > 1
    lengths = np.bincount(np.cumsum(starts) - 1)
    return missing[np.repeat(lengths <= _MOST_HOLIDAYS, lengths)]
