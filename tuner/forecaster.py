"""An estimator in the manner of scikit-learn: `LSTMForecaster().fit(y).predict()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from tuner.api import search
from tuner.errors import InputError
from tuner.experiment import Experiment, parse_value
from tuner.outputs import temporary_folder
from tuner.planning.columns import guess_columns
from tuner.planning.forecast import forecast_file
from tuner.planning.proposal import Request
from tuner.studies import keep_frame
from tuner.tables.table import RawTable

Table = pd.DataFrame | pd.Series | np.ndarray
"""Rows in order of time: one numeric column, or several named ones."""

_NAME = "forecaster"


class LSTMForecaster(BaseEstimator):  # type: ignore[misc]
    """Searches the hyperparameters of an LSTM on a table, and forecasts with the winner.

    It searches the experiment that `tuner init` writes for the table, changed by `settings`. The
    last rows are the validation set and the test set; the winner is trained again on all rows
    before the test set. `get_params`, `set_params` and `sklearn.base.clone` work; arguments are
    checked in `fit`. A forecast reads the rows before it, so rows are not independent samples:
    `cross_val_score`, which shuffles rows into folds, does not apply. To validate on several
    periods, use `settings={"data.split.validation": {"folds": 3}}`.

    Args:
        target: column to forecast; required if the table has several numeric columns.
        time: column of times; by default an index of times, or the column that holds times.
        id: column that names the series of each row.
        features: columns that the model reads; by default those that improve a linear forecast.
        horizon: number of rows to forecast, 1 to 10000.
        strategy: a name that `tuner strategies` lists.
        trials: number of trials, 1 to 1000000; by default chosen by the size of the table.
        settings: other values of the experiment by dotted key, such as
            `{"budget.epochs": 20, "task.intervals": [0.8]}`.
        random_state: seed of the search, 0 to 4294967295. The same seed gives the same model on
            the same kind of CPU.
        n_jobs: number of trials that run at a time; by default one per core, up to the batch or
            population of the strategy.
        study: name under which the study is kept in `studies/`. The same `fit` resumes it, and
            `tuner studies` lists it. By default the study lives as long as the estimator.
        verbose: whether to print a line per trial.

    Attributes:
        study_: the search, a `tuner.Study` with `verdict`, `test`, `trials` and `report()`.
        model_: the trained model, a `tuner.prediction.Model`.
        experiment_: the experiment that was searched.
        best_params_: the searched hyperparameters of the winner.
        feature_names_in_: names of the columns, (n_features_in_,).
        n_features_in_: number of columns.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        time: str | None = None,
        id: str | None = None,
        features: Sequence[str] | None = None,
        horizon: int = 1,
        strategy: str = "tpe",
        trials: int | None = None,
        settings: Mapping[str, Any] | None = None,
        random_state: int = 0,
        n_jobs: int | None = None,
        study: str | None = None,
        verbose: bool = False,
    ) -> None:
        self.target = target
        self.time = time
        self.id = id
        self.features = features
        self.horizon = horizon
        self.strategy = strategy
        self.trials = trials
        self.settings = settings
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.study = study
        self.verbose = verbose

    def fit(self, X: Table, y: Table | None = None) -> Self:
        """Search, train the winner, and return the estimator.

        Args:
            X: rows in order of time: a table, (rows, columns), or one series, (rows,). An index
                of times is the time column.
            y: the target, (rows,), if X does not hold it.

        Raises:
            InputError: the table or a parameter is refused. Nothing was started.
            RunError: every trial failed.
            Interrupted: Ctrl-C.
        """
        table, target = self._table(X, y)
        folder, journal = Path("studies"), None
        if self.study is None:
            folder = temporary_folder(self, "lstm-tuner-study-")
            journal = str(folder / f"{_NAME}.journal")
        path = keep_frame(table, folder / "data", self.study or _NAME)
        experiment = self._experiment(path, target)
        self.study_ = search(
            experiment,
            study=self.study,
            journal=journal,
            workers=self.n_jobs,
            tracking=False,
            progress=bool(self.verbose),
        )
        self.experiment_ = experiment
        self.model_ = self.study_.model
        self.best_params_ = self.study_.best.params
        self.feature_names_in_ = np.array(table.columns, object)
        self.n_features_in_ = len(table.columns)
        self._path = path
        return self

    def predict(
        self, X: Table | None = None, y: Table | None = None, *, all_windows: bool = False
    ) -> pd.DataFrame:
        """Forecast the next rows, in the unit of the target.

        Args:
            X: the latest rows with the target, as in `fit`; by default the rows of `fit`.
            y: the target, (rows,), if X does not hold it.
            all_windows: whether to forecast after every row that has a full window before it.

        Returns:
            One row per series and step: the id if there are several series, the time (or the
            number of the row), `step` from 1 to the horizon, and the target. See
            `tuner.prediction.Model.predict`.

        Raises:
            NotFittedError: `fit` was not called.
            DataError: the rows do not match those of `fit`.
        """
        check_is_fitted(self, "model_")
        rows = self._path if X is None else self._table(X, y)[0]
        return self.model_.predict(rows, all_windows)

    def score(self, X: Table, y: Table | None = None) -> float:
        """Return R² over all windows of X and all steps of the horizon, at most 1.

        The score is optimistic on the rows of `fit`. Pass later rows, with one window of rows
        before them.

        Args:
            X: rows with the target, as in `fit`.
            y: the target, (rows,), if X does not hold it.

        Raises:
            NotFittedError: `fit` was not called.
            InputError: no row can be forecast.
        """
        table, target = self._table(X, y)
        found = self.predict(table, all_windows=True)
        columns = self.model_.pipeline.columns
        keys = [name for name in (columns.id, columns.time) if name is not None]
        if columns.time is None:
            whose = pd.Series(0, table.index) if columns.id is None else table[columns.id]
            table = table.assign(row=table.groupby(whose.to_numpy()).cumcount().to_numpy() + 1)
            keys.append("row")
        truth = table[[*keys, target]].rename(columns={target: "truth"})
        both = found.merge(truth, on=keys).dropna(subset=["truth"])
        if len(both) < 2:
            rule = f"X: needs two rows at least behind a window of {self.model_.pipeline.window}"
            raise InputError(rule, got=len(both), remedy="pass more rows")
        return float(r2_score(both["truth"], both[target]))

    def _table(self, X: Table, y: Table | None) -> tuple[pd.DataFrame, str]:
        """Return a table that holds the target, and the name of the target."""
        table = X
        if isinstance(table, np.ndarray) and table.ndim == 1:
            table = pd.Series(table)
        elif isinstance(table, np.ndarray) and table.ndim == 2:
            table = pd.DataFrame(table, columns=[f"x{i}" for i in range(table.shape[1])])
        if isinstance(table, pd.Series):
            table = table.to_frame("y" if table.name is None else str(table.name))
        if not isinstance(table, pd.DataFrame):
            kind = type(X).__name__
            rule = "X: must be a table or a series of pandas, or an array"
            raise InputError(rule, got=f"a {kind}", remedy="give pd.DataFrame(...), say")
        target = self.target
        if y is not None:
            values = np.asarray(y).ravel()
            name = getattr(y, "name", None) or target or "y"
            if len(values) != len(table):
                rule = "y: must have a value for each row"
                got = f"{len(values)} for {len(table)} rows"
                raise InputError(rule, got=got, remedy="pass one for each row")
            table, target = table.assign(**{str(name): values}), str(name)
        table = RawTable.from_frame(table).frame
        if target is None:
            known = self.time, self.id
            numbers = [str(c) for c in table.select_dtypes("number") if c not in known]
            if len(numbers) != 1:
                got = ", ".join(numbers) or "none"
                rule = f"must name the column to forecast, columns of numbers are {got}"
                remedy = f"give LSTMForecaster({(numbers or ['sales'])[-1]!r})"
                raise InputError(rule, key="target", remedy=remedy)
            (target,) = numbers
        return table, target

    def _experiment(self, path: Path, target: str) -> Experiment:
        """Return the experiment of `tuner init` for a table, with the parameters applied."""
        features = None if self.features is None else list(self.features)
        columns = guess_columns(
            RawTable.read(path, time=self.time),
            time=self.time,
            id_=self.id,
            target=[target],
            features=features,
        )
        asked = Request(
            path=path,
            columns=columns,
            features=features,
            resample=None,
            time_given=self.time is not None,
            horizon=self.horizon,
            name=_NAME,
            written_path=str(path),
        )
        written = parse_value(forecast_file(asked).text, _NAME)
        values: dict[str, Any] = {"strategy": {"name": self.strategy}, "seed": self.random_state}
        if self.trials is not None:
            values["budget.trials"] = self.trials
        return Experiment.from_dict(written).changed({**values, **(self.settings or {})})
