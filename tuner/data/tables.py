"""Reads the table in a CSV or Parquet file as it stands, and says what is wrong with the file."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.data.written import as_written, without_blank_end
from tuner.errors import DataError, one_line, show_path

__all__ = [
    "RawTable",
    "as_numbers",
    "bounds_of",
    "place_of",
    "read_frame",
    "refusal",
    "separator_hint",
]

_TIME = "time"  # what a table's index of times is called that has no name
_VALUE = re.compile(r"[-+.]?\d[-+.:/\d TZe]*")  # a number or a time, no name of a column
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d\d.*)?")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def refusal(path: Path | str, key: str, text: str) -> DataError:
    """Return the error that names a file, a key of the experiment, a rule, a value, a remedy."""
    return DataError(f"{show_path(path)}: {key}: {one_line(text)}")


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as it stands in a file, or as somebody handed it over."""

    path: Path
    frame: pd.DataFrame
    raw: bytes | None  # of the file; None where there is none

    @classmethod
    def read(cls, path: Path) -> RawTable:
        """Read a CSV or Parquet file.

        Raises:
            DataError: the file is missing, empty, without rows, or no such file.
        """
        return cls(path, *read_frame(path))

    @classmethod
    def held(cls, frame: pd.DataFrame) -> RawTable:
        """Take a table that is in memory; levels of its index that have a name are columns.

        Raises:
            DataError: it has no rows, or two columns of one name.
        """
        path = Path("data frame")
        table = _with_index(path, frame)
        _check_rows(path, table)
        return cls(path, table, None)

    @property
    def names(self) -> list[str]:
        """Of its columns."""
        return [str(c) for c in self.frame]

    @property
    def sha256(self) -> str:
        """Of the file; of no bytes where there is none."""
        return hashlib.sha256(self.raw or b"").hexdigest()

    def written(self, names: Iterable[str], tokens: str | None = None) -> dict[str, np.ndarray]:
        """Return columns as they are written, (rows,) of str; see `as_written`."""
        text = None if _is_parquet(self.path) else self.raw
        return as_written(text, self.frame, names, tokens)


def read_frame(path: Path) -> tuple[pd.DataFrame, bytes]:
    """Return the table in a CSV or Parquet file as it stands, and the file's bytes.

    Raises:
        DataError: the file is missing, empty, without rows, or no such file.
    """
    raw = _read_bytes(path)
    frame = _parse_parquet(path, raw) if _is_parquet(path) else _parse_csv(path, raw)
    _check_rows(path, frame)
    return frame, raw


def as_numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return a column's numbers, (rows,) float64, nan for none, and the rows that hold no number.

    A whole number that is too large for float64 is infinite.
    """
    numbers = column
    if not is_numeric_dtype(column):
        values = column.astype(object).map(lambda v: str(v) if type(v) is int else v)
        numbers = pd.to_numeric(values, errors="coerce")
    bad = np.flatnonzero(numbers.isna() & column.notna())
    return numbers.to_numpy(np.float64, na_value=np.nan, copy=True), bad


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


def _check_rows(path: Path, frame: pd.DataFrame) -> None:
    if frame.empty:
        raise refusal(path, "data.path", "has column names but no rows; give a file with rows")


def place_of(path: Path, row: int) -> str:
    """Say where a row stands: in the lines of the file, of which the header is line 1."""
    if _is_parquet(path) or not path.is_file():
        return f"row {row + 1}"
    with path.open(encoding="utf-8-sig", newline="") as file:
        for record, (line, _) in enumerate(_records(file)):
            if record == row + 1:
                return f"line {line}"
    return f"row {row + 1}"  # the file has changed meanwhile


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def _parse_parquet(path: Path, raw: bytes) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(io.BytesIO(raw))
    except (ImportError, OSError, ValueError) as error:
        text = f"is no Parquet file: {one_line(error)}; write it again, or as CSV"
        raise refusal(path, "data.path", text) from None
    return _with_index(path, frame)


def _with_index(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which the levels of the index that have a name are columns.

    An index of times without a name is the column `time`, where no column is called so.
    """
    levels = list(frame.index.names)
    if levels == [None] and isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex):
        levels = [None if _TIME in frame else _TIME]
    index = [
        pd.Series(frame.index.get_level_values(level), name=name)
        for level, name in enumerate(levels)
        if name is not None
    ]
    frame = pd.concat([*index, frame.reset_index(drop=True)], axis=1)
    names = [str(c) for c in frame]
    _check_differ(path, names, "among columns and index")
    return frame.set_axis(names, axis=1)


def _parse_csv(path: Path, raw: bytes) -> pd.DataFrame:
    try:
        text = without_blank_end(raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        problem = f"must be UTF-8 text, got byte {byte} in line {line}; save the file as UTF-8"
        raise refusal(path, "data.path", problem) from None
    header: list[str] = []
    try:
        records = _records(io.StringIO(text, newline=""))
        header = _check_header(path, next(records)[1])
        if len(next(records, (2, []))[1]) > len(header):  # pandas would take them for row names
            raise _ragged(path, text, header)
        frame = pd.read_csv(
            io.StringIO(text),
            low_memory=False,
            skip_blank_lines=False,
            skipinitialspace=True,  # blanks alone are no value
        )
    except (csv.Error, ValueError) as error:  # pandas' ParserError is a ValueError
        raise _ragged(path, text, header, error) from None
    frame.columns = pd.Index(header)
    return frame[[name for name in header if name]]


def _check_header(path: Path, record: list[str]) -> list[str]:
    header = [c.strip() for c in record]
    if not any(header):
        problem = "line 1 must name the columns, got an empty line; remove it"
        raise refusal(path, "data.path", problem)
    kinds = [any(kind.fullmatch(c) for c in header) for kind in (_DATE, _NUMBER)]
    if all(kinds) or all(_VALUE.fullmatch(c) for c in header):  # a date and a number: a row
        problem = f"line 1 must name the columns, got the values {', '.join(header)}; "
        raise refusal(path, "data.path", problem + "write a line of names before it (time,value)")
    _check_differ(path, header, "in line 1")
    return header


def _check_differ(path: Path, names: list[str], where: str) -> None:
    for name in names:
        if name and names.count(name) > 1:
            problem = f"column names must differ, got {name!r} twice {where}; rename one"
            raise refusal(path, "data.path", problem)


def _ragged(path: Path, text: str, header: list[str], error: Exception | str = "") -> DataError:
    """Return the refusal of the first line with more values than columns, else of `error`."""
    try:
        for line, record in _records(io.StringIO(text, newline="")):
            if header and len(record) > len(header):
                if hint := separator_hint(header, decimal_commas=True):
                    return refusal(path, "data.path", hint.removeprefix("; "))
                problem = (
                    f"line {line} has {len(record)} values, line 1 names {len(header)} columns"
                )
                remedy = "; correct that line, or name every column in line 1"
                return refusal(path, "data.path", problem + remedy)
        if "EOF inside string" in str(error):
            error = f"the quote that line {line} opens is never closed"
    except csv.Error:
        pass
    return refusal(path, "data.path", f"is not a CSV file: {one_line(error)}; correct that line")


def separator_hint(columns: list[str], decimal_commas: bool = False) -> str:
    """Return what to say of a file whose lines are one column, if another separator is why."""
    found = [c for c in ";\t|" if len(columns) == 1 and c in columns[0]]
    if not found:
        return ""
    if not decimal_commas:
        return f"; its columns seem separated by {found[0]!r}: write commas instead"
    return (
        f"; its columns seem separated by {found[0]!r} and its numbers use decimal commas: write "
        f"commas between columns and points in numbers"
    )


def _records(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a CSV file with their lines; a quoted value may span lines."""
    records = csv.reader(lines, skipinitialspace=True)
    line = 1
    for record in records:
        yield line, record
        line = records.line_num + 1


def bounds_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the rows [start, end) of stretches that stand one after another, (stretches, 2)."""
    ends = np.cumsum(lengths)
    return np.column_stack([ends - np.asarray(lengths), ends])
