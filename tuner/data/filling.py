"""Makes the rows of series even, and fills what is missing in them from earlier rows alone."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.tseries.offsets import BaseOffset

from tuner.data.reading import Series
from tuner.data.tables import refusal
from tuner.data.times import every_time, show_time
from tuner.errors import one_line
from tuner.experiment.schema import Data

__all__ = ["even_rows", "fill"]

_MOST_STEPS = 20_000_000


def even_rows(series: Series, data: Data) -> Series:
    """Return the series with a row at every step of their frequency; missing ones are nan.

    With `data.resample` the rows in [t, t + step) become one at t. Steps are counted from the
    first midnight of 1970, so that they are the same in every file.

    Raises:
        DataError: the frequency is none, or there are steps without rows and `data.missing`
            refuses them.
    """
    if data.resample is not None:
        return _resample(series, data, data.resample)
    if series.frequency is None:
        return series
    frequency = series.frequency
    every = [every_time(series.times_of(i), frequency) for i in range(len(series.names))]
    if sum(map(len, every)) == len(series.frame):
        return series
    bounds = _bounds([len(times) for times in every])
    places = [
        start + times.searchsorted(series.times_of(i))
        for i, (times, (start, _)) in enumerate(zip(every, bounds, strict=True))
    ]
    rows = np.concatenate(places)
    values = np.full((int(bounds[-1, 1]), series.frame.shape[1]), np.nan)
    values[rows] = series.frame.to_numpy()
    lines = np.full(len(values), -1)
    lines[rows] = series.lines
    return dataclasses.replace(
        series,
        frame=pd.DataFrame(values, columns=series.frame.columns),
        bounds=bounds,
        lines=lines,
        times=pd.DatetimeIndex(every[0].append(list(every[1:]))),
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


def _resample(series: Series, data: Data, step: str) -> Series:
    assert series.times is not None
    offset = _offset(series.path, step)
    times = series.times
    edges = _edges(series.path, times.min(), times.max(), offset, step)
    bins = edges.searchsorted(times, side="right") - 1  # (rows,)
    firsts, lasts = bins[series.bounds[:, 0]], bins[series.bounds[:, 1] - 1]
    bounds = _bounds(list(lasts - firsts + 1))
    place = bins + np.repeat(bounds[:, 0] - firsts, np.diff(series.bounds)[:, 0])
    groups = series.frame.groupby(place)
    rows = groups.sum(min_count=1) if data.aggregate == "sum" else groups.agg(data.aggregate)
    made_of = np.concatenate([np.arange(a, b + 1) for a, b in zip(firsts, lasts, strict=True)])
    n_rows = int(bounds[-1, 1])
    if data.missing == "refuse" and len(rows) < n_rows:
        empty = np.setdiff1d(np.arange(n_rows), rows.index)
        at = int(bounds[:, 1].searchsorted(empty[0], side="right"))
        text = (
            f"no step may be without rows, got {len(empty)} such steps of {step}, the first "
            f"{show_time(edges[made_of[empty[0]]])}{series.whose(at)}; write a longer step, or "
            f"data.missing: ffill (or interpolate)"
        )
        raise refusal(series.path, "data.resample", text)
    return dataclasses.replace(
        series,
        frame=rows.reindex(np.arange(n_rows)),
        bounds=bounds,
        lines=np.full(n_rows, -1),
        times=edges[made_of],
        frequency=offset.freqstr,
    )


def _offset(path: Path, step: str) -> BaseOffset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an alias that pandas is about to give up
            offset = pd.tseries.frequencies.to_offset(step)
    except (ValueError, Warning) as error:
        hint = re.search(r"(?:Did you mean|use) '?([A-Za-z]+)'?", one_line(error))
        instead = f"write {hint[1]}" if hint else "write 15min, 1h or 1D, say"
        text = f"must be a frequency that pandas knows, got {step!r}; {instead}"
        raise refusal(path, "data.resample", text) from None
    if offset.n < 1:
        text = f"must be a step forward in time, got {step!r}; write 15min, 1h or 1D, say"
        raise refusal(path, "data.resample", text)
    return offset


def _edges(
    path: Path, first: pd.Timestamp, last: pd.Timestamp, offset: BaseOffset, step: str
) -> pd.DatetimeIndex:
    """Return the beginnings of all steps from the one with the first time to that with the last."""
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
    return edges[edges.searchsorted(first, side="right") - 1 :]


def _bounds(lengths: list[int]) -> np.ndarray:
    ends = np.cumsum(lengths)
    return np.column_stack([ends - np.array(lengths), ends])
