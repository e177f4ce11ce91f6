"""Times: parsed from what a file holds, and the frequency that they keep."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

__all__ = [
    "as_times",
    "common_frequency",
    "every_time",
    "find_frequency",
    "find_gaps",
    "is_day_first",
    "keeps",
    "parse_times",
    "show_time",
]

_NUMBERS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d"}  # times written as numbers, by their digits
_TEXTS: tuple[dict[str, Any], ...] = (
    {"format": "ISO8601"},
    {"format": "ISO8601", "utc": True},  # where the offset from UTC changes, as in summer
    {},  # one format, found from the first value; month before day where both are possible
    {"dayfirst": True},
)
_UNIX_TIMES = (3e8, 1.9e9)  # 1979 to 2030, in seconds; 2020013123 is the 23rd hour of a day
_UNIX_UNITS: dict[Literal["s", "ms", "us", "ns"], float] = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}
_STRETCHES = (10, 5, 3)  # rows on which a frequency is looked for where the whole has none
_STRETCHES_TRIED = 200
_FEW = 1000  # steps that a series may span, however few rows it has


def parse_times(column: pd.Series, day_first: bool = False) -> pd.Series:
    """Return the column as times; NaT where a value is none.

    Args:
        column: of times, numbers or texts.
        day_first: whether 1/2/2020 is in February, which else only other rows can tell.
    """
    if is_datetime64_any_dtype(column):
        return column
    if is_numeric_dtype(column):
        return _parse_numbers(column)
    return _parse_texts(column, day_first)[0]


def is_day_first(column: pd.Series) -> bool:
    """Say whether the column is of texts that were read with the day before the month."""
    if is_datetime64_any_dtype(column) or is_numeric_dtype(column):
        return False
    times, options = _parse_texts(column, False)
    could_be_either = (times.dt.day <= 12) & (times.dt.day != times.dt.month)
    if "format" in options or not could_be_either.any():
        return False
    at = could_be_either.idxmax()
    alone, _ = _parse_texts(column.loc[[at]], False)  # the month first, where that is possible
    return bool(alone.loc[at] != times.loc[at])


def as_times(column: pd.Series, day_first: bool = False) -> pd.Series:
    """Return the column as times, NaT where a value is none; numbers may be Unix times."""
    if is_numeric_dtype(column):
        middle = column.dropna().astype(np.float64).median()
        for unit, factor in _UNIX_UNITS.items():
            if _UNIX_TIMES[0] <= middle / factor < _UNIX_TIMES[1]:
                return pd.to_datetime(column, unit=unit, errors="coerce")
    return parse_times(column, day_first)


def find_frequency(times: pd.DatetimeIndex) -> str | None:
    """Return the frequency whose steps hit every time, gaps allowed; None if there is none.

    Args:
        times: at least three, rising.
    """
    frequency = _infer(times)
    if frequency is not None:
        return frequency
    candidates: dict[str, int] = {}
    for length in _STRETCHES:
        last = len(times) - length
        for start in np.unique(np.linspace(0, last, _STRETCHES_TRIED).astype(int)):
            found = _infer(times[start : start + length]) if start >= 0 else None
            if found is not None and found not in candidates and _is_plausible(times, found):
                steps = every_time(times, found)
                if times.isin(steps).all():
                    candidates[found] = len(steps)
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


def find_gaps(times: pd.DatetimeIndex, frequency: str) -> pd.DatetimeIndex:
    """Return the times that are missing between the first and the last."""
    return every_time(times, frequency).difference(times)


def every_time(times: pd.DatetimeIndex, frequency: str) -> pd.DatetimeIndex:
    """Return the times from the first to the last, and those that are missing in between."""
    return pd.date_range(times[0], times[-1], freq=frequency, unit=times.unit)


def keeps(times: pd.DatetimeIndex, frequency: str) -> bool:
    """Say whether the steps of a frequency hit every time, and there are not too many gaps.

    Args:
        times: rising.
        frequency: to be kept.
    """
    return _fits(times, frequency, _FEW)


def show_time(time: pd.Timestamp) -> str:
    """Write a time without an hour that it does not need."""
    return str(time.date()) if time == time.normalize() else str(time)


def _parse_texts(column: pd.Series, day_first: bool) -> tuple[pd.Series, dict[str, Any]]:
    """Return texts as times, and the options with which the most of them are some."""
    ways = [options for options in _TEXTS if options or not day_first]
    for options in ways:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.filterwarnings("error", "Could not infer format")  # a guess for each value
                return pd.to_datetime(column, **options), options
        except (OverflowError, ValueError, Warning):
            continue
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attempts = [(pd.to_datetime(column, errors="coerce", **o), o) for o in ways]
    return min(attempts, key=lambda attempt: int(attempt[0].isna().sum()))


def _parse_numbers(column: pd.Series) -> pd.Series:
    texts = column.astype(object).map(lambda v: f"{v:.0f}" if v == v and v % 1 == 0 else "")
    layout = _NUMBERS.get(len(texts.iloc[0]), "%Y")
    texts = texts.where(texts.str.len() == len(texts.iloc[0]), "")
    return pd.to_datetime(texts, format=layout, errors="coerce")


def _infer(times: pd.DatetimeIndex) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 4 will return an offset instead of its name
        found: Any = pd.infer_freq(times)
    return None if found is None else str(getattr(found, "freqstr", found))


def _is_plausible(times: pd.DatetimeIndex, frequency: str, least: int = 0) -> bool:
    step = (times[0] + pd.tseries.frequencies.to_offset(frequency)) - times[0]
    most = max(4 * len(times), least)  # or there are more gaps than rows
    return bool((times[-1] - times[0]) / step < most)


def _fits(times: pd.DatetimeIndex, frequency: str, least: int = 0) -> bool:
    """Say whether the frequency hits every time, and there are not too many gaps."""
    if not _is_plausible(times, frequency, least):
        return False
    return bool(times.isin(every_time(times, frequency)).all())
