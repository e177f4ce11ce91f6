"""Plain predictions that a tuned model has to beat."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

import numpy as np

from tuner.data.metrics import score
from tuner.data.reference import DataRef, SeriesRef

__all__ = [
    "baseline_scores",
    "last_value",
    "mean_baselines",
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


def baseline_scores(metric: str, ref: DataRef, season: int | None) -> dict[str, float]:
    """Score the plain predictions of what `ref` evaluates, in the data's units.

    Args:
        metric: the experiment's.
        ref: the prepared data.
        season: see `plain_predictions`.
    """
    samples = ref.evaluate_samples()
    truth, plain = ref.truth_of(samples), plain_predictions(ref, samples, season)
    if n_quantiles := len(ref.shape.quantiles):  # each is the one value that is forecast
        plain = {k: np.repeat(v[..., None], n_quantiles, axis=-1) for k, v in plain.items()}
    return {name: score(metric, truth, predicted, ref) for name, predicted in plain.items()}


def plain_predictions(
    ref: DataRef, samples: np.ndarray, season: int | None
) -> dict[str, np.ndarray]:
    """Predict samples without a model.

    Args:
        ref: the prepared data.
        samples: (n,), as `DataRef.evaluate_samples` has them.
        season: of a forecast, rows in a season; without one, or where no series reaches back so
            far, there is no seasonal forecast. A window without a season before it gets the
            last value.

    Returns:
        The predictions by name, in the data's units. Of a forecast `last_value`,
        `seasonal_naive` where there is a season, and `training_mean`, of each series its own; of
        values of sequences `training_mean`; each (n, horizon, targets). Of classes
        `class_frequencies`, (n, classes) or (steps, classes), which gives every class the share
        that it has in the training part.
    """
    if isinstance(ref, SeriesRef):
        return _forecasts(ref, samples, season)
    known = ref.truth_of(ref.train_samples())
    if ref.shape.classes:
        shares = np.bincount(known, minlength=ref.shape.classes) / len(known)
        return {"class_frequencies": np.tile(shares, (len(ref.truth_of(samples)), 1))}
    shape = (len(samples), *known.shape[1:])
    return {"training_mean": np.broadcast_to(known.mean(axis=0), shape)}


def mean_baselines(metric: str, folds: Sequence[DataRef], season: int | None) -> dict[str, float]:
    """Return each plain prediction's mean score over the folds, where every fold has it."""
    scores = [baseline_scores(metric, ref, season) for ref in folds]
    names = [name for name in scores[0] if all(name in fold for fold in scores)]
    return {name: statistics.fmean(fold[name] for fold in scores) for name in names}


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
