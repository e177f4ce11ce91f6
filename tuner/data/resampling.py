"""Rows at every step of a frequency: resampled, imputed, and those to come."""

from __future__ import annotations

import dataclasses
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

from tuner.data.preprocessing import Preparation
from tuner.data.series_table import Series
from tuner.data.vocabulary import merged
from tuner.errors import one_line, refusal
from tuner.tables.frequencies import (
    are_open_days,
    bounds_of,
    common_frequency,
    every_time,
    find_gaps,
    following,
)
from tuner.tables.timestamps import show_time

_MOST_STEPS = 20_000_000
_REMEDY = "write 15min, 1h or 1D, say"
_TWO_WEEKS = pd.Timedelta(days=13)  # from the first day to the last
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_ENDS = re.compile(r"(\d*\s*)((?:B|CB|S)?[MQY])E?(?:-(\w+))?")  # of months, quarters, years


def even_rows(series: Series, data: Preparation) -> Series:
    """Return the series with a row at every step of their frequency; missing ones are nan.

    With `data.resample` the rows in [t, t + step) become one at t. Steps are counted from the
    first midnight of 1970, so that they are the same in every file. A step has the mean weight of
    its rows, the category of its last row, and the value of static columns. Where the rows have a
    frequency, a step that lacks one of them is missing, and left out at either end of a series; so
    is the value of a column of which a row lacks one.

    Days of the week on which series of days have no rows are closed: no row is missing there, nor
    on a holiday.

    Raises:
        DataError: the frequency is none, or there are steps that lack rows and `data.missing`
            refuses them.
    """
    if data.resample is not None:
        return _resample(series, data, data.resample)
    if series.frequency is None:
        return series
    frequency = series.frequency
    read = series.times_of_each()
    every = [every_time(times, frequency, series.holidays) for times in read]
    if sum(map(len, every)) == len(series.frame):
        return series
    bounds = bounds_of([len(times) for times in every])
    places = zip(bounds[:, 0], every, read, strict=True)
    rows = np.concatenate([start + times.searchsorted(of) for start, times, of in places])
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
    """Return the values imputed from earlier rows of their series; those before the first stay nan.

    `ffill` repeats the last known value. `interpolate` continues the line through the last two
    known values of the column, for at most as many rows as those two lie apart; then it stays
    level, as it does where only one value is known.

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
    every = [times.unique() for times in series.times_of_each()]
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
        begin = f"{show_time(edges[made_of[first]])}{series.whose(at)}"
        got = f"{lacking.sum()} such steps of {step}, the first {begin}"
        change = "write a longer step, or data.missing: ffill (or interpolate)"
        rule = "no step may lack rows"
        raise refusal(series.path, "data.resample", rule, got, "add the rows", change)
    lengths, firsts = np.diff(series.bounds)[:, 0], np.arange(len(bounds)) * len(edges)
    place = _steps_of(times, edges) + np.repeat(firsts, lengths)  # of all series
    groups = series.frame.groupby(place)
    rows = groups.sum(min_count=1) if data.aggregate == "sum" else groups.agg(data.aggregate)
    if steady := list({*series.levels, *data.static}):
        rows[steady] = groups[steady].last()
    if frequency is not None:
        rows = rows.mask(series.frame.isna().groupby(place).any())
    rows = rows.reindex(made_of + np.repeat(firsts, list(map(len, steps))))
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

    At least two weeks show it.
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
        # Not as an error: filters of warnings are those of all threads.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            offset = to_offset(step)
        if given_up := [w.message for w in caught if "deprecated" in str(w.message)]:
            raise ValueError(given_up[0])  # an alias that pandas is about to give up
    except (OverflowError, ValueError) as error:
        hint = re.search(r"(?:Did you mean|use) '?([A-Za-z]+(?:-[A-Z]+)?)", one_line(error))
        number = step[: len(step) - len(step.lstrip("0123456789 "))]
        instead = f"write {_beginning(number + hint[1])}" if hint else _REMEDY
        rule = "must be a frequency that pandas knows"
        raise refusal(path, "data.resample", rule, repr(step), instead) from None
    if offset.n < 1:
        rule = "must be a step forward in time"
        raise refusal(path, "data.resample", rule, repr(step), _REMEDY)
    if (instead := _beginning(step)) != step:
        rule = "must name the time at which a step begins"
        raise refusal(path, "data.resample", rule, f"{step!r}, the end of one", f"write {instead}")
    return offset


def _beginning(step: str) -> str:
    """Return the frequency of beginnings for one of ends: MS for ME."""
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
        raise refusal(path, "data.resample", rule, repr(step), _REMEDY) from None
    return edges[edges.searchsorted(first, side="right") - 1 :]


_NAMED = 5  # columns at most


@dataclass(frozen=True, eq=False)
class Coming:
    """Series with as many rows to come as are forecast, behind the last rows with targets.

    Of these rows the columns that are declared to be known have values; other columns lack them,
    and a target keeps its last one.
    """

    series: Series
    ends: np.ndarray  # (series,), the first row to come of each
    complete: np.ndarray  # (series,), how many of the first rows to come lack nothing
    known: list[str]  # the columns that are known there
    horizon: int

    @property
    def lasts(self) -> np.ndarray:
        """The last row of each series that a forecast can begin with, (series,)."""
        return np.asarray(self.ends - self.horizon + self.complete)

    def refuse(self, needed: np.ndarray, path: Path) -> None:
        """Refuse series without the known values of rows to come.

        Args:
            needed: (series,), bool: which are forecast.
        """
        lacking = np.flatnonzero(needed & (self.complete < self.horizon))
        if not len(lacking):
            return
        i = int(lacking[0])
        end, n = int(self.ends[i]), int(self.complete[i])
        block = self.series.frame[self.known].iloc[end + n : end + self.horizon].isna()
        absent = int((block.all(axis=1) if self.known else block.index >= 0).sum())
        columns = [name for name in self.known if block[name].any()]
        shown = ", ".join(columns[:_NAMED]) or "the time"
        shown += f" and {len(columns) - _NAMED} more" if len(columns) > _NAMED else ""
        more = f" (and {len(lacking) - 1} other series)" if len(lacking) > 1 else ""
        lack = int(block.any(axis=1).sum()) if self.known else absent
        rule = (
            f"the forecast needs what is known of the next {self.horizon} "
            f"row{'s' * (self.horizon > 1)} after {self._place(i, end - 1)}{self.series.whose(i)}, "
            f"and {lack} lack{'s' * (lack == 1)} {shown}, the first {self._place(i, end + n)}{more}"
        )
        remedy = "add such rows, without target, behind the last one, or give a file of them as "
        raise refusal(path, "data.known_future", rule, remedy=f"{remedy}--future")

    def _place(self, series: int, row: int) -> str:
        times = self.series.times
        if times is not None and not pd.isna(times[row]):
            return show_time(times[row])
        return f"row {row - self.series.bounds[series, 0] + 1}"


def with_future(series: Series, data: Preparation, future: Series, horizon: int) -> Series:
    """Return series with rows to come from another file in place of their own.

    Args:
        future: series of the same names, or one that holds for all of them, with the columns that
            are known. Rows that are not after the end of a series, or no step of it, are left out.
    """
    known = list(data.known_future or [])
    values, coming = series.frame.to_numpy(), future.frame[known].to_numpy(copy=True)
    levels = dict(series.levels)
    for place, name in enumerate(known):
        if name in levels:
            codes = coming[:, place]
            coming[:, place], levels[name] = merged(codes, future.levels[name], levels[name])
    at = [list(series.frame).index(name) for name in known]
    pieces = _Pieces([], [], [])
    for name, start, end in zip(series.names, series.bounds[:, 0], series.ends, strict=True):
        rows = np.empty(0, np.int64)
        if future.names == ("",) or name in future.names:
            of = 0 if future.names == ("",) else future.names.index(name)
            rows = np.arange(*future.bounds[of])
        if series.times is not None and future.times is not None:
            last, theirs = series.times[[end - 1]], future.times[rows]
            if series.frequency is None:
                rows = rows[theirs > last[0]]
            else:
                rows = rows[theirs.isin(following(last, series.frequency, horizon))]
            pieces.times += [series.times[start:end], future.times[rows]]
        block = np.full((len(rows), values.shape[1]), np.nan)
        block[:, at] = coming[rows]
        pieces.blocks += [values[start:end], block]
        pieces.lines += [series.lines[start:end], np.full(len(rows), -1)]
    inserted = np.zeros(sum(map(len, pieces.blocks)), bool)
    return dataclasses.replace(pieces.joined(series), inserted=inserted, levels=levels)


@dataclass
class _Pieces:
    """The rows of series in two pieces each: known and to come."""

    blocks: list[np.ndarray]
    lines: list[np.ndarray]
    times: list[pd.DatetimeIndex]

    def joined(self, series: Series) -> Series:
        lengths = np.array([len(block) for block in self.blocks])
        lines = np.concatenate(self.lines)
        times = None if series.times is None else self.times[0].append(self.times[1:])
        return dataclasses.replace(
            series,
            frame=pd.DataFrame(np.concatenate(self.blocks), columns=series.frame.columns),
            bounds=bounds_of(lengths[::2] + lengths[1::2]),
            lines=lines,
            inserted=lines < 0,
            times=None if times is None else pd.DatetimeIndex(times),
        )


def with_coming(series: Series, data: Preparation, horizon: int) -> Coming:
    """Return series with as many rows to come behind each as are forecast.

    Args:
        series: with even rows. Those behind the last target of a series are rows to come.
    """
    ends, known = series.ends, list(data.known_future or [])
    names = list(series.frame)
    at, of_targets = [[names.index(n) for n in of] for of in (known, series.targets)]
    values = series.frame.to_numpy()
    pieces, complete = _Pieces([], [], []), []
    for i, (start, end) in enumerate(zip(series.bounds[:, 0].tolist(), ends.tolist(), strict=True)):
        there = range(end, min(end + horizon, int(series.bounds[i, 1])))
        block = np.full((horizon, values.shape[1]), np.nan)
        block[: len(there), at] = values[there][:, at]
        whole = ~np.isnan(block[:, at]).any(axis=1)
        block[:, of_targets] = _last_values(values[start:end, of_targets])
        pieces.blocks += [values[start:end], block]
        pieces.lines += [series.lines[start:end], np.full(horizon, -1)]
        pieces.lines[-1][: len(there)] = series.lines[there]
        if series.times is not None:
            ahead = series.times[there]
            if len(ahead) < horizon:
                later = following(series.times[[end - 1]], series.frequency, horizon)[len(ahead) :]
                ahead = pd.DatetimeIndex(ahead.append(later))
            pieces.times += [series.times[start:end], ahead]
            if data.calendar:
                whole &= np.asarray(ahead.notna())
        complete.append(horizon if whole.all() else int(whole.argmin()))
    extended = pieces.joined(series)
    first_to_come = extended.bounds[:, 1] - horizon
    return Coming(extended, first_to_come, np.array(complete), known, horizon)


def _last_values(column: np.ndarray) -> np.ndarray:
    known = ~np.isnan(column)
    last = len(column) - 1 - known[::-1].argmax(axis=0)
    return np.asarray(column[last, np.arange(column.shape[1])])
