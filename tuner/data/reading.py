"""Reads a series from a CSV or Parquet file and refuses what no model can be trained on."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.data.times import find_frequency, find_gaps, parse_times, show_time
from tuner.errors import DataError, nearest, one_line, show_path
from tuner.experiment.schema import Data

__all__ = ["Series", "read_frame", "read_series", "refusal"]

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
        place = _place(self.path, row)
        return place if self.times is None else f"{place} ({show_time(self.times[row])})"


def refusal(path: Path | str, key: str, text: str) -> DataError:
    """Return the error that names a file, a key of the experiment, a rule, a value, a remedy."""
    return DataError(f"{show_path(path)}: {key}: {one_line(text)}")


def read_series(data: Data) -> Series:
    """Read the file at `data.path`, an absolute path, and check the columns that are used.

    Without `data.features` every numeric column that has a name is a feature, save the time.

    Raises:
        DataError: the file or a column breaks a rule; naming file, key, rule, value and remedy.
    """
    path = Path(data.path)
    frame, raw = read_frame(path)
    _check_names(path, data, [str(c) for c in frame.columns])
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


def read_frame(path: Path) -> tuple[pd.DataFrame, bytes]:
    """Return the table in a CSV or Parquet file as it stands, and the file's bytes.

    Raises:
        DataError: the file is missing, empty, without rows, or no such file.
    """
    raw = _read_bytes(path)
    frame = _parse_parquet(path, raw) if _is_parquet(path) else _parse_csv(path, raw)
    if frame.empty:
        raise refusal(path, "data.path", "has column names but no rows; give a file with rows")
    return frame, raw


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise refusal(path, "data.path", "no such file; check the path") from None
    except IsADirectoryError:
        raise refusal(path, "data.path", "is a folder; give the CSV file in it") from None
    except OSError as error:
        raise refusal(path, "data.path", f"cannot be read: {error.strerror}") from None
    if not raw.strip():
        text = "is empty; give a CSV file: a line of column names, then rows"
        raise refusal(path, "data.path", text)
    return raw


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def _parse_parquet(path: Path, raw: bytes) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(io.BytesIO(raw))
    except (ImportError, OSError, ValueError) as error:
        text = f"is no Parquet file: {one_line(error)}; write it again, or as CSV"
        raise refusal(path, "data.path", text) from None
    return frame.reset_index(drop=frame.index.name is None)


def _parse_csv(path: Path, raw: bytes) -> pd.DataFrame:
    try:
        text = raw.rstrip().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        problem = f"must be UTF-8 text, got byte {byte} in line {line}; save the file as UTF-8"
        raise refusal(path, "data.path", problem) from None
    try:
        records = csv.reader(io.StringIO(text, newline=""))
        header = [c.strip() for c in next(records)]
        if not any(header):
            problem = "line 1 must name the columns, got an empty line; remove it"
            raise refusal(path, "data.path", problem)
        for name in header:
            if name and header.count(name) > 1:
                problem = f"column names must differ, got {name!r} twice in line 1; rename one"
                raise refusal(path, "data.path", problem)
        if len(next(records, [])) > len(header):  # pandas would take the first for row names
            problem = (
                f"line 2 must not have more values than line 1 has column names, {len(header)}; "
                f"name every column"
            )
            raise refusal(path, "data.path", problem)
        frame = pd.read_csv(io.StringIO(text), low_memory=False, skip_blank_lines=False)
    except (csv.Error, ValueError) as error:  # pandas' ParserError is a ValueError
        problem = f"is not a CSV file: {one_line(error)}; correct that line"
        raise refusal(path, "data.path", problem) from None
    frame.columns = pd.Index(header)
    return frame[[name for name in header if name]]


def _check_names(path: Path, data: Data, known: list[str]) -> None:
    named = [("data.target", c) for c in data.targets]
    named += [("data.time", data.time)] if data.time is not None else []
    named += [("data.features", c) for c in data.features or []]
    for key, name in named:
        if name not in known:
            hint = separator_hint(known) or nearest(name, known)
            raise refusal(path, key, f"no column {name!r} in the file{hint}")


def _step(step: pd.Timedelta) -> str:
    return str(step).removesuffix(" 00:00:00").removeprefix("0 days ")


def separator_hint(columns: list[str]) -> str:
    """Return what to say of a file whose lines are one column, if another separator is why."""
    found = [c for c in ";\t|" if len(columns) == 1 and c in columns[0]]
    return f"; its columns seem separated by {found[0]!r}: write commas instead" if found else ""


def _numbers(path: Path, key: str, frame: pd.DataFrame, name: str) -> pd.Series:
    column = frame[name]
    if not is_numeric_dtype(column):
        numbers = pd.to_numeric(column.astype(object), errors="coerce")
        bad = np.flatnonzero(numbers.isna() & column.notna())
        if len(bad) == len(frame) and not any(is_numeric_dtype(frame[c]) for c in frame):
            text = f"the file has no numeric column, got {column[0]!r} in "
            raise refusal(path, key, text + f"{_place(path, 0)} of {name!r}; give numbers")
        if len(bad):
            text = f"column {name!r} must hold numbers, got {column[bad[0]]!r} in "
            remedy = "; write a number there (1234.5), or choose another column"
            raise refusal(path, key, text + _place(path, bad[0]) + remedy)
        column = numbers
    return column.astype(np.float64)


def _check_times(path: Path, column: pd.Series) -> pd.DatetimeIndex:
    parsed = parse_times(column)
    if (bad := np.flatnonzero(parsed.isna())).size:
        value = column[bad[0]]
        got = "none" if pd.isna(value) else repr(value.item() if hasattr(value, "item") else value)
        text = f"column {column.name!r} must hold a time in every row, got {got} in "
        remedy = "; write 1960-01-31, 1960-01 or 1960, say, or leave data.time out"
        raise refusal(path, "data.time", text + _place(path, bad[0]) + remedy)
    times = pd.DatetimeIndex(parsed)
    steps = np.flatnonzero(times[1:] <= times[:-1])
    if steps.size:
        row = int(steps[0]) + 1
        here, before = show_time(times[row]), show_time(times[row - 1])
        place, place_before = _place(path, row), _place(path, row - 1)
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
            f"in {_place(path, row + 1)} ({show_time(times[row + 1])}); resample the rows, or "
            f"leave data.time out to take them as they come"
        )
        raise refusal(path, "data.time", text)
    missing = find_gaps(times, frequency)
    if len(missing):
        row = int(times.searchsorted(missing[0]))
        text = (
            f"times must have no gaps, got {len(missing)} missing at frequency {frequency}, the "
            f"first {show_time(missing[0])} before {_place(path, row)}; add the rows, or leave "
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


def _place(path: Path, row: int) -> str:
    """Say where a row stands: in the lines of the file, of which the header is line 1."""
    if _is_parquet(path):
        return f"row {row + 1}"
    with path.open(encoding="utf-8-sig", newline="") as file:
        records = csv.reader(file)  # a quoted value may span lines
        line = 1
        for record, _ in enumerate(records):
            if record == row + 1:
                return f"line {line}"
            line = records.line_num + 1
    return f"row {row + 1}"  # the file has changed meanwhile
