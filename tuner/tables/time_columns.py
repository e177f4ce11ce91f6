"""The time column of a table: joined from several columns, or in a declared format."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

from tuner.errors import nearest, refusal
from tuner.pipeline_steps import Dialect
from tuner.tables.timestamps import as_times, is_time_of_day, possible_orders

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
    """Say whether numbers may be days since 1899-12-30: of 1954 to 2064, rising or falling."""
    if not is_numeric_dtype(column) or column.isna().any() or not column.between(2e4, 6e4).all():
        return False
    return bool(column.is_monotonic_increasing or column.is_monotonic_decreasing)


def find_parts(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns that together tell the time: year, month, day, or a date and an hour.

    None are returned where one column alone tells it.
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
        return bool(times.notna().all() and (times == times.dt.normalize()).all()) and (
            not is_numeric_dtype(values) or bool((values > 9999).all())
        )
    if part == "time":
        return bool(values.map(is_time_of_day).all())
    if not is_numeric_dtype(values) or (values % 1 != 0).any():
        return False
    least, most = {"year": (1678, 2261), "month": (1, 12), "day": (1, 31), "hour": (0, 24)}.get(
        part, (0, 59)
    )
    return bool(values.between(least, most).all())


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
            raise refusal(
                path, key, rule, f"{part!r} in place of the {unit}", change="leave it out"
            )
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
        numbers = {unit: frame[part] for unit, part in zip(_UNITS, parts, strict=False)}
        months = numbers.get("month", pd.Series(1, frame.index))
        days = numbers.get("day", pd.Series(1, frame.index))
        dates = pd.to_datetime(
            pd.DataFrame({"year": first, "month": months, "day": days}), errors="coerce"
        )
        rest = parts[3:]
    else:
        if dialect.date_format is None and len(possible_orders(first)) > 1:
            return _as_texts(first, rest, frame)
        dates = as_times(with_format(first, dialect.date_format))
    for unit, part in zip(_CLOCK, rest, strict=False):
        dates = dates + _of_day(frame[part], unit)
    return dates


def _is_year(column: pd.Series) -> bool:
    return bool(is_numeric_dtype(column) and column.dropna().between(1678, 2261).all())


def _as_texts(dates: pd.Series, rest: list[str], frame: pd.DataFrame) -> pd.Series:
    """Return dates such as 01/02/2020 with their times of day as texts: rows tell the order."""
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
    """Return a column of hours, or of times of day, as differences; NaT for what is none."""
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
    """Return times without an offset as those of a place, of which an hour may come twice.

    Args:
        times: series by series, each rising but for the hour in which clocks go back.
        bounds: (series, 2), the rows [start, end) of each.

    Raises:
        ValueError: a time does not exist there, or which of two hours it is cannot be told.
    """
    if times.tz is not None:
        return times.tz_convert(timezone)
    parts = [times[start:end].tz_localize(timezone, ambiguous="infer") for start, end in bounds]
    return pd.DatetimeIndex(parts[0].append(parts[1:]))
