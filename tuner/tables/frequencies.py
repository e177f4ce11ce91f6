"""Rows in time: their order, frequency, gaps, holidays and season.

A frequency is one of pandas, or `C-Sun-Mon-Tue`: custom business days, of which pandas has no name
for those of one weekmask.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

from tuner.errors import DataError
from tuner.pipeline_steps import Dialect
from tuner.tables.timestamps import as_times, possible_orders, show_time, some_ambiguous


def bounds_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the rows [start, end) of stretches that stand one after another, (stretches, 2)."""
    ends = np.cumsum(lengths)
    return np.column_stack([ends - np.asarray(lengths), ends])


def rows_of(bounds: np.ndarray) -> np.ndarray:
    """Return the rows of stretches [start, end), (stretches, 2), one after another: (rows,)."""
    return np.concatenate([np.arange(start, end) for start, end in bounds])


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
    """Return whether all open days without rows may be holidays: they are few, in short breaks."""
    if not are_open_days(frequency) or not few_enough(len(missing), len(every)):
        return False
    return len(in_short_breaks(missing, every)) == len(missing)


def are_open_days(frequency: str | None) -> bool:
    """Return whether a frequency is one of days of the week, of which some may be holidays."""
    return frequency is not None and (frequency == "B" or frequency.startswith("C-"))


def few_enough(n_missing: int, n_every: int) -> bool:
    """Return whether so many open days without a row may be holidays: some, and not many."""
    return 0 < n_missing <= _MOST_SHARE * n_every


def in_short_breaks(missing: pd.DatetimeIndex, every: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return the missing days that are in short breaks: each may be a holiday."""
    if not len(missing):
        return missing
    starts = np.diff(every.searchsorted(missing), prepend=-2) > 1
    lengths = np.bincount(np.cumsum(starts) - 1)
    return missing[np.repeat(lengths <= _MOST_HOLIDAYS, lengths)]


_STRETCHES = (10, 5, 3)  # rows on which a frequency is looked for where the whole has none
_STRETCHES_TRIED = 200
_FEW = 1000  # steps that a series may span, however few rows it has


def where_falling(
    times: pd.DatetimeIndex, bounds: np.ndarray, *, may_repeat: bool = False
) -> np.ndarray:
    """Return the rows whose time does not come after that of the row before in their series.

    Args:
        bounds: (series, 2), the rows [start, end) of each.
    """
    falls = times[1:] < times[:-1] if may_repeat else times[1:] <= times[:-1]
    falls[bounds[:-1, 1] - 1] = False  # from one series to the next
    return np.flatnonzero(falls) + 1


def find_frequency(times: pd.DatetimeIndex) -> str | None:
    """Return the frequency that hits each of at least three rising times, gaps allowed, or None.

    Days that leave some days of the week out have a frequency of the others.
    """
    frequency = _infer(times)
    if frequency is not None and _hits(times, frequency):
        return frequency
    frequency = _frequent(times)
    if frequency in (None, "D") and len((times - times.normalize()).unique()) == 1:
        open_days = open_days_of(times)
        if open_days is not None:
            every = _steps(times, open_days)
            if len(every) == len(times) or holidays_in(every.difference(times), every, open_days):
                return open_days
    return frequency


def _frequent(times: pd.DatetimeIndex) -> str | None:
    """Return the frequency with the fewest gaps, of those that stretches of the times have."""
    candidates: dict[str, int] = {}
    for length in _STRETCHES:
        last = len(times) - length
        for start in np.unique(np.linspace(0, last, _STRETCHES_TRIED).astype(int)):
            stretch = times[start : start + length] if start >= 0 else times[:0]
            for found in _guesses(stretch):
                if found not in candidates and _fits(times, found):
                    candidates[found] = len(every_time(times, found))
    return min(candidates, key=lambda f: candidates[f], default=None)  # the fewest gaps


def common_frequency(series: list[pd.DatetimeIndex]) -> str | None:
    """Return the frequency whose steps hit every time of every series, gaps allowed, or None.

    Args:
        series: the times of each, rising; one of less than three times only has to fit.
    """
    stretches = list({times.asi8.tobytes(): times for times in series}.values())
    if len(stretches) == 1:
        return find_frequency(stretches[0]) if len(stretches[0]) > 2 else None
    found: list[str] = []
    sparse = set()  # without a frequency of their own: they may have more gaps than rows
    for i, times in enumerate(stretches):
        if not any(_fits(times, frequency) for frequency in found):
            own = find_frequency(times) if len(times) > 2 else None
            found += [] if own is None else [own]
            sparse |= {i} if own is None else set()
    fitting = [
        frequency
        for frequency in found
        if all(_fits(t, frequency, _FEW if i in sparse else 0) for i, t in enumerate(stretches))
    ]
    return min(fitting, key=lambda f: sum(len(every_time(t, f)) for t in stretches), default=None)


def find_gaps(
    times: pd.DatetimeIndex, frequency: str, holidays: bool | None = None
) -> pd.DatetimeIndex:
    """Return the times that are missing between the first and the last."""
    return every_time(times, frequency, holidays).difference(times)


def every_time(
    times: pd.DatetimeIndex, frequency: str, holidays: bool | None = None
) -> pd.DatetimeIndex:
    """Return every step from the first of some rising times to the last, but for holidays."""
    return _steps(times, frequency).difference(find_holidays(times, frequency, holidays))


def find_holidays(
    times: pd.DatetimeIndex, frequency: str, holidays: bool | None = None
) -> pd.DatetimeIndex:
    """Return the open days without a row that are holidays.

    Args:
        times: rising.
        holidays: whether there are any: days in short breaks. By default all days without a row
            are, or none.
    """
    every = _steps(times, frequency)
    missing = every.difference(times)
    if holidays is not None:
        return in_short_breaks(missing, every) if holidays else missing[:0]
    are = holidays_in(missing, every, frequency) and times.isin(every).all()
    return missing if are else missing[:0]


def _steps(times: pd.DatetimeIndex, frequency: str) -> pd.DatetimeIndex:
    return pd.date_range(times[0], times[-1], freq=offset_of(frequency), unit=times.unit)


def following(times: pd.DatetimeIndex, frequency: str | None, n_rows: int) -> pd.DatetimeIndex:
    """Return so many times after the last one; NaT where there is no frequency."""
    if frequency is None:
        return pd.DatetimeIndex([pd.NaT] * n_rows, dtype=times.dtype)
    offset = offset_of(frequency)
    return pd.date_range(times[-1], periods=n_rows + 1, freq=offset, unit=times.unit)[1:]


def keeps(times: pd.DatetimeIndex, frequency: str) -> bool:
    """Return whether a frequency hits every one of rising times, without too many gaps."""
    return _fits(times, frequency, _FEW)


def _infer(times: pd.DatetimeIndex) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 4 will return an offset instead of its name
        found: Any = pd.infer_freq(times)
    return None if found is None else str(getattr(found, "freqstr", found))


def _guesses(times: pd.DatetimeIndex) -> list[str]:
    """Return frequencies that a stretch of times may have; none where there are none to see.

    Pandas knows the fourth Friday of a month, and not the last one, which it may also be.
    """
    found = _infer(times) if len(times) else None
    if found is None:
        return []
    of_month = re.fullmatch(r"WOM-\d([A-Z]{3})", found)
    return [found, f"LWOM-{of_month[1]}"] if of_month else [found]


def _hits(times: pd.DatetimeIndex, frequency: str) -> bool:
    return bool(times.isin(_steps(times, frequency)).all())


def _fits(times: pd.DatetimeIndex, frequency: str, least: int = 0) -> bool:
    step = (times[0] + offset_of(frequency)) - times[0]
    most = max(4 * len(times), least)  # or there are more gaps than rows
    return bool((times[-1] - times[0]) / step < most) and _hits(times, frequency)


_STEPS_PER_CYCLE = {
    "s": 86_400, "min": 1_440, "h": 24,  # a day
    "D": 7, "B": 5,  # a week
    "W": 52, "MS": 12, "ME": 12, "BMS": 12, "BME": 12, "WOM": 12, "LWOM": 12,  # a year
    "QS": 4, "QE": 4, "BQS": 4, "BQE": 4,
}  # fmt: skip


def season_of(frequency: str | None) -> int | None:
    """Return the rows in a season at a pandas frequency; None where there is no usual one.

    Hours and less repeat daily, days weekly, weeks, months and quarters yearly.
    """
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(-.+)?", frequency or "")
    if match is None:
        return None
    if match[2] == "C":
        return (match[3] or "").count("-")  # days of a week that are open
    steps, multiple = _STEPS_PER_CYCLE.get(match[2], 0), int(match[1] or 1)
    return steps // multiple if steps > multiple and steps % multiple == 0 else None


@dataclass(frozen=True, eq=False)
class Ordered:
    """The rows of series, one series after another."""

    rows: np.ndarray  # (n,), of the file
    bounds: np.ndarray  # (series, 2), the rows [start, end) of each
    times: pd.DatetimeIndex  # (n,)
    notes: tuple[str, ...] = ()  # what was done to them

    def recorded_in(self, dialect: Dialect) -> Dialect:
        """Return the dialect with what was done to the rows as keys."""
        done: dict[str, Any] = {note.partition(":")[0]: True for note in self.notes}
        return replace(dialect, **done)

    def taken(self, places: np.ndarray, note: str = "") -> Ordered:
        """Return the rows that stand at some places, which keep series together."""
        of = self.bounds[:, 1].searchsorted(places, side="right")
        return Ordered(
            self.rows[places],
            bounds_of(np.bincount(of, minlength=len(self.bounds))),
            self.times[places],
            (*self.notes, note) if note else self.notes,
        )


def in_order(
    given: Ordered,
    frame: pd.DataFrame,
    *,
    sort: bool | None,
    drop_duplicates: bool | None,
    may_repeat: bool,
) -> Ordered:
    """Return rows without exact copies and sorted by time, where that is declared or certain.

    Args:
        sort: whether rows are sorted; None reverses them where all fall.
        drop_duplicates: None drops copies where times may not repeat, unless clocks went back.
        may_repeat: whether several rows of one time are resampled to one.
    """
    found = given
    copies = np.zeros(len(frame), bool)
    if drop_duplicates or (drop_duplicates is None and not may_repeat):
        copies = frame.duplicated().to_numpy()
    copied = copies[found.rows]
    certain = drop_duplicates or not any(
        zone_of_change(time) for time in found.times[copied].unique()[:1000]
    )
    if copied.any() and certain:
        n = int(copied.sum())
        text = "1 row is an exact copy of another" if n == 1 else f"{n} rows are exact copies"
        found = found.taken(np.flatnonzero(~copied), f"drop_duplicates: {text}, left out")
    falling = falls_throughout(found.times, found.bounds)
    if sort or (sort is None and falling):
        of = np.repeat(np.arange(len(found.bounds)), np.diff(found.bounds)[:, 0])
        places = np.arange(len(of))
        if falling:
            places = places[::-1]
        places = places[np.lexsort((found.times.asi8[places], of[places]))]
        if not np.array_equal(places, np.arange(len(of))):
            text = "times fall from row to row" if falling else "rows are not in order of time"
            found = found.taken(places, f"sort: {text}, sorted")
    return found


def falls_throughout(times: pd.DatetimeIndex, bounds: np.ndarray) -> bool:
    """Return whether times fall from row to row in every series, some perhaps repeated."""
    steps = np.diff(times.asi8)
    inside = np.ones(len(steps), bool)
    inside[bounds[:-1, 1] - 1] = False  # from one series to the next
    steps = steps[inside]
    return bool(len(steps) and (steps <= 0).all() and (steps < 0).any())


def zone_of_change(time: pd.Timestamp) -> str:
    """Return a time zone in which clocks go back around a local time; "" where none do."""
    if time.tz is not None or time.weekday() != 6 or not 0 <= time.hour <= 3:
        return ""
    last_of_month = time.day + 7 > time.days_in_month
    if time.month == 10 and last_of_month:
        return {1: "Europe/London", 3: "Europe/Helsinki"}.get(time.hour, "Europe/Berlin")
    if time.month == 11 and time.day <= 7:
        return "America/New_York"
    return "Australia/Sydney" if time.month == 4 and time.day <= 7 else ""


_REMEDY = "write them as 2020-01-31 if that is wrong"


@dataclass(frozen=True)
class DateOrder:
    """The order in which texts of dates such as 01/02/2020 were read."""

    day_first: bool | None = None  # None where there are no such texts, or both would be the same
    chosen: str = ""  # an example of a reading, where no date alone decides
    in_doubt: bool = False  # the other order would have been as good

    @property
    def layout(self) -> str:
        """The order in words."""
        return "day/month/year" if self.day_first else "month/day/year"

    @property
    def note(self) -> str:
        """A note on a choice that no date alone decides; "" of any other."""
        return f"read as {self.layout}, {self.chosen}; {_REMEDY}" if self.chosen else ""

    def explain(self, error: DataError) -> DataError:
        """Return a refusal of times, with the order added where that may be the reason."""
        if not self.in_doubt:
            return error
        got = f"{error.got} (dates read as {self.layout}, {self.chosen})"
        remedy = f"{_REMEDY}, {error.remedy}" if error.remedy else _REMEDY
        return error.with_(got=got, remedy=remedy)


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
        bounds: (series, 2), the rows [start, end) of each.
        known: how they were read in training, which is not asked again.
        frequency: that they must keep; by default any.
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
