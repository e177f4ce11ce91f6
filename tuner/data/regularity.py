"""Whether the rows of series are evenly spaced, and as a model knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tuner.data.preparation import Preparation
from tuner.data.tables import place_of, refusal
from tuner.data.times import common_frequency, find_frequency, find_gaps, keeps, show_time

if TYPE_CHECKING:
    from tuner.data.reading import Series

__all__ = ["check_frequency", "check_regular", "ways_out"]

_STEPS = {  # with their days
    "1s": 1 / 86_400, "1min": 1 / 1440, "5min": 1 / 288, "15min": 1 / 96, "1h": 1 / 24, "6h": 0.25,
    "1D": 1.0, "7D": 7.0, "MS": 30.0, "QS": 91.0, "YS": 365.0,
}  # fmt: skip
_MONTHS = {"MS": 1, "QS": 3, "YS": 12}  # in a step; the others are of one length


def check_regular(series: Series, data: Preparation) -> str | None:
    """Return the frequency of series with times; None where they have too few rows for one.

    Raises:
        DataError: they have none in common, or rows are missing and `data.missing` refuses it.
    """
    every = [series.times_of(i) for i in range(len(series.names))]
    frequency = common_frequency(every)
    if frequency is None:
        if max(map(len, every)) < 3:
            return None
        raise _uneven(series, data, every)
    if data.missing == "refuse":
        _check_gaps(series, data, every, frequency)
    return frequency


def check_frequency(series: Series, data: Preparation, frequency: str) -> str:
    """Return the frequency that a model was trained on, where series with times keep it.

    Few rows may keep several: those of one working week are daily ones too. Where they keep it
    with gaps alone, it must be the one that would be found in them.

    Raises:
        DataError: they do not, or rows are missing and `data.missing` refuses it.
    """
    every = [series.times_of(i) for i in range(len(series.names))]
    if not all(keeps(times, frequency) for times in every) or (
        any(len(find_gaps(times, frequency, series.holidays)) for times in every)
        and common_frequency(every) not in (None, frequency)
    ):
        found = common_frequency(every)
        longest = max(every, key=len)
        got = found or (f"a first step of {_step(longest[1] - longest[0])}")
        text = f"the model was trained on rows at frequency {frequency}, got {got}; "
        raise refusal(series.path, "data.time", f"{text}give it rows at frequency {frequency}")
    if data.missing == "refuse":
        _check_gaps(series, data, every, frequency)
    return frequency


def ways_out(data: Preparation, *ways: str) -> str:
    """Say what helps: for one series alone, to do without times as well.

    Several would be cut each by its own rows: one be trained on what is later than another's test.
    """
    if data.id is None:
        ways = (*ways, "leave data.time out to take the rows as they come")
    return "; " + ", ".join([*ways[:-1], f"or {ways[-1]}" if len(ways) > 1 else ways[0]])


def _check_gaps(
    series: Series, data: Preparation, every: list[pd.DatetimeIndex], frequency: str
) -> None:
    for i, times in enumerate(every):
        missing = find_gaps(times, frequency, series.holidays)
        if len(missing):
            row = int(series.bounds[i, 0] + times.searchsorted(missing[0]))
            text = (
                f"times must have no gaps, got {len(missing)} missing at frequency {frequency}, "
                f"the first {show_time(missing[0])} before "
                f"{place_of(series.path, int(series.lines[row]), series.dialect)}{series.whose(i)}"
            )
            ways = ("add the rows", "write data.missing: ffill (or interpolate)")
            raise refusal(series.path, "data.time", text + ways_out(data, *ways))


def _uneven(series: Series, data: Preparation, every: list[pd.DatetimeIndex]) -> Exception:
    """Return the refusal of series that have no common frequency."""
    found = {i: find_frequency(times) for i, times in enumerate(every) if len(times) > 2}
    remedy = ways_out(data, _resampling(every))
    if at := [i for i, frequency in found.items() if frequency is None]:
        times = every[at[0]]
        steps = times[1:] - times[:-1]
        row = int(np.flatnonzero(steps != steps[0])[0]) + 1
        text = (
            f"times must be evenly spaced, got a step of {_step(steps[0])} at first and of "
            f"{_step(steps[row - 1])} in {series.place(int(series.bounds[at[0], 0]) + row)}"
        )
        return refusal(series.path, "data.time", text + remedy)
    first = next(iter(found))
    other = next((i for i in found if found[i] != found[first]), None)
    if other is None:  # one of two rows, then, which do not lie on the others' steps
        other = int(np.diff(series.bounds)[:, 0].argmin())
    text = (
        f"the times of all series must have one frequency, got {found[first]} in "
        f"{series.names[first]!r} and {found.get(other, 'another')} in {series.names[other]!r}"
    )
    return refusal(series.path, "data.time", text + remedy)


def _resampling(every: list[pd.DatetimeIndex]) -> str:
    """Say to which steps the rows can be brought: the shortest usual ones that all have rows.

    Where there are none, they are as long as most steps are, and those without rows are filled.
    """
    for step in _STEPS:
        if all(_have_rows(times, step) for times in every):
            return f"write data.resample: {step}, say"
    usual = float(np.median(np.concatenate([np.diff(times.asi8) for times in every])))
    usual *= np.timedelta64(1, every[0].unit) / np.timedelta64(1, "D")
    longest = next((step for step, days in _STEPS.items() if days >= 0.99 * usual), "YS")
    return f"write data.resample: {longest}, say, and data.missing: ffill"


def _have_rows(times: pd.DatetimeIndex, step: str) -> bool:
    """Say whether each of the steps between the first row and the last has one."""
    wall = times.tz_localize(None)
    if step in _MONTHS:
        places = np.asarray(wall.year * 12 + wall.month - 1) // _MONTHS[step]
    else:
        places = np.asarray((wall - pd.Timestamp(0)) // pd.Timedelta(step))
    n = int(places[-1] - places[0]) + 1
    return n > 2 and len(np.unique(places)) == n


def _step(step: pd.Timedelta) -> str:
    return str(step).removesuffix(" 00:00:00").removeprefix("0 days ")
