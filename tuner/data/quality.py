"""Data quality: missing rows and values are imputed, suspicious values reported.

All rows are looked at, those of the test part among them, for a person corrects a file as a whole.
Nothing here changes a value, and nothing is learned from it.
"""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

from tuner.data.preprocessing import Preparation
from tuner.data.series_table import Series
from tuner.errors import one_line, refusal
from tuner.tables.table import bounds_of
from tuner.tables.timestamps import (
    are_open_days,
    common_frequency,
    every_time,
    find_gaps,
    show_time,
)

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
        inserted=lines < 0,
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
    daily = "D" if are_open_days(frequency) else frequency
    finest = None if daily is None else to_offset(daily)
    if finest is not None and edges[0] + offset < edges[0] + finest:
        rule = f"must not be finer than the rows, which are {frequency} apart"
        change = "write a longer step, or leave it out"
        raise refusal(series.path, "data.resample", rule, repr(step), change=change)
    whole = [_whole_steps(of, edges, frequency) for of in every]
    for i, found in enumerate(whole):
        if not len(found):
            rule = f"no step of {step} has all its rows at frequency {frequency}{series.whose(i)}"
            remedy, change = "add the rows that are missing", "write a shorter step"
            raise refusal(series.path, "data.resample", rule, remedy=remedy, change=change)
    steps = [np.arange(found[0], found[-1] + 1) for found in whole]
    bounds = bounds_of([len(of) for of in steps])
    made_of = np.concatenate(steps)
    lacking = np.concatenate([~np.isin(of, found) for of, found in zip(steps, whole, strict=True)])
    if data.missing == "refuse" and lacking.any():
        first = int(lacking.argmax())
        at = int(bounds[:, 1].searchsorted(first, side="right"))
        got = (
            f"{lacking.sum()} such steps of {step}, the first "
            f"{show_time(edges[made_of[first]])}{series.whose(at)}"
        )
        rule, change = "no step may lack rows", "write a longer step, or "
        change += "data.missing: ffill (or interpolate)"
        raise refusal(series.path, "data.resample", rule, got, "add the rows", change)
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
        inserted=lacking,
        times=edges[made_of],
        weights=weights,
        frequency=offset.freqstr,
    )


def _shifts(bounds: np.ndarray, apart: int) -> np.ndarray:
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

    An exchange is closed at weekends, a shop on Sundays. Fewer rows than two weeks have do not
    show it.
    """
    if frequency != "D" and not are_open_days(frequency):
        return None
    is_open = np.arange(7) < (5 if frequency == "B" else 7)
    if times[-1] - times[0] >= _TWO_WEEKS:
        is_open &= np.isin(np.arange(7), times.day_of_week)
    mask = "".join("01"[int(day)] for day in is_open)
    return None if is_open.all() else pd.offsets.CustomBusinessDay(weekmask=mask)


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
        rule = "must be a frequency that pandas knows"
        raise refusal(path, "data.resample", rule, repr(step), instead) from None
    if offset.n < 1:
        rule = "must be a step forward in time"
        raise refusal(path, "data.resample", rule, repr(step), "write 15min, 1h or 1D, say")
    if (instead := _beginning(step)) != step:
        rule = "must name the time at which a step begins"
        raise refusal(path, "data.resample", rule, f"{step!r}, the end of one", f"write {instead}")
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
            rule = f"there must be fewer than {_MOST_STEPS:,} steps"
            got = f"{step!r} from {show_time(first)} to {show_time(last)}"
            raise refusal(path, "data.resample", rule, got, change="write a longer one")
        if isinstance(offset, pd.offsets.Tick):
            begin += (first - begin) // length * length
        while begin > first:
            begin -= offset
        edges = pd.date_range(begin, last, freq=offset)
        edges = pd.DatetimeIndex(edges.append(pd.DatetimeIndex([edges[-1] + offset])))
    except (OverflowError, ValueError):  # beyond the times that there are
        rule = "must be a step that a calendar holds"
        remedy = "write 15min, 1h or 1D, say"
        raise refusal(path, "data.resample", rule, repr(step), remedy) from None
    return edges[edges.searchsorted(first, side="right") - 1 :]


SUSPECTS = ("sentinel", "outlier", "stands still", "unit", "suspect")  # what such notes are called
_CODE = re.compile(r"-?(9{2,}(\.9+)?|9+\.(25|99*)|32768|32767|65535|2147483647)|-1e[23]\d|1e[23]\d")
_CODE_APART, _APART, _ALONE_APART = 0.5, 3.0, 10.0  # ranges of the rest that lie in between:
# of a repeated value that is written as people write nothing, of another, of a single value
_FEWEST_OTHERS = 10  # different values, to tell how far they reach
_MOST_SHARE = 0.5  # of the rows may be no measurements
_STILL = 0.5  # of the rows of a series, one after another, that are the same
_FEWEST_STILL = 20  # rows
_UNIT, _ABOUT = 1000.0, 1.6  # a change of unit, and the factor by which it may be missed
_FEWEST_AROUND = 8  # rows before and after such a change
_MOST_ROUNDS = 3  # different sentinels of a column
_SHOWN = 3  # lines
_MOST_NOTES = 8


def suspects_of(series: Series) -> Iterator[tuple[str, str]]:
    """Say which values are probably no measurements: what, and where.

    Args:
        series: as they were read, before rows are filled in or brought to steps.
    """
    columns = {str(name): values.to_numpy() for name, values in series.frame.items()}
    notes = [*outside_of(columns, series.place)]
    for name, values in columns.items():
        notes += _of_column(series, name, values)
    yield from notes[:_MOST_NOTES]
    if len(notes) > _MOST_NOTES:
        yield "suspect", f"and {len(notes) - _MOST_NOTES} more like these"


def outside_of(
    columns: Mapping[str, np.ndarray], place: Callable[[int], str]
) -> Iterator[tuple[str, str]]:
    """Say which values of columns lie far outside the rest of their column.

    One that comes again and again is a sentinel: it stands for nothing, as -999 does. One that
    comes once is an outlier.

    Args:
        columns: (rows,) each, nan where there is no value.
    """
    found = {name: _far_values(values) for name, values in columns.items()}
    words = [f"{v:.10g}" for far, _ in found.values() for v, n in far if _stands_for_nothing(v, n)]
    key = f"data.read.missing_values: {json.dumps(list(dict.fromkeys(words)))}"
    for name, (far, (low, high)) in found.items():
        for value, count in far:
            text = f"{name!r} is {value:.10g} {_where(columns[name] == value, place)}, far outside "
            text += f"the rest ({low:.6g} to {high:.6g})"
            if _stands_for_nothing(value, count):
                remedy = f"if it stands for no value, write {key}, and data.missing: ffill"
                yield "sentinel", f"{text}; {remedy}"
            else:
                yield "outlier", f"{text}; correct it if it was not measured"


def _far_values(values: np.ndarray) -> tuple[list[tuple[float, int]], tuple[float, float]]:
    """Return values far outside the rest, with how often each comes, and the ends of the rest."""
    found, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    far: list[tuple[float, int]] = []
    while len(far) < _MOST_ROUNDS and (at := _outside(found, counts)) is not None:
        far.append((float(found[at]), int(counts[at])))
        found, counts = np.delete(found, at), np.delete(counts, at)
    return far, (found[0], found[-1]) if len(found) else (0.0, 0.0)


def _of_column(series: Series, name: str, values: np.ndarray) -> Iterator[tuple[str, str]]:
    """Say where a target stands still, and where the unit of a column changes."""
    for i, (start, end) in enumerate(series.bounds.tolist()):
        rows = start + np.flatnonzero(~np.isnan(values[start:end]))
        own = values[rows]
        whose = series.whose(i)
        if name in series.targets and (still := _longest_run(own)) is not None:
            first, last = rows[still[0]], rows[still[1] - 1]
            text = f"{name!r}{whose} is {own[still[0]]:.10g} in {still[1] - still[0]} of "
            text += f"{len(own)} rows without a break, {_span(series, first, last)}"
            remedy = "if nothing was measured, empty these cells and write data.missing: ffill"
            yield "stands still", f"{text}; {remedy}"
        elif (change := _change_of_unit(own)) is not None:
            at, larger = change
            factor = "1000 times larger" if larger else "1000 times smaller"
            text = f"{name!r}{whose} is about {factor} from {series.place(int(rows[at]))} on"
            yield "unit", f"{text}; write all rows in one unit"


def _outside(found: np.ndarray, counts: np.ndarray) -> int | None:
    """Return the place of the value at either end that is far outside the rest, if one is.

    Args:
        found: different values, rising, (n,).
        counts: how often each comes.
    """
    if len(found) <= _FEWEST_OTHERS:
        return None
    ends = {
        0: (found[1] - found[0], found[-1] - found[1]),
        len(found) - 1: (found[-1] - found[-2], found[-2] - found[0]),
    }
    for at in sorted(ends, key=lambda at: -ends[at][0]):
        apart, others = ends[at]
        if counts[at] > _MOST_SHARE * counts.sum():
            continue
        needed = _ALONE_APART if counts[at] == 1 else _APART
        if _is_code(found[at]):
            needed = _CODE_APART if counts[at] > 1 else _APART
        if apart > needed * others:
            return at
    return None


def _stands_for_nothing(value: float, count: int) -> bool:
    return count > 1 or _is_code(value)


def _is_code(value: float) -> bool:
    return bool(_CODE.fullmatch(f"{value:.10g}".replace("e+", "e")))


def _longest_run(values: np.ndarray) -> tuple[int, int] | None:
    """Return the rows [start, end) of the longest run of equal values, where it is half of all.

    None of a column that is the same in all rows, of which there is another note.
    """
    if len(values) < _FEWEST_STILL:
        return None
    edges = np.flatnonzero(np.diff(values) != 0) + 1
    if not len(edges):
        return None
    bounds = np.r_[0, edges, len(values)]
    lengths = np.diff(bounds)
    at = int(lengths.argmax())
    if lengths[at] < max(_STILL * len(values), _FEWEST_STILL / 2):
        return None
    return int(bounds[at]), int(bounds[at + 1])


def _change_of_unit(values: np.ndarray) -> tuple[int, bool] | None:
    """Return the row from which on values are about 1000 times larger, or smaller, for good.

    All but a twentieth of the sizes before it must lie on one side of those after it.
    """
    sizes = np.abs(values)
    n = len(sizes)
    if n < 2 * _FEWEST_AROUND or not (sizes > 0).any():
        return None
    logs = np.log10(np.maximum(sizes, sizes[sizes > 0].min()))
    sums = np.cumsum(logs - logs.mean())
    at = int(np.abs(sums[:-1]).argmax()) + 1  # of the largest difference of means, by its sums
    before, after = sizes[:at], sizes[at:]
    if min(len(before), len(after)) < _FEWEST_AROUND:
        return None
    low, high = sorted((before, after), key=lambda part: float(np.median(part)))
    if np.median(low) == 0 or np.quantile(low, 0.95) >= np.quantile(high, 0.05):
        return None
    ratio = float(np.median(high) / np.median(low))
    if not _UNIT / _ABOUT < ratio < _UNIT * _ABOUT:
        return None
    return at, high is after


def _where(at: np.ndarray, place: Callable[[int], str]) -> str:
    rows = np.flatnonzero(at)
    shown = ", ".join(place(int(row)) for row in rows[:_SHOWN])
    if len(rows) == 1:
        return f"in {shown}"
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f"in {len(rows)} rows ({shown}{more})"


def _span(series: Series, first: int, last: int) -> str:
    whose = series.whose(int(series.bounds[:, 1].searchsorted(first, side="right")))
    return f"{series.place(int(first))} to {series.place(int(last))}".replace(whose, "")
