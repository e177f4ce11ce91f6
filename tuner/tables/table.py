"""Reads the table in a file, and reports what is wrong with the file."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

from tuner.errors import DataError, Setting, nearest, one_line, refusal
from tuner.pipeline_steps import LINE_KEYS, Dialect
from tuner.tables.dialects import (
    LooksLikeRow,
    body_of,
    delimiter,
    found_dialect,
    header_of,
    is_like_rows,
    records_of,
)
from tuner.tables.files import (
    Unclear,
    decoded,
    is_typed,
    is_workbook,
    parse_typed,
    read_bytes,
    workbook_text,
)
from tuner.tables.numbers import Ambiguity, looks_like_number, may_be_grouped, with_numbers
from tuner.tables.time_columns import with_format, with_joined_time


def without_blank_end(text: str) -> str:
    """Return a text without the line ends and the blank lines after its last value.

    White space behind the last value stays, as it does in every other line.
    """
    end = len(text.rstrip())
    padding = re.match(r"[^\r\n]*", text[end:])
    return text[:end] + (padding[0] if padding else "")


def _typed_strings(column: pd.Series) -> list[str]:
    values = ["" if none else v for v, none in zip(column, column.isna(), strict=True)]
    return [str(int(v) if isinstance(v, float) and v.is_integer() else v) for v in values]


_TIME = "time"  # what a table's index of times is called that has no name
_UNDECLARED = Dialect()
_SAMPLE = 300  # rows by which it is told whether points may group digits


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as it stands in a file, or as somebody handed it over; its numbers are numbers."""

    path: Path
    frame: pd.DataFrame
    sha256: str  # of the file; of no bytes where there is none
    dialect: Dialect = _UNDECLARED  # how it is written: what was declared, and what was found
    body: str | None = None  # the line of names and the rows; None of a table that has types
    ambiguous: dict[str, Ambiguity] = field(default_factory=dict)  # texts that seem to be numbers
    typed: pd.DataFrame | None = None  # the table as it was, where it has types
    lines: np.ndarray | None = None  # (rows,), of the file, where they are not the same
    points_certain: bool = True  # whether 1.234 is less than two
    reusable_keys: tuple[str, ...] = ()  # keys of its lines that no other file of the kind tells
    notes: tuple[str, ...] = ()  # what was found in the file that a plain one does not have

    @classmethod
    def read(cls, path: Path, dialect: Dialect = _UNDECLARED, time: str | None = None) -> RawTable:
        """Read a CSV, Excel, JSON lines or Parquet file.

        Args:
            path: of the file; its ending tells which it is, any other than those is CSV.
            time: the name of the column that `dialect.time_columns` are joined into.

        Raises:
            DataError: the file is missing, empty, without rows, or no such file.
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
            text, found = _decoded(path, raw, dialect)
        del raw
        parsed = _parse_text(path, text, found)
        _check_rows(path, parsed.frame)
        table = cls(
            path,
            parsed.frame,
            sha256,
            parsed.dialect,
            parsed.body,
            points_certain=parsed.points_certain,
            reusable_keys=_reusable_keys(text, parsed.dialect, dialect),
        )
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
        frame, dialect, ambiguous = with_numbers(
            self.frame,
            self.dialect,
            points_certain=self.points_certain,
            keep_plain=self.body is None,
        )
        if declared.missing_values:
            frame = _without_numbers(frame, declared.missing_values)
        typed = self.frame if self.body is None else None
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
            joined = with_joined_time(table.path, table.frame, dialect, time)
            table = replace(table, frame=joined)
        return table

    def take_rows(self, rows: np.ndarray, note: str) -> RawTable:
        """Return the table with some rows alone, (n,), rising, which know where they stand."""
        lines = rows if self.lines is None else self.lines[rows]
        typed = None if self.typed is None else self.typed.iloc[rows].reset_index(drop=True)
        return replace(
            self,
            frame=self.frame.iloc[rows].reset_index(drop=True),
            typed=typed,
            lines=lines,
            ambiguous={
                name: replace(ambiguity, row=int(rows.searchsorted(ambiguity.row)))
                for name, ambiguity in self.ambiguous.items()
            },
            notes=(*self.notes, note),
        )

    @property
    def names(self) -> list[str]:
        """Of its columns."""
        return [str(c) for c in self.frame]

    def check_has(self, key: str, name: str) -> None:
        """Refuse a name that no column has."""
        if name not in self.names:
            remedy = nearest(name, self.names)
            raise refusal(self.path, key, f"no column {name!r} in the file", remedy=remedy)

    def check_certain(
        self, key: str, name: str, change: str | None = None, place: str = ""
    ) -> None:
        """Refuse a column of texts that seems to hold numbers; `change` is one more remedy."""
        if ambiguity := self.ambiguous.get(name):
            rule, got = f"column {name!r} {ambiguity.rule}", self.value_of(ambiguity, place)
            changes = (*ambiguity.changes, change or "")
            raise refusal(self.path, key, rule, got, ambiguity.remedy, changes)

    def value_of(self, ambiguity: Ambiguity, place: str = "") -> str:
        """Return the value for which a column that seems to hold numbers stays texts, and where."""
        return ambiguity.got.replace("{place}", place or self.place_of(ambiguity.row))

    def numbers(self, key: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return `as_numbers` of a column that must be there, and must not be in ambiguity."""
        self.check_has(key, name)
        self.check_certain(key, name)
        return as_numbers(self.frame[name])

    def place_of(self, row: int) -> str:
        """Say where a row stands: in the lines of the file, of which the first is line 1."""
        row = row if self.lines is None else int(self.lines[row])
        return place_of(self.path, row, self.dialect)

    @property
    def reusable_dialect(self) -> Dialect:
        """How files of its kind are written: without lines that are found in each anew."""
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
            separator, text = delimiter(self.dialect), io.StringIO(self.body)
            first = next(csv.reader(text, delimiter=separator, skipinitialspace=True))
            header = header_of(first)
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
            columns[name] = _typed_strings((typed if name in typed else self.frame)[name])
        found = {}
        for name, values in columns.items():
            codes, texts = pd.factorize(np.asarray(values, dtype=object))  # few differ
            bare = [v.strip() or (v if name == tokens else "") for v in texts]
            found[name] = np.array(bare, dtype=object)[codes]
        return found

    def times(self, name: str) -> pd.Series:
        """Return the column of times, read by the format that is declared."""
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
        if _is_number(frame[name])
    }
    return frame.assign(**columns)


def _is_number(column: pd.Series) -> bool:
    return bool(is_numeric_dtype(column) and not is_bool_dtype(column))


def _described(dialect: Dialect, declared: Dialect) -> list[str]:
    keys = {k: v for k, v in dialect.to_dict().items() if getattr(declared, k) is None}
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]


def _repeats_names(frame: pd.DataFrame) -> np.ndarray:
    """Return which rows hold the names of the columns, (rows,) of bool."""
    repeated = np.ones(len(frame), bool)
    for name in frame:
        if is_numeric_dtype(frame[name]) or not repeated.any():
            return np.zeros(len(frame), bool)
        repeated &= (frame[name] == name).to_numpy(bool, na_value=False)
    return repeated


def _reusable_keys(text: str, dialect: Dialect, declared: Dialect) -> tuple[str, ...]:
    """Return the declared keys of lines above and below the rows that nothing in them tells."""
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
    """Say where a row stands: in the lines of the file, of which the first is line 1."""
    if is_typed(path) or not path.is_file():
        return f"row {row + 1}"
    try:
        if is_workbook(path):
            text, unit = workbook_text(path, path.read_bytes()), "row"
        else:
            (text, _), unit = decoded(path.read_bytes(), dialect.encoding), "line"
        for record, (line, _) in enumerate(records_of(text, dialect)):
            if record == row + 1:
                return f"{unit} {line}"
    except (csv.Error, OSError, UnicodeDecodeError):
        pass
    return f"row {row + 1}"  # the file has changed meanwhile


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


def _decoded(path: Path, raw: bytes, dialect: Dialect) -> tuple[str, Dialect]:
    try:
        text, encoding = decoded(raw, dialect.encoding)
    except Unclear as unclear:
        change = [
            Setting("data.read.encoding", name, f", which reads {words!r}")
            for name, words in unclear.readings
        ]
        rule = "is no UTF-8 text, and its encoding is not certain"
        raise refusal(path, "data.read.encoding", rule, change=change) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        if dialect.encoding is not None:
            rule = f"the file is not in {dialect.encoding}"
            got = f"byte {byte} in line {line}"
            raise refusal(path, "data.read.encoding", rule, got, "correct it") from None
        rule = "must be UTF-8 text"
        got, remedy = f"byte {byte} in line {line}", "save the file as UTF-8"
        other = Setting("data.read.encoding", "latin-1", " (cp1252, gbk, ...)")
        raise refusal(path, "data.path", rule, got, remedy, other) from None
    return without_blank_end(text), replace(dialect, encoding=encoding)


@dataclass(frozen=True, eq=False)
class _Text:
    """A table as a text holds it."""

    frame: pd.DataFrame
    body: str  # the line of names and the rows
    dialect: Dialect
    points_certain: bool  # whether 1.234 is less than two


def _parse_text(path: Path, text: str, declared: Dialect) -> _Text:
    """Return the table in a text, what of the text it is, and how that is laid out."""
    dialect = found_dialect(text, declared)
    body = without_blank_end(body_of(text, dialect))
    header: list[str] = []
    try:
        records = records_of(text, dialect)
        line, first = next(records, (1, []))
        header = _check_header(path, first, line)
        if len(next(records, (2, []))[1]) > len(header):  # pandas would take them for row names
            raise _ragged(path, text, header, dialect)
        rows = [record for _, record in itertools.islice(records, _SAMPLE)]
        if is_like_rows(first, rows):
            raise _no_names(path, line, first)
        points_certain = dialect.separator != ";" and not may_be_grouped(rows)
        as_texts = not points_certain or dialect.decimal == "," or dialect.thousands is not None
        frame = _parse_body(body, dialect, as_texts=as_texts)
        frame.columns = pd.Index(header)
        if not as_texts:  # numbers that pandas read may mean something else than it took them for
            found = with_numbers(frame, dialect)[1]
            if found.decimal == "," or found.thousands == ".":
                frame = _parse_body(body, dialect, as_texts=True).set_axis(header, axis=1)
    except (csv.Error, ValueError) as error:  # pandas' ParserError is a ValueError
        raise _ragged(path, text, header, dialect, error) from None
    return _Text(_without_counter(frame), body, dialect, points_certain)


def _parse_body(body: str, dialect: Dialect, *, as_texts: bool) -> pd.DataFrame:
    frame = pd.read_csv(
        io.StringIO(body),
        sep=delimiter(dialect),
        low_memory=False,
        skip_blank_lines=False,
        skipinitialspace=True,  # blanks alone are no value
        dtype=str if as_texts else None,
    )
    if as_texts:  # a column that is plain in every dialect has the type that it would have
        for name in frame:
            truth = frame[name].map({"True": True, "False": False, "TRUE": True, "FALSE": False})
            if len(frame) and truth.notna().all():
                frame[name] = truth.astype(bool)
    return frame


def _without_counter(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop columns without a name that are empty, or count the rows as `DataFrame.to_csv` does."""
    unnamed = [name for i, name in enumerate(frame, 1) if name == f"column_{i}"]
    counts = [np.arange(start, len(frame) + start) for start in (0, 1)]
    useless = [
        name
        for name in unnamed
        if frame[name].isna().all()
        or (is_integer_dtype(frame[name]) and any((frame[name] == c).all() for c in counts))
    ]
    return frame.drop(columns=useless)


def _no_names(path: Path, line: int, record: list[str]) -> DataError:
    values = ", ".join(value.strip() for value in record)
    rule = f"line {line} must name the columns"
    got = f"the values {values}"
    return refusal(path, "data.path", rule, got, "write a line of names before it (time,value)")


def _check_header(path: Path, record: list[str], line: int) -> list[str]:
    if not any(name.strip() for name in record):
        rule = f"line {line} must name the columns"
        raise refusal(path, "data.path", rule, "an empty line", "remove it")
    try:
        header = header_of(record)
    except LooksLikeRow:
        raise _no_names(path, line, record) from None
    _check_differ(path, header, f"in line {line}")
    return header


def _check_differ(path: Path, names: list[str], where: str) -> None:
    for name in names:
        if name and names.count(name) > 1:
            rule = "column names must differ"
            raise refusal(path, "data.path", rule, f"{name!r} twice {where}", "rename one")


def _ragged(
    path: Path, text: str, header: list[str], dialect: Dialect, error: Exception | str = ""
) -> DataError:
    """Return the refusal of the first line with more values than columns, else of `error`."""
    line = first = 0
    try:
        for line, record in records_of(text, dialect):
            first = first or line
            if header and len(record) > len(header):
                rule = f"line {line} has {len(record)} values, line {first} names "
                rule += f"{len(header)} columns"
                remedy = f"correct that line, or name every column in line {first}"
                change = None
                if names := _names_below(text, dialect, len(record)):
                    note = f" if line {names} has them"
                    change = Setting("data.read.skip_rows", str(names - 1), note)
                return refusal(path, "data.path", rule, remedy=remedy, change=change)
        if "EOF inside string" in str(error):
            error = f"the quote that line {line} opens is never closed"
    except csv.Error:
        pass
    rule = f"is not a CSV file: {one_line(error)}"
    return refusal(path, "data.path", rule, remedy="correct that line")


def _names_below(text: str, dialect: Dialect, width: int) -> int | None:
    """Return the line that may name so many columns, below others; None where none does."""
    for line, record in itertools.islice(records_of(text, dialect), 100):
        if len(record) == width:
            try:
                header_of(record)
            except LooksLikeRow:
                return None
            return None if any(map(looks_like_number, record)) else line
    return None


def bounds_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the rows [start, end) of stretches that stand one after another, (stretches, 2)."""
    ends = np.cumsum(lengths)
    return np.column_stack([ends - np.asarray(lengths), ends])
