"""The formats of files that tables come in: their bytes, within limits, and their values."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.errors import one_line, refusal

__all__ = ["is_typed", "is_workbook", "parse_typed", "read_bytes", "workbook_text"]

_PARQUET, _LINES, _WORKBOOK = (".parquet", ".pq"), (".jsonl", ".ndjson"), (".xlsx", ".xlsm")
_PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar")
_OTHER = {".xls": "xlsx", ".ods": "xlsx", ".feather": "Parquet", ".h5": "Parquet",
          ".pkl": "Parquet", ".pickle": "Parquet", ".json": "JSON lines (.jsonl)"}  # fmt: skip
_MOST_COLUMNS = 100_000
_MOST_UNPACKED = 4 << 30  # bytes
_MOST_CELLS = 100_000_000  # of a table whose cells are mostly empty
_FIRST = 16 << 20  # bytes in which the names of columns must end


def is_typed(path: Path) -> bool:
    """Say whether a file's values have types of their own."""
    return path.suffix.lower() in (*_PARQUET, *_LINES)


def is_workbook(path: Path) -> bool:
    """Say whether a file is one of a spreadsheet."""
    return path.suffix.lower() in _WORKBOOK


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        DataError: it is missing, empty, of a format that is not read, or has too many columns.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            if suffix in _PACKED:
                raise refusal(path, "data.path", "is packed; unpack it first")
            if suffix in _OTHER:
                text = f"is no CSV, Excel, JSON lines or Parquet file; save it as {_OTHER[suffix]}"
                raise refusal(path, "data.path", text)
            first = file.read(_FIRST)
            if not (is_typed(path) or is_workbook(path)):
                _check_columns(path, first)
            raw = first + file.read()
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


def _check_columns(path: Path, first: bytes) -> None:
    line = first.split(b"\n", 1)[0].split(b"\r", 1)[0]
    if max(line.count(mark) for mark in (b",", b";", b"\t", b"|")) >= _MOST_COLUMNS:
        text = f"has more than {_MOST_COLUMNS:,} columns; give a table with a row for each value"
        raise refusal(path, "data.path", text)
    if len(line) == _FIRST:
        raise refusal(path, "data.path", "has no line end in 16 MiB; give a table of lines")


def parse_typed(path: Path, raw: bytes) -> pd.DataFrame:
    """Return the table in a Parquet or JSON lines file.

    Raises:
        DataError: it is none, or too large when it is unpacked.
    """
    parquet = path.suffix.lower() in _PARQUET
    try:
        if parquet:
            _check_parquet(path, raw)
            return pd.read_parquet(io.BytesIO(raw))
        _check_lines(path, raw)
        frame = pd.read_json(
            io.BytesIO(raw), lines=True, dtype=False, convert_axes=False, precise_float=True
        )
    except (ImportError, OSError, ValueError) as error:
        kind = "Parquet" if parquet else "JSON lines"
        text = f"is no {kind} file: {one_line(error)}; write it again, or as CSV"
        raise refusal(path, "data.path", text) from None
    for name in frame:
        if is_numeric_dtype(frame[name]):
            continue
        nested = frame[name].map(lambda v: isinstance(v, dict | list))
        if nested.any():
            row = int(nested.to_numpy().argmax())
            text = f"column {str(name)!r} must hold single values, got "
            text += f"{str(frame[name].iloc[row])[:40]} in line {row + 1}"
            raise refusal(path, "data.path", f"{text}; write a column for each")
    return frame.set_axis([str(name) for name in frame], axis=1)


def _check_parquet(path: Path, raw: bytes) -> None:
    import pyarrow.parquet as parquet

    about = parquet.ParquetFile(io.BytesIO(raw)).metadata
    size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    if size > _MOST_UNPACKED or about.num_columns > _MOST_COLUMNS:
        raise _too_large(path)


def _check_lines(path: Path, raw: bytes) -> None:
    """Refuse lines that make a far larger table than they are: each may have keys of its own."""
    names: set[Any] = set()
    rows = filled = 0
    for number, line in enumerate(io.BytesIO(raw), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except RecursionError:
            raise ValueError(f"line {number} is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {one_line(error)}") from None
        keys = range(len(row)) if isinstance(row, list) else row if isinstance(row, dict) else ()
        names.update(keys)
        rows, filled = rows + 1, filled + len(keys)
        cells = rows * len(names)
        if len(names) > _MOST_COLUMNS or (cells > _MOST_CELLS and cells > 4 * filled):
            text = f"has {len(names):,} different keys in {number:,} lines; write the same keys in "
            raise refusal(path, "data.path", f"{text}every line: a name and a value, say")


def workbook_text(path: Path, raw: bytes) -> str:
    """Return the first sheet of a workbook that holds a table, as the text of a CSV file.

    That is one with two rows of two columns; where none has these, the first that is filled.

    A formula is not calculated: it counts as the value that the spreadsheet saved with it, and as
    its text where it saved none.

    Raises:
        DataError: it is no workbook, too large when it is unpacked, or the extra is missing.
    """
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        text = "is an Excel file, which needs openpyxl; pip install 'lstm-tuner[xlsx]'"
        raise refusal(path, "data.path", text) from None
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if sum(part.file_size for part in archive.infolist()) > _MOST_UNPACKED // 4:
                raise _too_large(path)
            formulas = any(
                b"<f" in archive.read(name)
                for name in archive.namelist()
                if name.startswith("xl/worksheets/sheet")
            )
        books = [
            openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=values)
            for values in ((True, False) if formulas else (True,))
        ]
        found = ""
        for at, sheet in enumerate(books[0].worksheets):
            if not hasattr(sheet, "iter_rows"):
                continue
            others = books[-1].worksheets[at].iter_rows(values_only=True)
            out = io.StringIO()
            writer = csv.writer(out)
            for row, written in zip(sheet.iter_rows(values_only=True), others, strict=True):
                if len(row) > _MOST_COLUMNS:
                    raise _too_large(path)
                cells = [w if v is None else v for v, w in zip(row, written, strict=False)]
                writer.writerow(map(_cell, cells))
            text = _trimmed(out.getvalue())
            if sum(len(row) > 1 for row in csv.reader(io.StringIO(text, newline=""))) > 1:
                return text  # a sheet of remarks has one column
            found = found or text
    except (InvalidFileException, KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        text = f"is no Excel file: {one_line(error)}; save it as .xlsx again, or as CSV"
        raise refusal(path, "data.path", text) from None
    if found:
        return found
    raise refusal(path, "data.path", "has no filled sheet; give a table: names, then rows")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ")
    return str(value)


def _trimmed(text: str) -> str:
    """Return the text without the empty columns at the right, which sheets often have."""
    rows = list(csv.reader(io.StringIO(text, newline="")))
    width = max(max((i for i, v in enumerate(row, 1) if v), default=0) for row in rows)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(row[:width] if any(row) else [] for row in rows)
    return out.getvalue()


def _too_large(path: Path) -> Exception:
    text = f"unpacks to more than 1 GiB, or {_MOST_COLUMNS:,} columns; give a smaller table"
    return refusal(path, "data.path", text)
