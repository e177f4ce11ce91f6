"""Exported models: their folders, and predictions with them."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.errors import DataError, InputError, ModelError, NoGraphError, one_line, show_path
from tuner.prediction.pipeline import Columns, Pipeline
from tuner.prediction.predictors import forecast, predict_sequences, prediction_columns, translate
from tuner.prediction.session import Runner
from tuner.tables.frequencies import offset_of
from tuner.tables.table import RawTable

OLDEST, FORMAT = 4, 5
"""Formats of `pipeline.json` that are read; a higher one is of a newer version of tuner.

5 has columns that are known ahead (`known_future`). A folder without any is written as 4.
"""
MODEL, PIPELINE = "model.onnx", "pipeline.json"

_ALTERED = "is not as it was written (its checksum differs)"
_Given = pd.DataFrame | Path | str


class Model:
    """Predicts from raw data files or tables, with the data preparation of the training."""

    def __init__(
        self, folder: Path, record: dict[str, Any], file: bytes, numpy: bool = False
    ) -> None:
        """Check the contents of `pipeline.json` and of the model file.

        Raises:
            ModelError: they are invalid, or do not fit together.
        """
        self._record, self._file, self._numpy = record, file, numpy
        self.folder, self.pipeline = folder, Pipeline.of(record, folder / PIPELINE)
        self._runner = Runner(file, folder / MODEL, self.pipeline, numpy=numpy)

    def __reduce__(self) -> tuple[type[Model], tuple[Path, dict[str, Any], bytes, bool]]:
        """Open the model again in copies and other processes."""
        return Model, (self.folder, self._record, self._file, self._numpy)

    def predict(
        self, data: _Given, all_windows: bool = False, future: _Given | None = None
    ) -> pd.DataFrame:
        """Predict, in the data's units.

        Args:
            data: a CSV, Excel, JSON lines or Parquet file, or a table; with the columns that were
                trained on. A forecast's rows must keep the frequency. Classes and values of
                sequences need not be there.
            all_windows: of a forecast, whether to begin after every row that has enough rows
                before it; by default only after the last row of each series.
            future: of a forecast with columns that are known ahead, the rows to come: a file or
                a table with the time, the id and these columns. By default they are the rows of
                `data` behind the last one with a target.

        Returns:
            Of a forecast a row for every step: the series where there are several, the time (or
            the number of the row), the step, and a column for each target, with quantiles the
            median, one for each other quantile, and the ends of the intervals that the model has
            (`sales_lower_0.8`, `sales_upper_0.8`). Of the class of a coming row the series, the
            time or row, the class, and the probability of each class (`p_up`). Of sequences a row
            for each, or where every step has its own for each row: values, or the class and the
            probability of each class.

        Raises:
            DataError: the data does not fit the model; file, rule, value, remedy.
            ModelError: the graph cannot read the inputs that `pipeline.json` describes.

        Warns:
            PredictionWarning: series that are too short are left out; tokens are unknown.
        """
        columns = self.pipeline.columns
        with _without_experiment():
            table = _table(data, columns)
            coming = None if future is None else _table(self._checked_future(future), columns)
        return self.predict_at(table, all_windows=all_windows, future=coming)

    def predict_at(
        self,
        table: RawTable,
        rows: np.ndarray | None = None,
        *,
        all_windows: bool = False,
        future: RawTable | None = None,
    ) -> pd.DataFrame:
        """Predict as `predict` does, a forecast from given rows alone.

        Args:
            table: as it was read.
            rows: (n,), ascending, the first rows of the forecasts, counted over all series after
                missing rows are filled in; by default `all_windows` decides.
            all_windows: see `predict`.
            future: see `predict`.
        """
        with _without_experiment():
            if self.pipeline.of_series:
                return forecast(self.pipeline, table, self._runner, all_windows, rows, future)
            if self.pipeline.target is not None:
                return translate(self.pipeline, table, self._runner)
            return predict_sequences(self.pipeline, table, self._runner)

    def _checked_future(self, future: _Given) -> _Given:
        """Return the future rows; raises InputError if the model reads none."""
        if self.pipeline.columns.known_future:
            return future
        what = "columns that are known ahead"
        if self.pipeline.columns.known_future is not None:
            what = "other columns that are known ahead than the calendar, which needs no file"
        raise InputError(f"the model has no {what}", where="--future", remedy="leave it out")

    @property
    def columns(self) -> list[str]:
        """The columns of the table that `predict` returns."""
        return prediction_columns(self.pipeline)

    def __repr__(self) -> str:
        return (
            f"Model({str(self.folder)!r}: {self.pipeline.task} {', '.join(self.pipeline.targets)})"
        )


@contextmanager
def _without_experiment() -> Iterator[None]:
    """Raise errors of the data without keys of an experiment and remedies that change one."""
    try:
        yield
    except DataError as error:
        key = "resample" if error.key == "data.resample" else None  # the model's own step
        remedy = error.remedy or ("correct the data" if error.changes else None)
        raise error.with_(key=key, remedy=remedy, changes=()) from None


def _table(given: _Given, columns: Columns) -> RawTable:
    if isinstance(given, pd.DataFrame):
        return RawTable.from_frame(given, columns.dialect, columns.time)
    return _read(Path(given), columns)


def _read(path: Path, columns: Columns) -> RawTable:
    """Read a file in the dialect of training; if no column is found, in its own dialect."""
    table = RawTable.read(path, columns.dialect, columns.time)
    if set(columns.names) & set(table.names):
        return table
    anew = replace(columns.dialect, encoding=None, separator=None, decimal=None, thousands=None)
    other = RawTable.read(path, anew.without_lines(), columns.time)
    return other if set(columns.names) & set(other.names) else table


def load_model(folder: Path | str, *, numpy: bool = False) -> Model:
    """Open the folder that `tuner train -o` or `tuner export --model` wrote.

    Args:
        folder: the folder.
        numpy: whether numpy runs the model in place of onnxruntime: slower, equal to 1e-5.

    Raises:
        ModelError: it is no model folder, was changed, or is of a newer version.
    """
    folder = Path(folder)
    return Model(folder, *_open_folder(folder), numpy)


def with_full_times(predicted: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Return a prediction to be written as CSV: with times as text, if pandas would shorten them.

    It drops the time of day if all rows are of midnight, such as the only row of an hourly
    forecast.
    """
    time, frequency = model.pipeline.columns.time, model.pipeline.frequency
    if time is None or frequency is None or time not in predicted:
        return predicted
    first = pd.Timestamp(2000, 1, 1)
    if first + offset_of(frequency) >= first + pd.Timedelta(days=1):
        return predicted
    times = predicted[time]
    if (times.dt.normalize() != times)[times.notna()].any():
        return predicted
    return predicted.assign(**{time: times.map(str).where(times.notna())})


def checksum(content: bytes) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(content).hexdigest()


def record_checksum(record: dict[str, Any]) -> str:
    """Return the SHA-256 of the contents of `pipeline.json`, without the checksum itself."""
    rest = {key: value for key, value in record.items() if key != "sha256"}
    return checksum(json.dumps(rest, sort_keys=True).encode())


def _open_folder(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Return the contents of `pipeline.json` and of the model; raises ModelError if altered."""
    if not folder.is_dir():
        is_what = "is a file" if folder.exists() else "no such folder"
        remedy = "give the folder that `tuner train -o` or `tuner export --model` wrote"
        raise ModelError(is_what, where=show_path(folder), remedy=remedy)
    path = folder / PIPELINE
    record = _parse(path, _read_file(folder, PIPELINE))
    _check_format(path, record.get("format"))
    if not _is_as_written(record):
        raise _refusal(path, _ALTERED)
    files = record.get("files")
    if isinstance(reason := record.get("no_graph"), str):
        rule = f"holds no {MODEL} to predict with: {one_line(reason)}"
        remedy = "weights.safetensors has the weights, by torch's names"
        raise NoGraphError(rule, where=show_path(folder), remedy=remedy)
    if not isinstance(files, dict) or MODEL not in files:
        raise _refusal(path, f"must list {MODEL}", key="files")
    model = b""
    for name, written in files.items():
        content = _read_file(folder, name)
        if checksum(content) != written:
            raise _refusal(folder / name, _ALTERED)
        model = content if name == MODEL else model
    return record, model


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (RecursionError, ValueError) as error:
        raise _refusal(path, f"is not JSON: {one_line(error)}") from None
    if not isinstance(record, dict):
        raise _refusal(path, "must be an object", f"a {type(record).__name__}")
    return record


def _is_as_written(record: dict[str, Any]) -> bool:
    try:
        return bool(record.get("sha256") == record_checksum(record))
    except RecursionError:  # nested more deeply than what can be written
        return False


def _check_format(path: Path, number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise _refusal(path, "must be a whole number", reprlib.repr(number), key="format")
    if number > FORMAT:
        rule = f"this version of tuner reads up to {FORMAT}"
        raise _refusal(path, rule, number, "install a newer one", key="format")
    if number < OLDEST:
        raise _refusal(path, f"this version of tuner reads from {OLDEST} on", number, key="format")


def _read_file(folder: Path, name: str) -> bytes:
    path = folder / name
    if not name.isprintable() or Path(name).name != name or name in ("", ".."):
        rule, got = "must be names in the folder", reprlib.repr(name)
        raise _refusal(folder / PIPELINE, rule, got, key="files")
    try:
        inside = path.resolve().parent == folder.resolve()
    except (OSError, RuntimeError):  # links in a circle
        inside = False
    if not inside:
        raise _refusal(path, "leads out of the folder", remedy="put the file itself there")
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise _refusal(path, "is no plain file")
        return path.read_bytes()
    except FileNotFoundError:
        if name == PIPELINE:
            rule, remedy = "is missing: this folder holds no model", "give the folder of one"
            raise _refusal(path, rule, remedy=remedy) from None
        raise _refusal(path, "is missing") from None
    except OSError as error:
        rule = f"cannot be read: {error.strerror}"
        raise _refusal(path, rule, remedy="check its rights") from None


def _refusal(
    path: Path,
    rule: str,
    got: object = None,
    remedy: str = "export the model again",
    key: str | None = None,
) -> ModelError:
    name = Path(show_path(path.parent)) / path.name  # not where a link leads
    return ModelError(rule, where=str(name), key=key, got=got, remedy=remedy)
