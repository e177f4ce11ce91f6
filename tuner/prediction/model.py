"""An exported model, ready to predict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.errors import DataError, InputError
from tuner.prediction.columns import Columns, for_a_model
from tuner.prediction.folder import MODEL, PIPELINE, open_folder
from tuner.prediction.pipeline import Pipeline
from tuner.prediction.predictors import (
    forecast,
    predict_sequences,
    prediction_columns,
    translate,
)
from tuner.prediction.session import Runner
from tuner.tables.table import RawTable

__all__ = ["Model", "load_model"]


_Given = pd.DataFrame | Path | str


class Model:
    """Predicts from raw data files or tables, with the data preparation of the training."""

    def __init__(
        self, folder: Path, record: dict[str, Any], file: bytes, numpy: bool = False
    ) -> None:
        """Take the contents of `pipeline.json` and of the model file.

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
        self,
        data: _Given,
        all_windows: bool = False,
        future: _Given | None = None,
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
            DataError: the data is not what the model was trained on; file, rule, value, remedy.
            ModelError: the graph cannot read what `pipeline.json` says that it reads.

        Warns:
            PredictionWarning: series that are too short are left out; tokens are unknown.
        """
        columns = self.pipeline.columns
        with _for_a_model():
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
        with _for_a_model():
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
def _for_a_model() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise for_a_model(error) from None


def _table(given: _Given, columns: Columns) -> RawTable:
    if isinstance(given, pd.DataFrame):
        return RawTable.from_frame(given, columns.dialect, columns.time)
    return _read(Path(given), columns)


def _read(path: Path, columns: Columns) -> RawTable:
    """Read a file in the dialect of training; if it has no column then, in its own dialect."""
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
    return Model(folder, *open_folder(folder), numpy)
