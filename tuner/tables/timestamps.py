"""Timestamps: texts and numbers of a column as times, and columns joined into one."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import warnings
import zoneinfo
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype
from pandas.tseries.api import guess_datetime_format

from tuner.errors import DataError, nearest, refusal
from tuner.pipeline_steps import Dialect

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


def _in_english(text: str) -> str:
    """Return a date with its month in English, and a known time zone as an offset."""
    if (found := _DAY_MONTH.fullmatch(text)) and (month := _NAMES.get(found[2].lower())):
        text = f"{int(found[1])} {month} {found[3]}{found[4]}"
    elif (found := _NAMED_MONTH_YEAR.fullmatch(text)) and (month := _NAMES.get(found[1].lower())):
        text = f"{month} {found[2]}"
    if (found := _ZONE.fullmatch(text)) and (offset := _ZONES.get(found[2])):
        text = f"{found[1]}{offset}"
    return text


_NUMBERS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d"}  # times written as numbers, by their digits
_TEXTS: tuple[dict[str, Any], ...] = (
    {"format": "ISO8601"},
    {"format": "ISO8601", "utc": True},  # where the offset from UTC changes, as in summer
    {},  # one format, found from the first value
    {"utc": True},
)
_NO_TEXTS = ("", "NaT", "nat", "NAT", "nan", "NaN", "NAN", "now", "today")
"""Texts from which pandas tells no format."""
_DATE = re.compile(r"(?<![\d./:-])(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d\d)(?!\d|[./-]\d)")
_YEAR_FIRST = re.compile(r"\d{4}")
_OF_DAY = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?(\s*[AaPp]\.?[Mm]\.?)?")  # 08:15, 8:15 pm
# An offset of browsers and exports. Otherwise GMT+8 is read as in POSIX: 8 hours behind.
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
_YEARS = (1678, 2261)  # whole years that pandas can hold in nanoseconds
_UNIX_TIMES = (3e8, 1.9e9)  # 1979 to 2030, in seconds; 2020013123 is the 23rd hour of a day
_UNIX_UNITS: dict[Literal["s", "ms", "us", "ns"], float] = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}


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
    """Return whether a value is a text such as 08:15, without a date."""
    return isinstance(value, str) and bool(_OF_DAY.fullmatch(value.strip()))


def possible_orders(column: pd.Series) -> tuple[bool, ...]:
    """Return how texts of dates such as 1/2/2020 can be read: True is the day first.

    A number above 12 decides, and so do points, with which no month stands first. It is () where
    there are no such texts, and (False, True) where nothing decides.
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
    """Return the places of times outside of the years 1678 to 2261; NaT is none of them."""
    years = times.dt.year
    return np.flatnonzero((years < _YEARS[0]) | (years > _YEARS[1]))


def show_time(time: pd.Timestamp) -> str:
    """Return a time as text, without the hour if it is midnight."""
    return str(time.date()) if time == time.normalize() else str(time)


def _has_type(column: pd.Series) -> bool:
    return is_datetime64_any_dtype(column) or is_numeric_dtype(column)


def _year_stands_first(column: pd.Series) -> bool:
    """Return whether all texts begin as 2020-01 does, which can be read in one order only."""
    try:
        return bool(column.str.match(r"\d{4}-\d\d(?!\d)", na=True).all())
    except AttributeError:  # some are no texts
        return False


def _date_in(text: str) -> re.Match[str] | None:
    text = text.strip()
    return None if _YEAR_FIRST.match(text) else _DATE.search(text)


def _parse_texts(column: pd.Series, day_first: bool | None) -> pd.Series:
    """Return texts as times, in the one way that parses the most of them.

    A time of day without its date is no time.
    """
    if _year_stands_first(column):
        with contextlib.suppress(ValueError):  # most files, and fast
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
        if "format" not in options and not _has_one_format(texts):
            continue  # pandas would guess the format of each value
        with warnings.catch_warnings(), contextlib.suppress(OverflowError, ValueError):
            warnings.simplefilter("ignore")
            return pd.to_datetime(texts, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attempts = []
        for options in _TEXTS:
            with contextlib.suppress(ValueError):  # offsets that differ, read without utc
                attempts.append(pd.to_datetime(texts, errors="coerce", **options))
    return min(attempts, key=lambda times: int(times.isna().sum()))


def _has_one_format(texts: pd.Series) -> bool:
    """Return whether pandas can tell the format of all texts from the first one."""
    known = texts.dropna()
    known = known[~known.isin(_NO_TEXTS)]
    first = known.iloc[0] if len(known) else None
    return len(known) < 2 or not isinstance(first, str) or guess_datetime_format(first) is not None


def _as_date(text: str) -> str:
    """Return a week, a quarter, a month or a date of characters as a date, its first day."""
    if found := _EAST_ASIAN.fullmatch(text):
        year, month, day, *clock = found.groups()
        date = f"{year}-{int(month):02}-{int(day or 1):02}"
        return f"{date} {':'.join(f'{int(p or 0):02}' for p in clock)}" if clock[0] else date
    if found := _COUNTED.fullmatch(text):
        quarter, its_year, year, week, month = found.groups()
        if quarter:
            return f"{its_year}-{3 * int(quarter) - 2:02}-01"
        if month:
            return f"{year}-{int(month):02}-01"
        with contextlib.suppress(ValueError):  # there is no such week
            return dt.date.fromisocalendar(int(year), int(week), 1).isoformat()
    return _in_english(text)


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


EXCEL = "excel"  # the format of days since 1899-12-30, as spreadsheets count them
_FIRST_DAY = pd.Timestamp("1899-12-30")
_PARTS = {
    "year": ("year", "yr", "jahr", "année", "annee", "año", "ano", "anno", "年", "年份"),
    "month": ("month", "mon", "monat", "mois", "mes", "mese", "月", "月份"),
    "day": ("day", "tag", "jour", "día", "dia", "giorno", "日", "day_of_month"),
    "hour": ("hour", "hr", "stunde", "heure", "hora", "ora", "时", "小时", "hour_of_day"),
    "minute": ("minute", "min", "minuto", "分", "分钟"),
    "second": ("second", "sec", "sekunde", "seconde", "segundo", "秒"),
    "date": ("date", "datum", "fecha", "data", "日期", "day"),
    "time": ("time", "uhrzeit", "zeit", "heure", "hora", "时间", "clock"),
}
_NO_UNITS = ("quarter", "quartal", "week", "woche", "semaine", "semana", "weekday", "季度", "周")
_CLOCK: tuple[Literal["h", "min", "s"], ...] = ("h", "min", "s")
_UNITS = ("year", "month", "day", "hour", "minute", "second")


def with_format(column: pd.Series, date_format: str | None) -> pd.Series:
    """Return a column of times read by a format of `strptime`, or as a spreadsheet's days.

    What does not fit is NaT.
    """
    if date_format is None or is_datetime64_any_dtype(column):
        return column
    if date_format == EXCEL:
        days = pd.to_numeric(column, errors="coerce")
        times = _FIRST_DAY + pd.to_timedelta(days, unit="D")
        seconds = times.dt.round("s")  # a day's fraction has few digits
        fine = seconds.nunique() < times.dt.round("ms").nunique()
        return times.dt.round("ms") if fine else seconds
    texts = column
    if is_numeric_dtype(column):  # 20200131 was read as a number
        texts = column.map(lambda v: f"{v:.0f}", na_action="ignore")
    return pd.to_datetime(texts, format=date_format, errors="coerce", utc="%z" in date_format)


def are_days_of_spreadsheet(column: pd.Series) -> bool:
    """Return whether numbers may be days since 1899-12-30: of 1954 to 2064, rising or falling."""
    if not is_numeric_dtype(column) or column.isna().any() or not column.between(2e4, 6e4).all():
        return False
    return bool(column.is_monotonic_increasing or column.is_monotonic_decreasing)


def find_parts(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns that together are the time: year, month, day, or a date and an hour.

    They are () where one column alone is the time.
    """
    named: dict[str, str] = {}
    for column in frame:
        for part, names in _PARTS.items():
            known = part not in named and str(column).strip().lower() in names
            if known and _can_be(frame[column], part):
                named[part] = str(column)
    if {"year", "month"} <= named.keys():
        units = [unit for unit in _UNITS if unit in named]
        whole = units == list(_UNITS[: len(units)])
        return tuple(named[unit] for unit in units) if whole else ()
    if "date" in named:
        for of_day in ("time", "hour"):
            if of_day in named and named[of_day] != named["date"]:
                minute = [named["minute"]] if of_day == "hour" and "minute" in named else []
                return (named["date"], named[of_day], *minute)
    return ()


def _can_be(column: pd.Series, part: str) -> bool:
    values = column.dropna()
    values = values.iloc[:: max(1, len(values) // 500)]
    if values.empty:
        return False
    if part == "date":
        times = as_times(values)
        whole_days = times.notna().all() and (times == times.dt.normalize()).all()
        return bool(whole_days and (not is_numeric_dtype(values) or (values > 9999).all()))
    if part == "time":
        return bool(values.map(is_time_of_day).all())
    if not is_numeric_dtype(values) or (values % 1 != 0).any():
        return False
    ranges = {"year": _YEARS, "month": (1, 12), "day": (1, 31), "hour": (0, 24)}
    return bool(values.between(*ranges.get(part, (0, 59))).all())


def with_joined_time(path: Path, frame: pd.DataFrame, dialect: Dialect, name: str) -> pd.DataFrame:
    """Return the table with one column of times, called `name`, in place of its parts.

    Parts are a date and a time of day or an hour; or year, month, day, hour, minute, second, as
    many as there are. Hour 24 is midnight of the day after.

    Raises:
        DataError: a part is missing, is none, or the name is another column's.
    """
    parts = list(dialect.time_columns or ())
    key = "data.read.time_columns"
    if name in frame and is_datetime64_any_dtype(frame[name]) and parts[1] not in frame:
        return frame  # somebody joined them already
    for part in parts:
        if part not in frame:
            remedy = nearest(part, [str(c) for c in frame])
            raise refusal(path, key, f"no column {part!r} in the file", remedy=remedy)
    expected = _UNITS if _is_year(frame[parts[0]]) else ("date", "hour", "minute", "second")
    for part, unit in zip(parts[1:], expected[1:], strict=False):
        units = [u for u, names in _PARTS.items() if part.lower() in names]
        fits = unit in units or (unit == "hour" and "time" in units)
        if (units and not fits) or part.lower() in _NO_UNITS:
            rule = f"must be {', '.join(expected)}, in this order and without a hole"
            got = f"{part!r} in place of the {unit}"
            raise refusal(path, key, rule, got, change="leave it out")
    others = [c for c in frame if c not in parts]
    if name in others:
        rule = "must be a new name for what data.read.time_columns joins"
        got = f"{name!r}, which is a column"
        raise refusal(path, "data.time", rule, got, f"write {name}_joined")
    times = _joined(frame, parts, dialect)
    if (bad := np.flatnonzero(times.isna())).size:
        shown = ", ".join(f"{part} {frame[part].iloc[bad[0]]!s}" for part in parts)
        rule = "must make a time in every row"
        remedy = "name a date and a time of day, or year, month, day, hour"
        raise refusal(path, key, rule, f"{shown} in row {bad[0] + 1}", remedy)
    at = min(list(frame).index(part) for part in parts)
    joined = frame.drop(columns=parts)
    joined.insert(min(at, joined.shape[1]), name, times)
    return joined


def _joined(frame: pd.DataFrame, parts: list[str], dialect: Dialect) -> pd.Series:
    first, rest = frame[parts[0]], parts[1:]
    if _is_year(first):
        units = {unit: frame[part] for unit, part in zip(_UNITS, parts, strict=False)}
        days = {unit: units.get(unit, pd.Series(1, frame.index)) for unit in _UNITS[:3]}
        dates, rest = pd.to_datetime(pd.DataFrame(days), errors="coerce"), parts[3:]
    else:
        if dialect.date_format is None and len(possible_orders(first)) > 1:
            return _as_texts(first, rest, frame)
        dates = as_times(with_format(first, dialect.date_format))
    for unit, part in zip(_CLOCK, rest, strict=False):
        dates = dates + _of_day(frame[part], unit)
    return dates


def _is_year(column: pd.Series) -> bool:
    return bool(is_numeric_dtype(column) and column.dropna().between(*_YEARS).all())


def _as_texts(dates: pd.Series, rest: list[str], frame: pd.DataFrame) -> pd.Series:
    """Return dates such as 01/02/2020 with their times of day as texts, to infer the order."""
    clock = sum(
        (_of_day(frame[part], unit) for unit, part in zip(_CLOCK, rest, strict=False)),
        start=pd.Series(pd.Timedelta(0), frame.index),
    )
    seconds = clock.dt.total_seconds()
    texts = seconds.map(
        lambda s: f"{int(s // 3600):02}:{int(s // 60 % 60):02}:{s % 60:09.6f}", na_action="ignore"
    )
    return dates.str.strip() + " " + texts.str.removesuffix(".000000")


def _of_day(column: pd.Series, unit: Literal["h", "min", "s"]) -> pd.Series:
    """Return a column of hours, minutes, seconds or times of day as time deltas, NaT for others."""
    if is_numeric_dtype(column):
        most = 24 if unit == "h" else 59
        return pd.Series(pd.to_timedelta(column.where(column.between(0, most)), unit=unit))
    texts = column.astype(str).str.strip()
    if texts.str.contains("[AaPp]").any():
        clock = pd.to_datetime("2000-01-01 " + texts, errors="coerce", format="mixed")
        return clock - pd.Timestamp("2000-01-01")
    return pd.to_timedelta(
        texts.str.replace(r"^(\d{1,2}:\d\d)$", r"\1:00", regex=True), errors="coerce"
    )


def localized(times: pd.DatetimeIndex, bounds: np.ndarray, timezone: str) -> pd.DatetimeIndex:
    """Return times without an offset in a time zone, in which an hour may occur twice.

    Args:
        times: series by series, each rising but for the hour in which clocks go back.
        bounds: (series, 2), the rows [start, end) of each.

    Raises:
        ValueError: a time does not exist there, or is ambiguous.
    """
    if times.tz is not None:
        return times.tz_convert(timezone)
    parts = [times[start:end].tz_localize(timezone, ambiguous="infer") for start, end in bounds]
    return pd.DatetimeIndex(parts[0].append(parts[1:]))


_DTYPE = re.compile(r"datetime64\[(s|ms|us|ns)(?:, (.+))?\]")
_FIXED_ZONE = re.compile(r"UTC[+-]\d\d:\d\d")
_ISO_DATE, _ISO_TIME = r"\d{4}-\d\d-\d\d", r"[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?"
_ISO_LOCAL = re.compile(f"{_ISO_DATE}({_ISO_TIME})?")
_ISO_WITH_OFFSET = re.compile(rf"{_ISO_DATE}{_ISO_TIME}(Z|[+-]\d\d:?\d\d)")


def time_dtype(name: str) -> np.dtype[Any] | pd.DatetimeTZDtype | None:
    """Return the type of times that pandas calls so; None if there is none, or no such zone."""
    if (parts := _DTYPE.fullmatch(name)) is None:
        return None
    zone = parts[2]
    try:
        if zone is not None and not _FIXED_ZONE.fullmatch(zone):
            zoneinfo.ZoneInfo(zone)  # opens no other file, as pandas does for dateutil/PATH
        found = pd.api.types.pandas_dtype(name)
    except (OSError, TypeError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        return None
    return found if isinstance(found, np.dtype | pd.DatetimeTZDtype) else None


def times_of_type(values: Iterable[Any], dtype: str, key: str) -> pd.Series:
    """Return times in ISO 8601, and None for missing ones, as a column of a type.

    A column in a zone needs the type: the offsets of its times do not tell the zone.

    Args:
        values: texts: with an offset from UTC if the type has a zone, else without.
        dtype: the type, as pandas names it: `datetime64[us, Europe/Berlin]`.
        key: of the column, for messages.

    Raises:
        DataError: it is no such type, or a value is no such time.
    """
    if (found := time_dtype(dtype)) is None:
        remedy = "write datetime64[us] or datetime64[us, Europe/Berlin], say"
        raise DataError("must be a type of times", key=key, got=repr(dtype[:80]), remedy=remedy)
    has_zone = isinstance(found, pd.DatetimeTZDtype)
    pattern, which = (_ISO_WITH_OFFSET, "with") if has_zone else (_ISO_LOCAL, "without")
    rule = f"{dtype} needs times in ISO 8601 {which} an offset from UTC"
    texts = [None if value is None or value != value else value for value in values]
    for text in texts:
        if text is not None and not (isinstance(text, str) and pattern.fullmatch(text)):
            raise DataError(rule, key=key, got=repr(text)[:80])
    try:
        times = pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", utc=has_zone)
        return times.astype(found)
    except ValueError:  # 25:61, or a time too far for nanoseconds
        raise DataError(rule, key=key, got="a time that pandas cannot hold") from None
