"""Reads series from a CSV or Parquet file and refuses what no model can be trained on."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.data.tables import (
    as_numbers,
    as_written,
    bounds_of,
    place_of,
    read_frame,
    refusal,
    separator_hint,
)
from tuner.data.times import as_times, common_frequency, find_frequency, find_gaps, show_time
from tuner.errors import nearest
from tuner.experiment.schema import Data

__all__ = [
    "Series",
    "check_names",
    "read_series",
]

_LARGEST = 1e30  # a float32 still holds it, and float64 its square


@dataclass(frozen=True, eq=False)
class Series:
    """One series, or several, their rows one after another, checked: in order, and no infinity."""

    path: Path
    sha256: str  # of the file
    rows: int  # in the file
    frame: pd.DataFrame  # (rows, columns) float64: features, targets, lagged ones; nan is missing
    bounds: np.ndarray  # (series, 2): the rows [start, end) of each
    names: tuple[str, ...]  # of each, from the id column; one empty name without it
    lines: np.ndarray  # (rows,): the row of the file that each was; -1 where it was none
    times: pd.DatetimeIndex | None  # of all rows, where there is a time column
    frequency: str | None  # of every series, as pandas writes it: MS, D, h, ...
    features: list[str]
    targets: list[str]

    def until(self, ends: np.ndarray) -> Series:
        """Return the first rows of each series alone, as many as `ends` (series,) says; copied."""
        rows = np.concatenate(
            [np.arange(start, start + n) for (start, _), n in zip(self.bounds, ends, strict=True)]
        )
        return dataclasses.replace(
            self,
            frame=self.frame.iloc[rows].reset_index(drop=True),
            bounds=bounds_of(ends),
            lines=self.lines[rows],
            times=None if self.times is None else self.times[rows],
        )

    def times_of(self, series: int) -> pd.DatetimeIndex:
        """Return the times of one of the series, which has times."""
        assert self.times is not None
        return self.times[slice(*self.bounds[series])]

    def place(self, row: int) -> str:
        """Say where a row stands, as an editor counts lines, its time and its series."""
        line = int(self.lines[row])
        place = "a row that is in no line" if line < 0 else place_of(self.path, line)
        if self.times is not None:
            place += f" ({show_time(self.times[row])})"
        return place + self.whose(int(self.bounds[:, 1].searchsorted(row, side="right")))

    def whose(self, series: int) -> str:
        """Name a series where there are several."""
        return f" of series {self.names[series]!r}" if len(self.names) > 1 else ""

    def key_of(self, column: str) -> str:
        """Return the key of the experiment that a column is read for."""
        if column in self.targets:
            return "data.target"
        return "data.features" if column in self.features else "data.lags"


def read_series(data: Data) -> Series:
    """Read the file at `data.path`, an absolute path, and check the columns that are used.

    Without `data.features` every numeric column that has a name is a feature, save the time and
    the id. What is missing stays missing, if `data.missing` allows it.

    Raises:
        DataError: the file or a column breaks a rule; naming file, key, rule, value and remedy.
    """
    path = Path(data.path)
    frame, raw = read_frame(path)
    lagged = list(data.lags)
    names = [str(c) for c in frame]
    check_names(path, names, data.target, data.time, data.features or [], id=data.id, lags=lagged)
    columns = {name: _numbers(path, "data.target", frame, name) for name in data.targets}
    features = data.features or [
        str(c)
        for c in frame
        if c not in (data.time, data.id) and (c in columns or is_numeric_dtype(frame[c]))
    ]
    for key, used in (("data.features", features), ("data.lags", lagged)):
        for name in used:
            if name not in columns:
                columns[name] = _numbers(path, key, frame, name)
    ids = None if data.id is None else as_written(path, raw, frame, [data.id])[data.id]
    order, bounds, series_names = _group(path, data.id, ids, len(frame))
    times = None if data.time is None else _parse_times(path, data, frame[data.time])[order]
    series = Series(
        path=path,
        sha256=hashlib.sha256(raw).hexdigest(),
        rows=len(frame),
        frame=pd.DataFrame(columns).iloc[order].reset_index(drop=True),
        bounds=bounds,
        names=series_names,
        lines=order,
        times=times,
        frequency=None,
        features=features,
        targets=data.targets,
    )
    if times is not None:
        _check_order(series, times, may_repeat=data.resample is not None)
        if data.resample is None:
            series = dataclasses.replace(series, frequency=_check_regular(series, data))
    _check_finite(series, data)
    return series


def check_names(
    path: Path,
    known: list[str],
    target: str | list[str],
    time: str | None,
    features: list[str],
    *,
    id: str | None = None,
    lags: list[str] | None = None,
) -> None:
    """Refuse a column that the file does not have, or that cannot be what it is named for.

    Raises:
        DataError: naming the key and the nearest name.
    """
    named = [("data.target", c) for c in ([target] if isinstance(target, str) else target)]
    named += [("data.time", time)] if time is not None else []
    named += [("data.id", id)] if id is not None else []
    named += [("data.features", c) for c in features]
    named += [("data.lags", c) for c in lags or []]
    for key, name in named:
        if name not in known:
            hint = separator_hint(known) or nearest(name, known)
            raise refusal(path, key, f"no column {name!r} in the file{hint}")
        if key == "data.lags" and name in (time, id):
            text = f"must name columns of numbers, got {name!r}, which is the "
            raise refusal(path, key, text + ("time" if name == time else "id") + "; remove it")


def _numbers(path: Path, key: str, frame: pd.DataFrame, name: str) -> np.ndarray:
    column = frame[name]
    values, bad = as_numbers(column)
    if len(bad) == len(frame) and not any(is_numeric_dtype(frame[c]) for c in frame):
        text = f"the file has no numeric column, got {column[0]!r} in "
        raise refusal(path, key, text + f"{place_of(path, 0)} of {name!r}; give numbers")
    if len(bad):
        text = f"column {name!r} must hold numbers, got {column[bad[0]]!r} in "
        remedy = "; write a number there (1234.5), or choose another column"
        raise refusal(path, key, text + place_of(path, bad[0]) + remedy)
    return values


def _group(
    path: Path, column: str | None, ids: np.ndarray | None, n_rows: int
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the rows of the file series by series, each one's bounds there, and their names."""
    if ids is None:
        return np.arange(n_rows), np.array([[0, n_rows]]), ("",)
    if (bad := np.flatnonzero(ids == "")).size:
        text = f"column {column!r} must say in every row which series it belongs to, got none in "
        raise refusal(path, "data.id", text + place_of(path, bad[0]) + "; fill it in")
    codes, found = pd.factorize(ids)
    bounds = bounds_of(np.bincount(codes))
    return np.argsort(codes, kind="stable"), bounds, tuple(map(str, found))


def _parse_times(path: Path, data: Data, column: pd.Series) -> pd.DatetimeIndex:
    parsed = as_times(column)
    if (bad := np.flatnonzero(parsed.isna())).size:
        value = column[bad[0]]
        got = "none" if pd.isna(value) else repr(value.item() if hasattr(value, "item") else value)
        text = f"column {column.name!r} must hold a time in every row, got {got} in "
        remedy = _remedy(data, "write 1960-01-31, 1960-01 or 1960, say")
        raise refusal(path, "data.time", text + place_of(path, bad[0]) + remedy)
    return pd.DatetimeIndex(parsed)


def _check_order(series: Series, times: pd.DatetimeIndex, *, may_repeat: bool) -> None:
    path = series.path
    falling = times[1:] < times[:-1] if may_repeat else times[1:] <= times[:-1]
    falling[series.bounds[:-1, 1] - 1] = False  # from one series to the next
    if not falling.any():
        return
    row = int(np.flatnonzero(falling)[0]) + 1
    here, before = show_time(times[row]), show_time(times[row - 1])
    place, place_before = (place_of(path, int(series.lines[r])) for r in (row, row - 1))
    place += series.whose(int(series.bounds[:, 1].searchsorted(row, side="right")))
    remedy = ""
    if len(series.names) == 1 and times.has_duplicates:
        remedy = ", or name the column that tells several series apart as data.id"
    if times[row] == times[row - 1]:
        text = f"no time may appear twice, got {here} in {place_before} and in {place}; "
        raise refusal(path, "data.time", text + "keep one of the rows" + remedy)
    text = f"times must rise, got {here} in {place} after {before} in {place_before}; "
    raise refusal(path, "data.time", text + "sort the rows by time" + remedy)


def _check_regular(series: Series, data: Data) -> str | None:
    every = [series.times_of(i) for i in range(len(series.names))]
    frequency = common_frequency(every)
    if frequency is None:
        if max(map(len, every)) < 3:
            return None
        raise _uneven(series, data, every)
    for i, times in enumerate(every if data.missing == "refuse" else []):
        missing = find_gaps(times, frequency)
        if len(missing):
            row = int(series.bounds[i, 0] + times.searchsorted(missing[0]))
            text = (
                f"times must have no gaps, got {len(missing)} missing at frequency {frequency}, "
                f"the first {show_time(missing[0])} before "
                f"{place_of(series.path, int(series.lines[row]))}{series.whose(i)}"
            )
            ways = ("add the rows", "write data.missing: ffill (or interpolate)")
            raise refusal(series.path, "data.time", text + _remedy(data, *ways))
    return frequency


def _remedy(data: Data, *ways: str) -> str:
    """Say what helps: for one series alone, to do without times as well.

    Several would be cut each by its own rows: one be trained on what is later than another's test.
    """
    if data.id is None:
        ways = (*ways, "leave data.time out to take the rows as they come")
    return "; " + ", ".join([*ways[:-1], f"or {ways[-1]}" if len(ways) > 1 else ways[0]])


def _uneven(series: Series, data: Data, every: list[pd.DatetimeIndex]) -> Exception:
    """Return the refusal of series that have no common frequency."""
    found = {i: find_frequency(times) for i, times in enumerate(every) if len(times) > 2}
    remedy = _remedy(data, "write data.resample: 1h, say")
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


def _step(step: pd.Timedelta) -> str:
    return str(step).removesuffix(" 00:00:00").removeprefix("0 days ")


def _check_finite(series: Series, data: Data) -> None:
    values = series.frame.to_numpy()
    usable = np.abs(values) < _LARGEST  # False for nan as well
    if data.missing != "refuse":
        usable |= np.isnan(values)
    if usable.all():
        return
    row, at = np.argwhere(~usable)[0]
    name, value = str(series.frame.columns[at]), float(values[row, at])
    remedy = "fill it in, write data.missing: ffill (or interpolate), or choose another column"
    text = (
        f"column {name!r} must hold a finite number (below 1e30) in every row, got {value} in "
        f"{series.place(int(row))}; "
        f"{remedy if np.isnan(value) else 'correct it, or choose another column'}"
    )
    raise refusal(series.path, series.key_of(name), text)
