"""A model as it was exported, ready to predict."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tuner.data.tables import RawTable
from tuner.errors import DataError
from tuner.prediction.folder import MODEL, PIPELINE, open_folder
from tuner.prediction.forecasts import forecast, forecast_columns
from tuner.prediction.labels import label_columns, predict_sequences
from tuner.prediction.pipeline import Pipeline
from tuner.prediction.refusals import for_a_model
from tuner.prediction.running import Runner

__all__ = ["Model", "load_model"]


class Model:
    """Predicts from data as it stands in a file: everything that was done in training is done."""

    def __init__(self, folder: Path, pipeline: Pipeline, runner: Runner) -> None:
        self.folder, self.pipeline, self._runner = folder, pipeline, runner

    def predict(self, data: pd.DataFrame | Path | str, all_windows: bool = False) -> pd.DataFrame:
        """Predict, in the data's units.

        Args:
            data: a CSV or Parquet file, or a table; with the columns that were trained on.
                A forecast's rows must keep the frequency. Classes and values of sequences need
                not be there.
            all_windows: of a forecast, whether to begin after every row that has enough rows
                before it; by default only after the last row of each series.

        Returns:
            Of a forecast a row for every step: the series where there are several, the time (or
            the number of the row), the step, and a column for each target, with quantiles the
            median, one for each other quantile, and the ends of the intervals that the model has
            (`sales_lower_0.8`, `sales_upper_0.8`). Of sequences a row for each, or where every
            step is labelled for each row: values, or the class and the probability of each class.

        Raises:
            DataError: the data is not what the model was trained on; file, rule, value, remedy.
            ModelError: the graph cannot read what `pipeline.json` says that it reads.

        Warns:
            PredictionWarning: series that are too short are left out; tokens are unknown.
        """
        try:
            if isinstance(data, pd.DataFrame):
                table = RawTable.held(data)
            else:
                table = RawTable.read(Path(data))
            if self.pipeline.task == "forecast":
                return forecast(self.pipeline, table, self._runner, all_windows)
            return predict_sequences(self.pipeline, table, self._runner)
        except DataError as error:
            raise for_a_model(error) from None

    @property
    def columns(self) -> list[str]:
        """Of what `predict` returns."""
        forecasts = self.pipeline.task == "forecast"
        return (forecast_columns if forecasts else label_columns)(self.pipeline)

    def __repr__(self) -> str:
        return (
            f"Model({str(self.folder)!r}: {self.pipeline.task} {', '.join(self.pipeline.targets)})"
        )


def load_model(folder: Path | str) -> Model:
    """Open the folder that `tuner train -o` or `tuner export --model` wrote.

    Raises:
        ModelError: it is none, was changed, or is of a newer version; file, rule and remedy.
    """
    folder = Path(folder)
    record, file = open_folder(folder)
    pipeline = Pipeline.of(record, folder / PIPELINE)
    return Model(folder, pipeline, Runner(file, folder / MODEL, pipeline))
