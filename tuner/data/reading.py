"""Reads a series from a CSV or Parquet file and refuses what no model can be trained on."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.data.tables import place_of, read_frame, refusal, separator_hint
from tuner.data.times import as_times, find_frequency, find_gaps, show_time
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
    """A series as it stands in its file, checked: finite, in order, without gaps."""

    path: Path
    sha256: str  # of the file
    rows: int  # in the file
    times: pd.DatetimeIndex | None  # of all rows, where there is a time column
    frequency: str | None  # as pandas writes it: MS, D, h, ...
    frame: pd.DataFrame  # float64; the feature and target columns
    features: list[str]
    targets: list[str]

    def until(self, row: int) -> Series:
        """Return the series with the values of the rows [0, row) alone."""
        return dataclasses.replace(self, frame=self.frame.iloc[:row].copy())

    def place(self, row: int) -> str:
        """Say where a row stands, as an editor counts lines, and its time if it has one."""
        place = place_of(self.path, row)
        return place if self.times is None else f"{place} ({show_time(self.times[row])})"


def read_series(data: Data) -> Series:
    """Read the file at `data.path`, an absolute path, and check the columns that are used.

    Without `data.features` every numeric column that has a name is a feature, save the time.

    Raises:
        DataError: the file or a column breaks a rule; naming file, key, rule, value and remedy.
    """
    path = Path(data.path)
    frame, raw = read_frame(path)
    check_names(path, [str(c) for c in frame], data.target, data.time, data.features or [])
    columns = {name: _numbers(path, "data.target", frame, name) for name in data.targets}
    features = data.features or [
        str(c) for c in frame if c != data.time and (c in columns or is_numeric_dtype(frame[c]))
    ]
    for name in features:
        if name not in columns:
            columns[name] = _numbers(path, "data.features", frame, name)
    times = None if data.time is None else _check_times(path, frame[data.time])
    series = Series(
        path=path,
        sha256=hashlib.sha256(raw).hexdigest(),
        rows=len(frame),
        times=times,
        frequency=None if times is None else _check_regular(path, times),
        frame=pd.DataFrame(columns),
        features=features,
        targets=data.targets,
    )
    _check_finite(series)
    return series


def check_names(
    path: Path, known: list[str], target: str | list[str], time: str | None, features: list[str]
) -> None:
    """Refuse a column that the file does not have.

    Raises:
        DataError: naming the key and the nearest name.
    """
    named = [("data.target", c) for c in ([target] if isinstance(target, str) else target)]
    named += [("data.time", time)] if time is not None else []
    named += [("data.features", c) for c in features]
    for key, name in named:
        if name not in known:
            hint = separator_hint(known) or nearest(name, known)
            raise refusal(path, key, f"no column {name!r} in the file{hint}")


def _step(step: pd.Timedelta) -> str:
    return str(step).removesuffix(" 00:00:00").removeprefix("0 days ")


def _numbers(path: Path, key: str, frame: pd.DataFrame, name: str) -> pd.Series:
    column = frame[name]
    if not is_numeric_dtype(column):
        numbers = pd.to_numeric(column.astype(object), errors="coerce")
        bad = np.flatnonzero(numbers.isna() & column.notna())
        if len(bad) == len(frame) and not any(is_numeric_dtype(frame[c]) for c in frame):
            text = f"the file has no numeric column, got {column[0]!r} in "
            raise refusal(path, key, text + f"{place_of(path, 0)} of {name!r}; give numbers")
        if len(bad):
            text = f"column {name!r} must hold numbers, got {column[bad[0]]!r} in "
            remedy = "; write a number there (1234.5), or choose another column"
            raise refusal(path, key, text + place_of(path, bad[0]) + remedy)
        column = numbers
    return column.astype(np.float64)


def _check_times(path: Path, column: pd.Series) -> pd.DatetimeIndex:
    parsed = as_times(column)
    if (bad := np.flatnonzero(parsed.isna())).size:
        value = column[bad[0]]
        got = "none" if pd.isna(value) else repr(value.item() if hasattr(value, "item") else value)
        text = f"column {column.name!r} must hold a time in every row, got {got} in "
        remedy = "; write 1960-01-31, 1960-01 or 1960, say, or leave data.time out"
        raise refusal(path, "data.time", text + place_of(path, bad[0]) + remedy)
    times = pd.DatetimeIndex(parsed)
    steps = np.flatnonzero(times[1:] <= times[:-1])
    if steps.size:
        row = int(steps[0]) + 1
        here, before = show_time(times[row]), show_time(times[row - 1])
        place, place_before = place_of(path, row), place_of(path, row - 1)
        if times[row] == times[row - 1]:
            text = f"no time may appear twice, got {here} in {place_before} and in {place}; "
            raise refusal(path, "data.time", text + "keep one of the rows")
        text = f"times must rise, got {here} in {place} after {before} in {place_before}; "
        raise refusal(path, "data.time", text + "sort the rows by time")
    return times


def _check_regular(path: Path, times: pd.DatetimeIndex) -> str | None:
    if len(times) < 3:
        return None
    frequency = find_frequency(times)
    if frequency is None:
        steps = times[1:] - times[:-1]
        row = int(np.flatnonzero(steps != steps[0])[0])
        at_first, here = _step(steps[0]), _step(steps[row])
        text = (
            f"times must be evenly spaced, got a step of {at_first} at first and of {here} "
            f"in {place_of(path, row + 1)} ({show_time(times[row + 1])}); resample the rows, or "
            f"leave data.time out to take them as they come"
        )
        raise refusal(path, "data.time", text)
    missing = find_gaps(times, frequency)
    if len(missing):
        row = int(times.searchsorted(missing[0]))
        text = (
            f"times must have no gaps, got {len(missing)} missing at frequency {frequency}, the "
            f"first {show_time(missing[0])} before {place_of(path, row)}; add the rows, or leave "
            f"data.time out to take them as they come"
        )
        raise refusal(path, "data.time", text)
    return frequency


def _check_finite(series: Series) -> None:
    usable = np.abs(series.frame.to_numpy()) < _LARGEST  # False for nan as well
    if usable.all():
        return
    row, at = np.argwhere(~usable)[0]
    name = str(series.frame.columns[at])
    value = float(series.frame.iloc[row, at])
    key = "data.target" if name in series.targets else "data.features"
    text = (
        f"column {name!r} must hold a finite number (below 1e30) in every row, got {value} in "
        f"{series.place(int(row))}; fill it in, or choose another column"
    )
    raise refusal(series.path, key, text)
