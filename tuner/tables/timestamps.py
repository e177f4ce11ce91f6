"""Timestamps: parsing, time zones, and the frequency of a series.

Pandas calls them custom business days, and has no name for those of one weekmask: `C-Sun-Mon-Tue`
is such a name.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

_MONTHS = (
    "januar janvier janv enero ene gennaio gen janeiro januari",
    "februar février fevrier févr fevr febrero febbraio feb fevereiro fev februari",
    "märz maerz mrz mars marzo março marco maart mrt",
    "april avril avr abril abr aprile",
    "mai mayo maggio mag maio mei",
    "juni juin junio giugno giu junho",
    "juli juillet juil julio luglio lug julho",
    "august août aout agosto ago augustus",
    "september septembre septiembre settembre set setembro",
    "oktober okt octobre octubre ottobre ott outubro out",
    "november novembre noviembre novembro",
    "dezember dez décembre decembre déc diciembre dic dicembre dezembro december",
)
_ENGLISH = "January February March April May June July August September October November December"
_NAMES = {
    name: english
    for english, names in zip(_ENGLISH.split(), _MONTHS, strict=True)
    for name in names.split()
}
_ZONES = {
    "UTC": "+00:00", "GMT": "+00:00", "WET": "+00:00", "WEST": "+01:00", "CET": "+01:00",
    "MEZ": "+01:00", "CEST": "+02:00", "MESZ": "+02:00", "EET": "+02:00", "EEST": "+03:00",
    "MSK": "+03:00", "JST": "+09:00", "KST": "+09:00", "EST": "-05:00", "EDT": "-04:00",
    "PST": "-08:00", "PDT": "-07:00",
}  # fmt: skip
_DAY_MONTH = re.compile(r"(\d{1,2})\.?\s+(?:de\s+)?([^\W\d_]{3,10})\.?\s+(?:de\s+)?(\d{4})(.*)")
_NAMED_MONTH_YEAR = re.compile(r"([^\W\d_]{3,10})\.?\s+(?:de\s+)?(\d{4})")
_ZONE = re.compile(r"(.*\d)\s+([A-Z]{3,4})")


def in_english(text: str) -> str:
    """Return a date with its month in English, and a known time zone as an offset.

    Other texts come back as they are.
    """
    if (found := _DAY_MONTH.fullmatch(text)) and (month := _NAMES.get(found[2].lower())):
        text = f"{int(found[1])} {month} {found[3]}{found[4]}"
    elif (found := _NAMED_MONTH_YEAR.fullmatch(text)) and (month := _NAMES.get(found[1].lower())):
        text = f"{month} {found[2]}"
    if (found := _ZONE.fullmatch(text)) and (offset := _ZONES.get(found[2])):
        text = f"{found[1]}{offset}"
    return text


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


_NUMBERS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d"}  # times written as numbers, by their digits
_TEXTS: tuple[dict[str, Any], ...] = (
    {"format": "ISO8601"},
    {"format": "ISO8601", "utc": True},  # where the offset from UTC changes, as in summer
    {},  # one format, found from the first value
    {"utc": True},
)
_DATE = re.compile(r"(?<![\d./:-])(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d\d)(?!\d|[./-]\d)")
_YEAR_FIRST = re.compile(r"\d{4}")
_OF_DAY = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?(\s*[AaPp]\.?[Mm]\.?)?")  # 08:15, 8:15 pm
# An offset as browsers and exports write it. Left alone, GMT+8 is read as POSIX has it: 8 hours
# behind, not ahead.
_OFFSET = re.compile(r"\s*\b(?:GMT|UTC)\s*([+-])(\d{1,2})(?::?(\d\d))?(?:\s*\([^)]*\))?$")
# As statistics count: Q2 1990, 2019-W03 (of ISO 8601, from Monday on), 2015M02.
_COUNTED = re.compile(r"Q([1-4])[ /-]*(\d{4})|(\d{4})[ -]?(?:W(\d\d)|M(\d\d?))")
# 2022年1月2日 and 2022년 1월 2일, perhaps with a time behind: 12时30分05秒
_EAST_ASIAN = re.compile(
    r"(\d{4})\s*[年년]\s*(\d{1,2})\s*[月월](?:\s*(\d{1,2})\s*[日号일])?"
    r"(?:\s*(\d{1,2})\s*[时時点點시:](?:\s*(\d{1,2})\s*[分분]?(?:\s*:?\s*(\d{1,2})\s*[秒초]?)?)?)?"
)
_MIDNIGHT = re.compile(r"(.*\d)[ T]24:00(?::00)?")  # the end of a day
_MONTH_YEAR = re.compile(r"[A-Za-z]{3}-\d\d")  # as spreadsheets write it: Jan-10
_YEARS = (1678, 2261)  # whole ones of which every nanosecond can be counted
_UNIX_TIMES = (3e8, 1.9e9)  # 1979 to 2030, in seconds; 2020013123 is the 23rd hour of a day
_UNIX_UNITS: dict[Literal["s", "ms", "us", "ns"], float] = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}
_STRETCHES = (10, 5, 3)  # rows on which a frequency is looked for where the whole has none
_STRETCHES_TRIED = 200
_FEW = 1000  # steps that a series may span, however few rows it has


def as_times(column: pd.Series, day_first: bool | None = None) -> pd.Series:
    """Return the column as times, NaT where a value is none; numbers may be Unix times.

    Args:
        day_first: whether 1/2/2020 is in February; a date that cannot be so is no time then. By
            default the first of `possible_orders`.
    """
    if is_datetime64_any_dtype(column):
        return column
    if not is_numeric_dtype(column):
        return _parse_texts(column, day_first)
    middle = column.dropna().astype(np.float64).median()
    for unit, factor in _UNIX_UNITS.items():
        if _UNIX_TIMES[0] <= middle / factor < _UNIX_TIMES[1]:
            return pd.to_datetime(column, unit=unit, errors="coerce")
    return _parse_numbers(column)


def is_time_of_day(value: object) -> bool:
    """Say whether a value is a text such as 08:15, which has no date."""
    return isinstance(value, str) and bool(_OF_DAY.fullmatch(value.strip()))


def possible_orders(column: pd.Series) -> tuple[bool, ...]:
    """Say how texts of dates such as 1/2/2020 can be read: True is the day first.

    A number above 12 decides, and so do points, with which no month stands first. None is
    returned where there are no such texts, both (the month first) where nothing decides.
    """
    if _has_type(column) or _year_stands_first(column):
        return ()
    dates = [found for v in column if (found := _date_in(str(v)))]
    if not dates:
        return ()
    days = [sum(int(found[at]) > 12 for found in dates) for at in (1, 3)]
    if days[0] == days[1] == 0:
        points = all(found[2] == "." for found in dates)
        return (True,) if points else (False, True)
    return (days[0] > days[1],)


def some_ambiguous(column: pd.Series) -> str | None:
    """Return the first text of a date that is another day if it is read in the other order."""
    typed = _has_type(column) or _year_stands_first(column)
    texts: list[str] = [] if typed else column.dropna().astype(str).tolist()
    dates = ((text, _date_in(text)) for text in texts)
    return next((text.strip() for text, d in dates if d and int(d[1]) != int(d[3])), None)


def where_outside(times: pd.Series) -> np.ndarray:
    """Return the places of times that are too far away to count with; NaT is none of them."""
    years = times.dt.year
    return np.flatnonzero((years < _YEARS[0]) | (years > _YEARS[1]))


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
    """Return the frequency whose steps hit every time, gaps allowed; None if there is none.

    Days that leave some days of the week out have a frequency of the others.

    Args:
        times: at least three, rising.
    """
    frequency = _infer(times)
    if frequency is not None and _hits(times, frequency):
        return frequency
    frequency = _frequent(times)
    if frequency in (None, "D") and len((times - times.normalize()).unique()) == 1:
        open_days = open_days_of(times)
        if open_days is not None and _are_most(times, open_days):
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
    """Return the times from the first to the last, and those that are missing in between.

    Of open days those that are holidays are not among them: no row is due.

    Args:
        times: rising.
    """
    return _steps(times, frequency).difference(find_holidays(times, frequency, holidays))


def find_holidays(
    times: pd.DatetimeIndex, frequency: str, holidays: bool | None = None
) -> pd.DatetimeIndex:
    """Return the open days without a row that are holidays.

    Args:
        times: rising.
        holidays: whether there are any, as `tuner.data.series_facts` decides; then those in short
            breaks are. By default all days without a row are, or none.
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
    """Return so many times after the last one; none are known where there is no frequency."""
    if frequency is None:
        return pd.DatetimeIndex([pd.NaT] * n_rows, dtype=times.dtype)
    offset = offset_of(frequency)
    return pd.date_range(times[-1], periods=n_rows + 1, freq=offset, unit=times.unit)[1:]


def keeps(times: pd.DatetimeIndex, frequency: str) -> bool:
    """Say whether the steps of a frequency hit every time, and there are not too many gaps.

    Args:
        times: rising.
    """
    return _fits(times, frequency, _FEW)


def show_time(time: pd.Timestamp) -> str:
    """Write a time without an hour that it does not need."""
    return str(time.date()) if time == time.normalize() else str(time)


def _has_type(column: pd.Series) -> bool:
    return is_datetime64_any_dtype(column) or is_numeric_dtype(column)


def _year_stands_first(column: pd.Series) -> bool:
    """Say whether all texts begin as 2020-01 does, which can be read in one order only."""
    try:
        return bool(column.str.match(r"\d{4}-\d\d(?!\d)", na=True).all())
    except AttributeError:  # some are no texts
        return False


def _date_in(text: str) -> re.Match[str] | None:
    text = text.strip()
    return None if _YEAR_FIRST.match(text) else _DATE.search(text)


def _parse_texts(column: pd.Series, day_first: bool | None) -> pd.Series:
    """Return texts as times, in the one way in which the most of them are some.

    A time of day without its date is no time: which day it was is not known.
    """
    if _year_stands_first(column):
        with contextlib.suppress(ValueError):  # the way of most files, and the fast one
            return pd.to_datetime(column, format="ISO8601")
    texts = column.map(lambda v: _with_offset(_as_date(v.strip())) if isinstance(v, str) else v)
    texts = texts.mask(texts.map(is_time_of_day))
    ends = texts.map(lambda v: isinstance(v, str) and bool(_MIDNIGHT.fullmatch(v)))
    if ends.any():
        texts = texts.where(~ends, texts.map(lambda v: str(v)[: str(v).rfind("24:00")] + "00:00"))
        parsed = _parse_texts(texts, day_first)
        return parsed.where(~ends, parsed + pd.Timedelta("1D"))
    if day_first is None:
        day_first = any(possible_orders(texts)[:1])
    texts = texts.map(lambda v: _year_first(v, day_first) if isinstance(v, str) else v)
    if texts.map(lambda v: isinstance(v, str) and bool(_MONTH_YEAR.fullmatch(v))).mean() > 0.5:
        return pd.to_datetime(texts, format="%b-%y", errors="coerce")
    for options in _TEXTS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.filterwarnings("error", "Could not infer format")  # a guess for each value
                return pd.to_datetime(texts, **options)
        except (OverflowError, ValueError, Warning):
            continue
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attempts = []
        for options in _TEXTS:
            with contextlib.suppress(ValueError):  # offsets that differ, read without utc
                attempts.append(pd.to_datetime(texts, errors="coerce", **options))
    return min(attempts, key=lambda times: int(times.isna().sum()))


def _as_date(text: str) -> str:
    """Return a week, a quarter, a month or a date of characters as a date, its first day."""
    if found := _EAST_ASIAN.fullmatch(text):
        year, month, day, *clock = found.groups()
        date = f"{year}-{int(month):02}-{int(day or 1):02}"
        return (
            date if clock[0] is None else f"{date} {':'.join(f'{int(p or 0):02}' for p in clock)}"
        )
    if found := _COUNTED.fullmatch(text):
        quarter, its_year, year, week, month = found.groups()
        if quarter:
            return f"{its_year}-{3 * int(quarter) - 2:02}-01"
        if month:
            return f"{year}-{int(month):02}-01"
        with contextlib.suppress(ValueError):  # there is no such week
            return dt.date.fromisocalendar(int(year), int(week), 1).isoformat()
    return in_english(text)


def _with_offset(text: str) -> str:
    return _OFFSET.sub(lambda m: f" {m[1]}{int(m[2]):02}:{m[3] or '00'}", text)


def _year_first(text: str, day_first: bool) -> str:
    """Return a text with its date as 2020-01-02, which can be read in one order only."""
    if not (found := _date_in(text)):
        return text
    day, month = (found[1], found[3]) if day_first else (found[3], found[1])
    year = int(found[4])
    if len(found[4]) == 2:
        year += 2000 if year < 69 else 1900  # as strptime does
    return f"{text[: found.start()]}{year:04}-{month:>02}-{day:>02}{text[found.end() :]}"


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


def _are_most(times: pd.DatetimeIndex, frequency: str) -> bool:
    every = _steps(times, frequency)
    return len(every) == len(times) or holidays_in(every.difference(times), every, frequency)


def _is_plausible(times: pd.DatetimeIndex, frequency: str, least: int = 0) -> bool:
    step = (times[0] + offset_of(frequency)) - times[0]
    most = max(4 * len(times), least)  # or there are more gaps than rows
    return bool((times[-1] - times[0]) / step < most)


def _fits(times: pd.DatetimeIndex, frequency: str, least: int = 0) -> bool:
    return _is_plausible(times, frequency, least) and _hits(times, frequency)
