"""The tasks that read data of clients; `tuner.service.confined` runs them within limits."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from tuner.errors import DataError, Setting, refusal
from tuner.experiment import parse_value
from tuner.experiment.data import Read
from tuner.pipeline_steps import Dialect
from tuner.planning.columns import kinds_of
from tuner.tables.files import is_typed, is_workbook
from tuner.tables.table import RawTable

_READ = "data.read."
_LONGEST_NAME = 1000  # characters
_START = 1 << 20  # bytes


def import_all() -> None:
    """Import what tasks need, before any is there."""
    for name in ("openpyxl", "pyarrow.parquet"):
        try:
            importlib.import_module(name)
        except ImportError:  # reading such a file says so
            continue


def profile(given: dict[str, Any]) -> dict[str, Any]:
    """Read a file as `tuner init` does.

    Args:
        given: `path`, and the limits `rows` and `columns`.

    Returns:
        `rows`, and `columns`: of each `name` and `kind` (numbers, times, text or nothing).

    Raises:
        DataError: it is no table, or exceeds a limit.
    """
    path = _beside(given["path"])
    _check_parquet(path, given)
    _check_first_line(path, given)
    table = _read(path)
    if table.frame.empty:  # every row repeats the names
        raise refusal(path, None, "has column names but no rows", remedy="give a file with rows")
    _check_size(path, len(table.frame), len(table.names), given)
    if any(len(name) > _LONGEST_NAME for name in table.names):
        rule = f"names of columns must have at most {_LONGEST_NAME:,} characters"
        raise refusal(path, None, rule, remedy="give a line of names, then rows")
    kinds = kinds_of(table)
    columns = [{"name": name, "kind": kinds[name]} for name in table.names]
    return {"rows": len(table.frame), "columns": columns}


def _read(path: Path) -> RawTable:
    """Read a file; an experiment can declare what is not certain of its dialect."""
    declared: dict[str, Any] = {}
    while True:
        try:
            return RawTable.read(path, Dialect.of(Read.model_validate(declared).model_dump()))
        except DataError as error:
            change = next((c for c in error.changes if isinstance(c, Setting)), None)
            key = "" if change is None else change.key
            if change is None or change.value is None or not key.startswith(_READ):
                raise error.with_(key=None, changes=()) from None
            if (key := key.removeprefix(_READ)) in declared:
                raise
            declared[key] = parse_value(change.value, key)


def _beside(path: str) -> Path:
    """Return a file by its name alone, which messages then have, and enter its folder."""
    os.chdir(Path(path).parent)
    return Path(Path(path).name)


def _check_parquet(path: Path, given: dict[str, Any]) -> None:
    """Refuse a Parquet file by what its footer declares, before it is unpacked."""
    if path.suffix.lower() not in (".parquet", ".pq"):
        return
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        about = parquet.ParquetFile(path).metadata
    except (OSError, ValueError, pyarrow.ArrowException):
        return  # reading it says why
    _check_size(path, about.num_rows, about.num_columns, given)


def _check_first_line(path: Path, given: dict[str, Any]) -> None:
    """Refuse a text whose first line has too many columns: to find its dialect takes long."""
    if is_typed(path) or is_workbook(path):
        return
    with path.open("rb") as file:
        start = file.read(_START).lstrip()
    line = start.splitlines()[0] if start else b""
    n_columns = 1 + max(line.count(delimiter) for delimiter in (b",", b";", b"\t", b"|"))
    _check_size(path, 0, n_columns, given)


def _check_size(path: Path, n_rows: int, n_columns: int, given: dict[str, Any]) -> None:
    for what, n in (("rows", n_rows), ("columns", n_columns)):
        if n > given[what]:
            rule = f"must have at most {given[what]:,} {what}"
            raise refusal(path, None, rule, f"{n:,}", "give a smaller table")
