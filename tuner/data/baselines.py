"""Plain predictions that a tuned model has to beat.

Some need nothing but the past (the last value); others are fitted on the training rows of the
data that they are given (a linear model, exponential smoothing). What the validation rows decide
about these is a `Choices`, found once with the search's data and kept for the test part, also
where they are fitted again on training and validation rows.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tuner.data.classical import Classical, fit_classical, kinds_left_out
from tuner.data.linear_forecast import (
    LinearForecast,
    WindowChoice,
    choose_window,
    too_many_columns,
)
from tuner.data.linear_sequences import (
    LinearOfSequences,
    SequenceChoice,
    choose_reading,
    too_many_numbers,
)
from tuner.data.metrics import score
from tuner.data.reference import DataRef, SequencesRef, SeriesRef

__all__ = [
    "Baselines",
    "Choices",
    "baseline_scores",
    "baselines_record",
    "choose",
    "last_value",
    "plain_predictions",
    "season_of",
    "seasonal_naive",
]

_STEPS_PER_CYCLE = {
    "s": 86_400, "min": 1_440, "h": 24,  # a day
    "D": 7, "B": 5,  # a week
    "W": 52, "MS": 12, "ME": 12, "BMS": 12, "BME": 12, "WOM": 12, "LWOM": 12,  # a year
    "QS": 4, "QE": 4, "BQS": 4, "BQE": 4,
}  # fmt: skip


def last_value(truth: np.ndarray, starts: np.ndarray, horizon: int) -> np.ndarray:
    """Forecast the last known value for every step: (windows, horizon, targets)."""
    return np.repeat(truth[starts - 1][:, None, :], horizon, axis=1)


def seasonal_naive(truth: np.ndarray, starts: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Forecast the value of the same step in the last known season: (windows, horizon, targets).

    Raises:
        ValueError: a window begins less than a season after the first row.
    """
    if len(starts) and starts.min() < season:
        raise ValueError(f"a season of {season} rows needs as many before row {starts.min()}")
    rows = starts[:, None] - season + np.arange(horizon) % season  # (windows, horizon), < starts
    return np.asarray(truth[rows])


@dataclass(frozen=True)
class Choices:
    """What the search's data decides about plain predictions; none of it is fitted."""

    linear: WindowChoice | SequenceChoice | None  # None where there is no linear model
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why a prediction is not made of any part, by its name: what is made of one is of all."""


def choose(metric: str, ref: DataRef, season: int | None) -> Choices:
    """Choose how the linear model reads and how much it is penalized, by the validation rows.

    And which predictions are left out, by how many rows and series there are.

    Args:
        metric: the experiment's.
        ref: of the search, which evaluates the validation part; with rolling origins the last
            fold's.
        season: of a forecast, rows in a season; None without one.
    """
    if isinstance(ref, SeriesRef):
        why_not, left_out = too_many_columns(ref), kinds_left_out(ref, season)
    else:
        assert isinstance(ref, SequencesRef)
        why_not, left_out = too_many_numbers(ref), {}
    if why_not:
        return Choices(None, {"linear": why_not} | left_out)
    if isinstance(ref, SeriesRef):
        return Choices(choose_window(metric, ref), left_out)
    return Choices(choose_reading(metric, ref), left_out)


class Baselines:
    """The plain predictions of one split, fitted on the training rows of a reference.

    A forecast of row t follows from the training rows and from rows before t.
    """

    left_out: dict[str, str]
    """Why a prediction that there might be is not there, by its name."""

    def __init__(self, ref: DataRef, season: int | None, choices: Choices | None) -> None:
        """Fit them.

        Args:
            ref: the prepared data: what it trains on is fitted on. That may be more than the
                choices were made with: the validation rows too.
            season: of a forecast, rows in a season; None without one.
            choices: see `choose`; None for those alone that need no fitting.
        """
        self._ref, self._season = ref, season
        self._linear: LinearForecast | LinearOfSequences | None = None
        self._classical: dict[str, Classical] = {}
        self.left_out = {}
        if choices is None:
            return
        self.left_out |= choices.left_out
        if isinstance(choices.linear, WindowChoice):
            assert isinstance(ref, SeriesRef)
            self._linear = LinearForecast(ref, choices.linear)
        elif isinstance(choices.linear, SequenceChoice):
            assert isinstance(ref, SequencesRef)
            self._linear = LinearOfSequences(ref, choices.linear)
        if isinstance(ref, SeriesRef):
            self._classical, missing = fit_classical(ref, season, choices.left_out)
            self.left_out |= missing

    def predict(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Predict samples without a model of ours.

        Args:
            samples: (n,), as `DataRef.evaluate_samples` has them.

        Returns:
            The predictions by name, in the data's units. Of a forecast `last_value`,
            `seasonal_naive` where there is a season (a window without a season before it gets
            the last value), `training_mean`, of each series its own, `linear`,
            `exponential_smoothing` and `seasonal_arima`, where series without a model get the
            last value; of values of sequences `training_mean` and `linear`; each (n, horizon,
            targets). Of classes `class_frequencies`, which gives every class the share that it
            has in the training part, and `linear`, (n, classes) or (steps, classes).
        """
        ref = self._ref
        if isinstance(ref, SeriesRef):
            plain = _forecasts(ref, samples, self._season)
        else:
            plain = _shares_or_mean(ref, samples)
        if isinstance(self._linear, LinearForecast):
            plain["linear"] = self._linear.predict(samples)
        elif self._linear is not None:
            (otherwise,) = plain.values()
            plain["linear"] = self._linear.predict(samples, otherwise)
        for name, models in self._classical.items():
            assert isinstance(ref, SeriesRef)
            plain[name] = models.predict(ref, samples, plain["last_value"])
        return plain

    def scores(self, metric: str, by: DataRef | None = None) -> dict[str, float]:
        """Score the predictions of what the reference evaluates, in the data's units.

        Args:
            metric: the experiment's.
            by: the reference by whose measure they are scored, of the same rows; by default their
                own. MASE's errors, say, are relative to what is trained on.
        """
        ref = by or self._ref
        samples = ref.evaluate_samples()
        truth, plain = ref.truth_of(samples), self.predict(samples)
        if n_quantiles := len(ref.shape.quantiles):  # each is the one value that is forecast
            plain = {k: np.repeat(v[..., None], n_quantiles, axis=-1) for k, v in plain.items()}
        return {name: score(metric, truth, predicted, ref) for name, predicted in plain.items()}


def plain_predictions(
    ref: DataRef, samples: np.ndarray, season: int | None, choices: Choices | None = None
) -> dict[str, np.ndarray]:
    """Return what `Baselines.predict` does, fitted on the training rows of `ref`."""
    return Baselines(ref, season, choices).predict(samples)


def baseline_scores(
    metric: str, ref: DataRef, season: int | None, choices: Choices | None = None
) -> dict[str, float]:
    """Return what `Baselines.scores` does, fitted on the training rows of `ref`."""
    return Baselines(ref, season, choices).scores(metric)


def baselines_record(metric: str, folds: Sequence[DataRef], season: int | None) -> dict[str, Any]:
    """Return what a journal keeps of the plain predictions of the validation part.

    Returns:
        `baselines`, each one's mean score over the folds, where every fold has it; `left_out`,
        why others are not there, by name.
    """
    choices = choose(metric, folds[-1], season)
    fitted = [Baselines(ref, season, choices) for ref in folds]
    scores = [of_fold.scores(metric) for of_fold in fitted]
    names = [name for name in scores[0] if all(name in fold for fold in scores)]
    left_out = {name: why for of_fold in fitted for name, why in of_fold.left_out.items()}
    return {
        "baselines": {name: statistics.fmean(fold[name] for fold in scores) for name in names},
        "left_out": left_out,
    }


def _shares_or_mean(ref: DataRef, samples: np.ndarray) -> dict[str, np.ndarray]:
    known = ref.truth_of(ref.train_samples())
    if ref.shape.classes:
        shares = np.bincount(known, minlength=ref.shape.classes) / len(known)
        return {"class_frequencies": np.tile(shares, (len(ref.truth_of(samples)), 1))}
    shape = (len(samples), *known.shape[1:])
    return {"training_mean": np.broadcast_to(known.mean(axis=0), shape)}


def _forecasts(ref: SeriesRef, starts: np.ndarray, season: int | None) -> dict[str, np.ndarray]:
    values, horizon = np.asarray(ref.load("truth")), ref.shape.horizon
    of = ref.series_of(starts)
    forecasts = {"last_value": last_value(values, starts, horizon)}
    if season is not None:
        reaches = starts - season >= ref.load("reach")[of, 0]  # (windows,)
        if reaches.any():  # a series that begins late has no season before its first windows
            seasonal = forecasts["last_value"].copy()
            seasonal[reaches] = seasonal_naive(values, starts[reaches], horizon, season)
            forecasts["seasonal_naive"] = seasonal
    means = _training_means(ref, values)[of]  # (windows, targets)
    forecasts["training_mean"] = np.repeat(means[:, None, :], horizon, axis=1)
    return forecasts


def _training_means(ref: SeriesRef, values: np.ndarray) -> np.ndarray:
    """Return the mean of each series' training rows, of what was in the file: (series, targets).

    A series without any gets the mean of the other series' rows.
    """
    known = np.asarray(ref.load("known"))
    rows = [np.arange(*part)[known[slice(*part)]] for part in ref.load("train")]
    overall = values[np.concatenate(rows)].mean(axis=0)
    return np.stack([values[of].mean(axis=0) if len(of) else overall for of in rows])


def season_of(frequency: str | None) -> int | None:
    """Return the rows in a season at a pandas frequency; None where there is no usual one.

    Hours and less repeat daily, days weekly, weeks, months and quarters yearly.
    """
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(-.+)?", frequency or "")
    if match is None:
        return None
    steps, multiple = _STEPS_PER_CYCLE.get(match[2], 0), int(match[1] or 1)
    return steps // multiple if steps > multiple and steps % multiple == 0 else None
