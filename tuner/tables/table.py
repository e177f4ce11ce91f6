"""Tables in memory: read from one file or two, from wide to long."""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from tuner.errors import DataError, nearest, refusal, show_path
from tuner.pipeline_steps import LINE_KEYS, Dialect
from tuner.tables.dialects import (
    check_differ,
    delimiter,
    found_dialect,
    header_of,
    parse_text,
    records_of,
    without_blank_end,
)
from tuner.tables.files import (
    decoded,
    is_typed,
    is_workbook,
    parse_typed,
    read_bytes,
    workbook_text,
)
from tuner.tables.numbers import Ambiguity, with_numbers
from tuner.tables.timestamps import with_format, with_joined_time

if TYPE_CHECKING:
    from tuner.experiment.data import Data


_TIME = "time"  # the name of an index of times without one
_UNDECLARED = Dialect()


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as it stands in a file or in memory; its texts of numbers are numbers."""

    path: Path
    frame: pd.DataFrame
    sha256: str  # of the file; of no bytes where there is none
    dialect: Dialect = _UNDECLARED  # how it is written: what was declared, and what was found
    body: str | None = None  # the line of names and the rows; None of a table that has types
    ambiguous: dict[str, Ambiguity] = field(default_factory=dict)  # texts that seem to be numbers
    typed: pd.DataFrame | None = None  # the table as it was, where it has types
    lines: np.ndarray | None = None  # (rows,), of the file, where they are not the same
    points_certain: bool = True  # whether 1.234 is less than two
    reusable_keys: tuple[str, ...] = ()  # declared keys of its lines that detection does not find
    notes: tuple[str, ...] = ()  # on the file, where it is not a plain one

    @classmethod
    def read(cls, path: Path, dialect: Dialect = _UNDECLARED, time: str | None = None) -> RawTable:
        """Read a CSV, Excel, JSON lines or Parquet file.

        Args:
            path: of the file; its ending gives the format, which is CSV by default.
            time: the name of the column that `dialect.time_columns` are joined into.

        Raises:
            DataError: the file is missing, empty, without rows, or of another format.
        """
        raw = read_bytes(path)
        sha256 = hashlib.sha256(raw).hexdigest()
        if is_typed(path):
            frame = _with_index(path, parse_typed(path, raw))
            _check_rows(path, frame)
            return cls(path, frame, sha256, dialect.without_lines())._prepared(dialect, time)
        if is_workbook(path):
            text, found = workbook_text(path, raw), dialect
        else:
            text, encoding = decoded(path, raw, dialect.encoding)
            text, found = without_blank_end(text), replace(dialect, encoding=encoding)
        del raw
        parsed = parse_text(path, text, found)
        _check_rows(path, parsed.frame)
        table = cls(
            path, parsed.frame, sha256, parsed.dialect, parsed.body,
            points_certain=parsed.points_certain,
            reusable_keys=_reusable_keys(text, parsed.dialect, dialect),
        )  # fmt: skip
        repeated = _repeats_names(parsed.frame)
        if repeated.any():
            note = f"repeated names of the columns: {int(repeated.sum())} rows, left out"
            table = table.take_rows(np.flatnonzero(~repeated), note)
        return table._prepared(dialect, time)

    @classmethod
    def from_frame(
        cls, frame: pd.DataFrame, dialect: Dialect = _UNDECLARED, time: str | None = None
    ) -> RawTable:
        """Take a table that is in memory; levels of its index that have a name are columns.

        Raises:
            DataError: it has no rows, or two columns of one name.
        """
        path = Path("data frame")
        table = _with_index(path, frame)
        _check_rows(path, table)
        empty = hashlib.sha256(b"").hexdigest()
        return cls(path, table, empty, dialect.without_lines())._prepared(dialect, time)

    def _prepared(self, declared: Dialect, time: str | None) -> RawTable:
        """Return the table with numbers that are written as texts, and with its time joined."""
        typed, certain = self.frame if self.body is None else None, self.points_certain
        frame, dialect, ambiguous = with_numbers(
            self.frame, self.dialect, points_certain=certain, keep_plain=typed is not None
        )
        if declared.missing_values:
            frame = _without_numbers(frame, declared.missing_values)
        notes = (*self.notes, *_described(dialect, declared))
        table = replace(
            self, frame=frame, dialect=dialect, ambiguous=ambiguous, typed=typed, notes=notes
        )
        if time is None:
            return table
        empty = frame.isna().all(axis=1).to_numpy()
        if empty.any() and not empty.all():
            note = f"empty rows: {int(empty.sum())}, left out"
            table = table.take_rows(np.flatnonzero(~empty), note)
        if dialect.time_columns:
            return replace(table, frame=with_joined_time(table.path, table.frame, dialect, time))
        return table

    def take_rows(self, rows: np.ndarray, note: str) -> RawTable:
        """Return the table with some rows, (n,), rising; each keeps its place in the file."""
        places = self.ambiguous.items()
        return replace(
            self,
            frame=self.frame.iloc[rows].reset_index(drop=True),
            typed=None if self.typed is None else self.typed.iloc[rows].reset_index(drop=True),
            lines=rows if self.lines is None else self.lines[rows],
            ambiguous={n: replace(a, row=int(rows.searchsorted(a.row))) for n, a in places},
            notes=(*self.notes, note),
        )

    @property
    def names(self) -> list[str]:
        """The names of its columns."""
        return [str(c) for c in self.frame]

    def check_has(self, key: str, name: str) -> None:
        """Refuse a name that no column has."""
        if name not in self.names:
            remedy = nearest(name, self.names)
            raise refusal(self.path, key, f"no column {name!r} in the file", remedy=remedy)

    def check_certain(self, key: str, name: str, change: str = "", place: str = "") -> None:
        """Refuse a column of texts that seems to hold numbers; `change` is one more remedy."""
        if ambiguity := self.ambiguous.get(name):
            rule, got = f"column {name!r} {ambiguity.rule}", self.value_of(ambiguity, place)
            changes = (*ambiguity.changes, change)
            raise refusal(self.path, key, rule, got, ambiguity.remedy, changes)

    def value_of(self, ambiguity: Ambiguity, place: str = "") -> str:
        """Return the value that keeps a column from being one of numbers, and its place."""
        return ambiguity.got.replace("{place}", place or self.place_of(ambiguity.row))

    def numbers(self, key: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return `as_numbers` of a column; refuse one that is not there, or is ambiguous."""
        self.check_has(key, name)
        self.check_certain(key, name)
        return as_numbers(self.frame[name])

    def place_of(self, row: int) -> str:
        """Return where a row stands in the file: `line 2`, counted from 1."""
        row = row if self.lines is None else int(self.lines[row])
        return place_of(self.path, row, self.dialect)

    @property
    def reusable_dialect(self) -> Dialect:
        """The dialect of other files of its kind: lines above and below the rows are found anew."""
        kept = {key: getattr(self.dialect, key) for key in self.reusable_keys}
        return replace(self.dialect.without_lines(), **kept)

    def raw_strings(self, names: Iterable[str], tokens: str | None = None) -> dict[str, np.ndarray]:
        """Return columns as the file stores them, (rows,) of str; "" where there is nothing.

        A column of numbers would lose the zero of 01, write 1 as 1.0 if 2.5 stands below it, and
        take NA and null for missing. White space around a value is left out, but of a value of
        the column `tokens` that is white space alone: a space between two words.
        """
        wanted = set(names)
        columns: dict[str, Iterable[str]] = {}
        if self.body is not None and wanted:
            separator = delimiter(self.dialect)
            records = csv.reader(io.StringIO(self.body), delimiter=separator, skipinitialspace=True)
            header = header_of(next(records))
            table = pd.read_csv(
                io.StringIO(self.body),
                sep=separator,
                names=header,
                header=0,
                dtype=str,
                na_filter=False,
                skip_blank_lines=False,  # as in `frame`: a row is a row
                skipinitialspace=tokens is None,
                usecols=[name for name in header if name in wanted],
            )
            rows = slice(None) if self.lines is None else self.lines
            columns = {str(name): table[name].to_numpy()[rows] for name in table}
        typed = self.frame if self.typed is None else self.typed
        for name in wanted - columns.keys():
            column = (typed if name in typed else self.frame)[name]
            cells = ["" if none else v for v, none in zip(column, column.isna(), strict=True)]
            whole = [isinstance(cell, float) and cell.is_integer() for cell in cells]
            columns[name] = [str(int(v) if w else v) for v, w in zip(cells, whole, strict=True)]
        found = {}
        for name, values in columns.items():
            codes, texts = pd.factorize(np.asarray(values, dtype=object))  # few differ
            bare = [v.strip() or (v if name == tokens else "") for v in texts]
            found[name] = np.array(bare, dtype=object)[codes]
        return found

    def times(self, name: str) -> pd.Series:
        """Return the column of times, parsed if a format is declared."""
        return with_format(self.frame[name], self.dialect.date_format)


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


def _without_numbers(frame: pd.DataFrame, missing: Sequence[str]) -> pd.DataFrame:
    """Return the table without the numbers that are declared to stand for no value: -999."""
    numbers = pd.to_numeric(pd.Series(list(missing), dtype=object), errors="coerce").dropna()
    columns: dict[str, Any] = {
        str(name): frame[name].mask(frame[name].isin(numbers.tolist()))
        for name in frame
        if is_numeric_dtype(frame[name]) and not is_bool_dtype(frame[name])
    }
    return frame.assign(**columns)


def _described(dialect: Dialect, declared: Dialect) -> list[str]:
    return [
        f"{key}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in dialect.to_dict().items()
        if getattr(declared, key) is None
    ]


def _repeats_names(frame: pd.DataFrame) -> np.ndarray:
    """Return which rows hold the names of the columns, (rows,) of bool."""
    repeated = np.ones(len(frame), bool)
    for name in frame:
        if is_numeric_dtype(frame[name]) or not repeated.any():
            return np.zeros(len(frame), bool)
        repeated &= (frame[name] == name).to_numpy(bool, na_value=False)
    return repeated


def _reusable_keys(text: str, dialect: Dialect, declared: Dialect) -> tuple[str, ...]:
    """Return the declared keys of lines above and below the rows that detection does not find."""
    if declared == declared.without_lines():
        return ()
    found = found_dialect(text, dialect.without_lines())
    return tuple(
        key
        for key in LINE_KEYS
        if getattr(declared, key) and getattr(found, key) != getattr(declared, key)
    )


def _check_rows(path: Path, frame: pd.DataFrame) -> None:
    if frame.empty:
        rule = "has column names but no rows"
        raise refusal(path, "data.path", rule, remedy="give a file with rows")


def place_of(path: Path, row: int, dialect: Dialect = _UNDECLARED) -> str:
    """Return where a row stands in the file: `line 2`, counted from 1; else `row 1`."""
    if is_typed(path) or not path.is_file():
        return f"row {row + 1}"
    try:
        if is_workbook(path):
            text, unit = _workbook_text(path, path.stat().st_mtime_ns), "row"
        else:
            (text, _), unit = decoded(path, path.read_bytes(), dialect.encoding), "line"
        for record, (line, _) in enumerate(records_of(text, dialect)):
            if record == row + 1:
                return f"{unit} {line}"
    except (csv.Error, DataError, OSError):
        pass
    return f"row {row + 1}"  # the file has changed meanwhile


@lru_cache(maxsize=1)  # many messages may name rows of a workbook, which is slow to read
def _workbook_text(path: Path, changed: int) -> str:
    return workbook_text(path, path.read_bytes())


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
    check_differ(path, names, "among columns and index")
    return frame.set_axis(names, axis=1)


_FEWEST = 3  # columns with one stem that seem to be series
_MOST_ROWS = 50_000_000  # of the long table
_STEM = re.compile(r"(.*?[^\W\d_])[\W_]*(?:\d+|(?<=[\W_])[^\W_]+)")  # store_1, sales Berlin


class Wide(Protocol):
    """Columns of series, to make rows of; see `tuner.experiment.data.Wide`."""

    @property
    def id(self) -> str: ...  # the column that names the series
    @property
    def value(self) -> str: ...  # the column of their values
    @property
    def columns(self) -> str | list[str]: ...  # of the file: a pattern, or a list of names


@dataclass(frozen=True)
class WideColumns:
    """A `Wide` of a model's pipeline."""

    id: str
    value: str
    columns: str | list[str]


def columns_of_series(wide: Wide, names: Sequence[str]) -> list[str]:
    """Return which of a file's columns, `names`, are series, in their order."""
    if isinstance(wide.columns, str):
        return [name for name in names if fnmatch.fnmatchcase(name, wide.columns)]
    return [name for name in names if name in wide.columns]


def melted(table: RawTable, wide: Wide, time: str | None) -> tuple[RawTable, np.ndarray]:
    """Return a table from wide to long: the columns of series stand one below another.

    The rows before the first value of a series are left out; other columns are repeated.

    Args:
        table: with a column for each series.
        time: column of times, which is none of a series.

    Returns:
        The table, and the row of the file that each of its rows was, (rows,).

    Raises:
        DataError: there are no such columns, or they hold something else than numbers.
    """
    path, frame, names = table.path, table.frame, table.names
    found = _found(table, wide, time)
    others = [name for name in names if name not in found]
    for key, name in (("id", wide.id), ("value", wide.value)):
        if name in others:
            got = f"{name!r}, which is a column of the file"
            raise refusal(path, f"data.wide.{key}", "must be a new name", got, "write another")
    if len(frame) * len(found) > _MOST_ROWS:
        rule = f"{len(frame):,} rows of {len(found):,} columns are more than {_MOST_ROWS:,} values"
        raise refusal(path, "data.wide.columns", rule, remedy="name fewer columns")
    values, rows = [], []
    leave_out = "leave the column out of data.wide.columns"
    for name in found:
        column, bad = as_numbers(frame[name])
        rule = f"column {name!r} must hold numbers"
        if len(bad):
            got = f"{frame[name][bad[0]]!r} in {table.place_of(bad[0])}"
            remedy = "write a number there (1234.5)"
            raise refusal(path, "data.wide.columns", rule, got, remedy, leave_out)
        known = ~np.isnan(column)
        if not known.any():
            raise refusal(path, "data.wide.columns", rule, "none", change=leave_out)
        first = int(known.argmax())
        values.append(column[first:])
        rows.append(np.arange(first, len(column)))
    together = np.concatenate(rows)
    long = frame[others].iloc[together].reset_index(drop=True)
    series = np.repeat(np.array(found, dtype=object), [len(of) for of in rows])
    long = long.assign(**{wide.id: series, wide.value: np.concatenate(values)})
    lines = together if table.lines is None else table.lines[together]
    return replace(table, frame=long, body=None, typed=None, lines=lines), together


def _found(table: RawTable, wide: Wide, time: str | None) -> list[str]:
    """Return the columns of series; refuse a missing one, and the time."""
    path, names = table.path, table.names
    found = columns_of_series(wide, names)
    if isinstance(wide.columns, list):
        for name in wide.columns:
            table.check_has("data.wide.columns", name)
    if not found:
        rule = f"no column of the file matches {wide.columns!r}"
        remedy = "write a pattern that some match"
        raise refusal(path, "data.wide.columns", rule, ", ".join(names[:8]), remedy)
    if time is not None and time in found:
        rule = "must not name the time column"
        remedy = "write a narrower pattern, or a list"
        raise refusal(path, "data.wide.columns", rule, repr(time), remedy)
    return found


def stem_of_series(numbers: Sequence[str]) -> tuple[str, str, list[str]] | None:
    """Return the pattern of columns whose names look like series of one quantity.

    They are at least three, and at least half of the columns of numbers, whose names differ in
    their last part alone: `store_1`, `store_2`, `store_3`.

    Returns:
        The pattern, the stem, and the columns; None where there are none.
    """
    stems: dict[str, list[str]] = {}
    for name in numbers:
        if (found := _STEM.fullmatch(name)) is not None:
            stems.setdefault(found[1], []).append(name)
    if not stems:
        return None
    stem, names = max(stems.items(), key=lambda item: len(item[1]))
    if len(names) < max(_FEWEST, len(numbers) / 2) or not pd.Index(names).is_unique:
        return None
    ends = {name[len(stem)] for name in names}
    pattern = f"{stem}{ends.pop() if len(ends) == 1 and not names[0][len(stem)].isdigit() else ''}*"
    if re.search(r"[\[\]?*]", pattern[:-1]):  # which a pattern would not take as they are
        return None
    return pattern, stem, names


_ROW = re.compile(r"\brow (\d+)")


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedTable(RawTable):
    """The rows of a file, and after them those of the file of test rows."""

    first: RawTable
    test: RawTable

    def raw_strings(self, names: Iterable[str], tokens: str | None = None) -> dict[str, np.ndarray]:
        """Return columns as both files write them, (rows,) of str."""
        names = list(names)
        if not set(names) <= set(self.first.names):  # a column that was made of others
            return super().raw_strings(names, tokens)
        parts = [table.raw_strings(names, tokens) for table in (self.first, self.test)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read_table(data: Data) -> RawTable:
    """Read the rows of an experiment.

    Raises:
        DataError: a file cannot be read, or the test file lacks a column that is used.
    """
    first = RawTable.read(Path(data.path), data.dialect, data.time)
    if data.split.test_file is None:
        return first
    path, key = Path(data.split.test_file), "data.split.test_file"
    try:
        test = RawTable.read(path, first.reusable_dialect, data.time)
    except DataError as error:
        raise error.with_(key=key) from None
    for name in _used(first, data):
        if name not in test.names:
            rule = f"no column {name!r} in the file, which {show_path(first.path)} has"
            raise refusal(path, key, rule, remedy=nearest(name, test.names))
        test.check_certain(key, name)
        _, bad = as_numbers(first.frame[name])
        _, bad_here = as_numbers(test.frame[name])
        if len(bad_here) and not len(bad):
            rule = f"column {name!r} must hold numbers, as in {show_path(first.path)}"
            got = f"{test.frame[name].iloc[bad_here[0]]!r} in {test.place_of(int(bad_here[0]))}"
            raise refusal(path, key, rule, got, "write a number there")
    shared = [name for name in first.names if name in test.names]
    frame = pd.concat([first.frame[shared], test.frame[shared]], ignore_index=True)
    both = hashlib.sha256(f"{first.sha256} {test.sha256}".encode()).hexdigest()
    return JoinedTable(
        first.path,
        frame,
        both,
        # A row of both files is no copy to leave out: it is in training and in test.
        dialect=replace(first.dialect, drop_duplicates=bool(first.dialect.drop_duplicates)),
        ambiguous=first.ambiguous,
        notes=first.notes,
        reusable_keys=first.reusable_keys,
        first=first,
        test=test,
    )


@contextmanager
def naming_files(table: RawTable) -> Iterator[None]:
    """Name the file in a refusal in the block that names a row of the test file."""
    try:
        yield
    except DataError as error:
        if not isinstance(table, JoinedTable):
            raise
        test, known, got = table.test, len(table.first.frame), error.got or ""
        rows = [int(number) for number in _ROW.findall(f"{error.rule} {got}")]
        if not any(row > known for row in rows):
            raise

        def place(found: re.Match[str]) -> str:
            row = int(found[1]) - 1
            table_of, row = (test, row - known) if row >= known else (table.first, row)
            return f"{table_of.place_of(row)} of {show_path(table_of.path)}"

        rule, got = _ROW.sub(place, error.rule), _ROW.sub(place, got)
        raise error.with_(rule=rule, got=got or None) from None


def _used(table: RawTable, data: Data) -> list[str]:
    """Return the columns of the first file that the experiment reads."""
    named = [data.time, data.id, *data.targets, data.text, data.tokens, data.split.group]
    named += [data.weight, *data.lags, *(data.features or [])]
    used = [name for name in named if name is not None]
    if data.features is None and data.text is None and data.tokens is None:
        used += table.names
    return [name for name in dict.fromkeys(used) if name in table.names]
