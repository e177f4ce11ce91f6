"""The tasks that read data of clients; `tuner.service.confined` runs them within limits."""

from __future__ import annotations

import importlib
import math
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.text import Text

from tuner.data.prepared import check_data
from tuner.errors import DataError, InputError, Setting, nearest, refusal
from tuner.experiment import Experiment, parse_value
from tuner.experiment.data import Read
from tuner.pipeline_steps import Dialect
from tuner.planning.check import check_experiment
from tuner.planning.columns import kinds_of
from tuner.planning.file import InitOptions
from tuner.planning.file import propose as propose_file
from tuner.prediction import Model, PredictionWarning, load_model
from tuner.prediction.model import with_full_times
from tuner.tables.files import is_typed, is_workbook
from tuner.tables.table import RawTable
from tuner.tables.timestamps import times_of_type

_READ = "data.read."
_LONGEST_NAME = 1000  # characters
_START = 1 << 20  # bytes
_MOST_CELLS, _MOST_VALUES = 2_000_000, 400_000  # to predict from, and in an answer
_NAMED = 50  # columns in a message


def import_all() -> None:
    """Import what tasks need, before any is there."""
    for name in (
        "onnxruntime",
        "openpyxl",
        "pyarrow.parquet",
        "tuner.data.series",
        "tuner.data.sequences",
    ):
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


def propose(given: dict[str, Any]) -> dict[str, Any]:
    """Propose an experiment for a file, as `tuner init` does.

    Args:
        given: `path` of the file, `file` of the experiment, the path that is `written` in it, and
            `options`, the fields of `InitOptions`.

    Returns:
        `yaml`; `does`, in words; and `notes`, lines of text.

    Raises:
        InputError: the file cannot be read, or an option does not fit it.
    """
    path, options = _beside(given["path"]), InitOptions(**given["options"])
    options.check()
    found = propose_file(path, options, file=Path(given["file"]), written_path=given["written"])
    does = Text.from_markup(found.does).plain
    return {"yaml": found.text, "does": does, "notes": list(found.notes)}


def check(given: dict[str, Any]) -> dict[str, Any]:
    """Check an experiment with its data.

    Args:
        given: `experiment`, with absolute paths, and `names`: what the client calls the files.

    Returns:
        What `tuner check` shows.

    Raises:
        InputError: as `tuner check` does.
    """
    path = _beside(given["experiment"]["data"]["path"])
    experiment, names = Experiment.from_dict(given["experiment"]), given["names"]
    try:
        facts = check_data(experiment).facts
    except InputError as error:
        where = Path(error.where or "").name
        raise error.with_(where=names.get(where, error.where)) from None
    shown = Path(names.get(path.name, path.name))
    return check_experiment(experiment, replace(facts, path=shown)).to_json()


def predict(given: dict[str, Any]) -> dict[str, Any]:
    """Predict with a model.

    Args:
        given: `model`, its folder; `data`, rows as objects by column, and `dtypes`, those of
            columns of times; or the `path` of a file, with the limits `rows` and `columns`;
            `known`, the columns that the data of the search has, None where rows may have others;
            `all`, whether to forecast after every row that has enough rows before it;
            `csv`, whether to answer in CSV.

    Returns:
        `csv`, a text, or `columns`, the values of each by its name: times in ISO 8601, None for
        missing values, and `dtypes`, that of each; and `notes`, lines of text.

    Raises:
        InputError: the rows do not fit the model.
    """
    model = load_model(given["model"])
    data = _frame_of(given, model) if given["path"] is None else _beside(given["path"])
    if isinstance(data, Path):
        _check_first_line(data, given)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PredictionWarning)
        try:
            found = model.predict(data, all_windows=given["all"])
        except InputError as error:  # which calls a table in memory a data frame
            raise error.with_(where=error.where if isinstance(data, Path) else "rows") from None
    if found.size > _MOST_VALUES:
        rule = f"gives {found.size:,} values, more than the {_MOST_VALUES:,} of an answer"
        raise DataError(rule, remedy="give fewer rows, or download the model")
    notes = [str(note.message) for note in caught if issubclass(note.category, PredictionWarning)]
    if given["csv"]:
        return {"csv": with_full_times(found, model).to_csv(index=False), "notes": notes}
    columns = {str(name): _plain(found[name]) for name in found}
    dtypes = {str(name): str(found[name].dtype) for name in found}
    return {"columns": columns, "dtypes": dtypes, "notes": notes}


def _frame_of(given: dict[str, Any], model: Model) -> pd.DataFrame:
    """Return rows as a table, which has a cell for each row and each name in any of them."""
    rows = given["data"]
    names = list(dict.fromkeys(name for row in rows for name in row))
    if given["known"] is not None:
        needed = model.pipeline.columns.names_in(names)
        known = {*given["known"], *needed, *model.pipeline.targets}
        if (unknown := next((name for name in names if name not in known), None)) is not None:
            remedy = nearest(unknown, sorted(known)[:_NAMED])
            raise DataError("the data has no such column", key=unknown[:80], remedy=remedy)
    if len(rows) * len(names) > _MOST_CELLS:
        rule = f"{len(rows):,} rows of {len(names):,} columns are more than {_MOST_CELLS:,} cells"
        raise DataError(rule, remedy="give fewer rows, or download the model")
    table = pd.DataFrame(rows)
    for name, dtype in given["dtypes"].items():
        key = f"dtypes.{name[:80]}"
        if name not in names:
            raise DataError("no row has this column", key=key, remedy=nearest(name, names[:_NAMED]))
        table[name] = times_of_type(table[name], dtype, key)
    return table


def _plain(values: pd.Series) -> list[Any]:
    if values.dtype.kind == "M" or isinstance(values.dtype, pd.DatetimeTZDtype):
        return [None if pd.isna(value) else value.isoformat() for value in values]
    return [None if pd.isna(v) or v in (math.inf, -math.inf) else v for v in values.tolist()]


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
