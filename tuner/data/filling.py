"""Makes the rows of series even, and fills what is missing in them from earlier rows alone."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

from tuner.data.preparation import Preparation
from tuner.data.reading import Series
from tuner.data.tables import bounds_of, refusal
from tuner.data.times import common_frequency, every_time, find_gaps, show_time
from tuner.errors import one_line

__all__ = ["even_rows", "fill"]

_MOST_STEPS = 20_000_000
_TWO_WEEKS = pd.Timedelta(days=13)  # from the first day to the last
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_ENDS = re.compile(r"(\d*\s*)((?:B|CB|S)?[MQY])E?(?:-(\w+))?")  # of months, quarters, years


def even_rows(series: Series, data: Preparation) -> Series:
    """Return the series with a row at every step of their frequency; missing ones are nan.

    With `data.resample` the rows in [t, t + step) become one at t. Steps are counted from the
    first midnight of 1970, so that they are the same in every file; a step weighs the mean of its
    rows. Where the rows keep a
    frequency, a step that lacks one of them is missing, and left out at either end of a series;
    of a column, so is a step that lacks a value. A step has the category of its last row,
    and of columns that are the same in a series their value.

    Where series of days are closed on some days of the week, no row is lacking on these, nor on any
    other day between two rows: it is a holiday.

    Raises:
        DataError: the frequency is none, or there are steps that lack rows and `data.missing`
            refuses them.
    """
    if data.resample is not None:
        return _resample(series, data, data.resample)
    if series.frequency is None:
        return series
    frequency = series.frequency
    each = range(len(series.names))
    every = [every_time(series.times_of(i), frequency, series.holidays) for i in each]
    if sum(map(len, every)) == len(series.frame):
        return series
    bounds = bounds_of([len(times) for times in every])
    places = [
        start + times.searchsorted(series.times_of(i))
        for i, (times, (start, _)) in enumerate(zip(every, bounds, strict=True))
    ]
    rows = np.concatenate(places)
    values = np.full((int(bounds[-1, 1]), series.frame.shape[1]), np.nan)
    values[rows] = series.frame.to_numpy()
    lines = np.full(len(values), -1)
    lines[rows] = series.lines
    weights = None
    if series.weights is not None:
        weights = np.zeros(len(values))
        weights[rows] = series.weights
    return dataclasses.replace(
        series,
        frame=pd.DataFrame(values, columns=series.frame.columns),
        bounds=bounds,
        lines=lines,
        put_in=lines < 0,
        times=pd.DatetimeIndex(every[0].append(list(every[1:]))),
        weights=weights,
    )


def fill(values: np.ndarray, bounds: np.ndarray, policy: str) -> np.ndarray:
    """Return the values with none missing but those before a column's first known one.

    Nothing comes from a later row, or from another series. By `ffill` the last known value
    stays. By `interpolate` a missing value continues the line through the last two known values
    of its column, for at most as many rows as those two lie apart; then it stays level, as it
    does where only one value is known yet.

    Args:
        values: (rows, columns), nan where missing; rows are evenly spaced.
        bounds: (series, 2), the rows [start, end) of each series.
        policy: refuse (nothing is filled), ffill or interpolate.

    Returns:
        (rows, columns)
    """
    known = ~np.isnan(values)
    if policy == "refuse" or known.all():
        return values
    row = np.arange(len(values))[:, None]
    start = np.repeat(bounds[:, 0], np.diff(bounds)[:, 0])[:, None]  # of the row's series
    last = np.maximum.accumulate(np.where(known, row, -1), axis=0)  # known row, up to this one
    filled = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    if policy == "interpolate":
        earlier = np.concatenate([np.full((1, values.shape[1]), -1), last[:-1]])
        before = np.take_along_axis(earlier, np.maximum(last, 0), axis=0)  # last known but one
        apart = np.maximum(last - before, 1)
        rise = filled - np.take_along_axis(values, np.maximum(before, 0), axis=0)
        line = filled + rise * np.minimum(row - last, apart) / apart
        filled = np.where(before >= start, line, filled)
    return np.where(known, values, np.where(last >= start, filled, np.nan))


def _resample(series: Series, data: Preparation, step: str) -> Series:
    assert series.times is not None
    offset = _offset(series.path, step)
    times = series.times
    edges = _edges(series.path, times.min(), times.max(), offset, step)
    every = [series.times_of(i).unique() for i in range(len(series.names))]
    frequency = common_frequency(every)
    days = frequency == "B" or (frequency or "").startswith("C-")
    finest = None if frequency is None else to_offset("D" if days else frequency)
    if finest is not None and edges[0] + offset < edges[0] + finest:
        text = f"must not be finer than the rows, which are {frequency} apart, got {step!r}; "
        raise refusal(series.path, "data.resample", f"{text}write a longer step, or leave it out")
    whole = [_whole_steps(of, edges, frequency) for of in every]
    for i, found in enumerate(whole):
        if not len(found):
            text = f"no step of {step} has all its rows at frequency {frequency}{series.whose(i)}; "
            remedy = "write a shorter one, or add the rows that are missing"
            raise refusal(series.path, "data.resample", text + remedy)
    steps = [np.arange(found[0], found[-1] + 1) for found in whole]
    bounds = bounds_of([len(of) for of in steps])
    made_of = np.concatenate(steps)
    lacking = np.concatenate([~np.isin(of, found) for of, found in zip(steps, whole, strict=True)])
    if data.missing == "refuse" and lacking.any():
        first = int(lacking.argmax())
        at = int(bounds[:, 1].searchsorted(first, side="right"))
        text = (
            f"no step may lack rows, got {lacking.sum()} such steps of {step}, the first "
            f"{show_time(edges[made_of[first]])}{series.whose(at)}; add the rows, write a longer "
            f"step, or data.missing: ffill (or interpolate)"
        )
        raise refusal(series.path, "data.resample", text)
    place = _steps_of(times, edges) + _shifts(series.bounds, len(edges))
    groups = series.frame.groupby(place)
    rows = groups.sum(min_count=1) if data.aggregate == "sum" else groups.agg(data.aggregate)
    if steady := list({*series.levels, *data.static}):
        rows[steady] = groups[steady].last()
    if frequency is not None:
        rows = rows.mask(series.frame.isna().groupby(place).any())
    rows = rows.reindex(made_of + _shifts(bounds, len(edges)))
    rows[lacking] = np.nan
    weights = None
    if series.weights is not None:
        of_steps = pd.Series(series.weights).groupby(place).mean().reindex(rows.index)
        weights = np.where(lacking, 0.0, of_steps.fillna(0.0).to_numpy())
    return dataclasses.replace(
        series,
        frame=rows.reset_index(drop=True),
        bounds=bounds,
        lines=np.full(len(rows), -1),
        put_in=lacking,
        times=edges[made_of],
        weights=weights,
        frequency=offset.freqstr,
    )


def _shifts(bounds: np.ndarray, apart: int) -> np.ndarray:
    """Return for each row the number of its series, times `apart`, (rows,)."""
    return np.repeat(np.arange(len(bounds)) * apart, np.diff(bounds)[:, 0])


def _whole_steps(
    times: pd.DatetimeIndex, edges: pd.DatetimeIndex, frequency: str | None
) -> np.ndarray:
    """Return the steps that have rows, rising; at a frequency, those that have all of theirs."""
    steps = np.unique(_steps_of(times, edges))
    if frequency is None:
        return steps
    open_days = _open_days(times, frequency)
    apart = to_offset(frequency) if open_days is None else open_days
    around = pd.DatetimeIndex([times[0] - apart, times[-1] + apart])
    lacking = around if open_days is not None else find_gaps(times, frequency).append(around)
    return np.setdiff1d(steps, _steps_of(lacking, edges))


def _open_days(times: pd.DatetimeIndex, frequency: str) -> BaseOffset | None:
    """Return the days of the week that series of days have rows on; None if that is every day.

    An exchange is closed at weekends, a shop on Sundays. So few rows that no day of the week can
    come twice do not tell.
    """
    if frequency not in ("B", "D") and not frequency.startswith("C-"):
        return None
    is_open = np.arange(7) < (5 if frequency == "B" else 7)
    if times[-1] - times[0] >= _TWO_WEEKS:
        is_open &= np.isin(np.arange(7), times.day_of_week)
    if is_open.all():
        return None
    return pd.offsets.CustomBusinessDay(weekmask="".join("01"[int(day)] for day in is_open))


def _steps_of(times: pd.Index, edges: pd.DatetimeIndex) -> np.ndarray:
    return np.asarray(edges.searchsorted(times, side="right") - 1)


def _offset(path: Path, step: str) -> BaseOffset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an alias that pandas is about to give up
            offset = to_offset(step)
    except (OverflowError, ValueError, Warning) as error:
        hint = re.search(r"(?:Did you mean|use) '?([A-Za-z]+(?:-[A-Z]+)?)", one_line(error))
        number = step[: len(step) - len(step.lstrip("0123456789 "))]
        instead = f"write {_beginning(number + hint[1])}" if hint else "write 15min, 1h or 1D, say"
        text = f"must be a frequency that pandas knows, got {step!r}; {instead}"
        raise refusal(path, "data.resample", text) from None
    if offset.n < 1:
        text = f"must be a step forward in time, got {step!r}; write 15min, 1h or 1D, say"
        raise refusal(path, "data.resample", text)
    if (instead := _beginning(step)) != step:
        text = f"must name the time at which a step begins, got {step!r}, the end of one; "
        raise refusal(path, "data.resample", f"{text}write {instead}")
    return offset


def _beginning(step: str) -> str:
    """Return the frequency of the times right after those that are ends: MS for ME."""
    if not (found := _ENDS.fullmatch(step)):
        return step
    number, unit, anchor = found.groups()
    if anchor in _MONTHS:
        anchor = _MONTHS[(_MONTHS.index(anchor) + 1) % 12]
    return f"{number}{unit}S" + (f"-{anchor}" if anchor else "")


def _edges(
    path: Path, first: pd.Timestamp, last: pd.Timestamp, offset: BaseOffset, step: str
) -> pd.DatetimeIndex:
    """Return the beginnings of the steps from that of the first time to the one after the last."""
    try:
        begin = offset.rollback(pd.Timestamp("1970-01-01", tz=first.tz))
        length = (begin + offset) - begin
        if (last - first) / length > _MOST_STEPS:
            text = f"there must be fewer than {_MOST_STEPS:,} steps, got {step!r} from "
            text += f"{show_time(first)} to {show_time(last)}; write a longer one"
            raise refusal(path, "data.resample", text)
        if isinstance(offset, pd.offsets.Tick):
            begin += (first - begin) // length * length
        while begin > first:
            begin -= offset
        edges = pd.date_range(begin, last, freq=offset)
        edges = pd.DatetimeIndex(edges.append(pd.DatetimeIndex([edges[-1] + offset])))
    except (OverflowError, ValueError):  # beyond the times that there are
        text = f"must be a step that a calendar holds, got {step!r}; write 15min, 1h or 1D, say"
        raise refusal(path, "data.resample", text) from None
    return edges[edges.searchsorted(first, side="right") - 1 :]
