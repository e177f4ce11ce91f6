"""Predictions of the test set and their intervals, as records and as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tuner.data.baselines import Baselines
from tuner.data.intervals import Intervals, calibrated
from tuner.data.prepared import Prepared, open_test_part
from tuner.data.reference import DataRef, PairsRef, SeriesRef
from tuner.errors import RunError
from tuner.executors.base import Executor, run_jobs
from tuner.experiment import Experiment
from tuner.jobs import PredictJob, TrainJob, Weights
from tuner.journal.records import StudyRecord
from tuner.outputs import scratch_folder
from tuner.prediction import Model
from tuner.prediction.columns import distinct
from tuner.results.winner import find_winner
from tuner.tables.rows import read_table


@dataclass(frozen=True)
class Calibration:
    """The intervals of the first of several models, and those of their mean."""

    single: Intervals
    ensemble: Intervals | None  # None where there is one model


def calibrate(
    experiment: Experiment, job: TrainJob, weights: Sequence[Weights], executor: Executor
) -> Intervals | None:
    """Return the intervals of a model, or of an ensemble; None if the experiment has none.

    Args:
        experiment: with the levels.
        job: that trained the models; residuals are those of its last fold's validation rows.
        weights: of each model.
        executor: predicts.
    """
    levels, ref = experiment.task.intervals, job.folds[-1]
    if not levels or not isinstance(ref, SeriesRef):
        return None
    first, *others = weights
    key, hyperparameters = f"intervals of {len(weights)}", job.hyperparameters
    asked = PredictJob(key, hyperparameters, first, ref, device=job.device, others=tuple(others))
    (outcome,) = run_jobs(executor, [asked])
    assert outcome.predictions is not None
    return calibrated(levels, ref, points_of(outcome.predictions, ref))


def calibrate_all(
    experiment: Experiment, models: Sequence[tuple[TrainJob, Weights]], executor: Executor
) -> Calibration | None:
    """Return the intervals of the first model and of the ensemble of all, as of `calibrate`."""
    (job, first), weights = models[0], [each for _, each in models]
    single = calibrate(experiment, job, [first], executor)
    if single is None:
        return None
    several = len(weights) > 1
    return Calibration(single, calibrate(experiment, job, weights, executor) if several else None)


def coverage_of(
    intervals: Intervals, predicted: np.ndarray, ref: DataRef, truth: np.ndarray
) -> list[dict[str, Any]]:
    """Return the coverage of the truth by intervals around predictions."""
    assert isinstance(ref, SeriesRef)
    scale = intervals.scale_of(ref, ref.evaluate_samples())
    return [*intervals.coverage(points_of(predicted, ref), truth, ref.transform, scale)]


def points_of(predicted: np.ndarray, ref: DataRef) -> np.ndarray:
    """Return the point predictions: of quantiles, on the last axis, the median."""
    quantiles = ref.shape.quantiles
    return np.asarray(predicted[..., quantiles.index(0.5)] if quantiles else predicted)


_MOST_POINTS = 2000  # in the record: journals are read often
_CLOSE_ROWS, _CLOSE_SERIES = 240, 4  # in a legible plot
_MOST_CLASSES = 60  # of a legible confusion matrix


def predictions_record(
    test: Prepared,
    truth: np.ndarray,
    predicted: list[np.ndarray],
    baselines: Baselines,
    together: np.ndarray | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any] | None:
    """Return the predictions of the test set for plots, as JSON.

    Args:
        test: the test set.
        truth: of its samples, as of `DataRef.truth_of`.
        predicted: by each of the winner's models.
        baselines: of the test set.
        together: by the ensemble, if there is one.
        calibration: intervals, if there are any.

    Returns:
        For values, of the first step of the first target, of every `every`-th of `total` samples:
        names (`at`), `truth`, `predicted` (mean of the models, or middle of intervals), `lower` and
        `upper` of a `band` (the widest interval; `bands` are the others), `baselines`, and the
        `series` of each. `close` has all steps of the last rows of a few series, each row once.
        For classes, `confusion`: counts by true class (row) and predicted class (column) over all
        models. None without predictions, for texts, and for too many classes.
    """
    (ref,) = test.folds
    if not predicted or ref.shape.task == "translate":
        return None
    if ref.shape.classes:
        return _classes(test, truth, predicted)
    models = _Drawn(ref, truth, predicted, together, calibration)
    samples = ref.evaluate_samples()
    names = _names(test, ref, samples)
    every = max(1, math.ceil(len(names) / _MOST_POINTS))
    kept = slice(None, None, every)
    if ref.shape.each_step:
        plain = {name: values[kept] for name, values in baselines.predict(samples).items()}
    else:
        plain = baselines.predict(samples[kept])
    record: dict[str, Any] = {
        "kind": "values",
        "target": test.facts.targets[0],
        "horizon": ref.shape.horizon,
        "models": len(predicted),
        "total": len(names),
        "every": every,
        "at": names[kept],
        **models.record(
            lambda values: values[kept, 0, 0],
            {name: values[:, 0, 0] for name, values in plain.items()},
        ),
    }
    if isinstance(ref, SeriesRef):
        series = ref.series_of(samples)
        if len(set(series.tolist())) > 1:
            record["series"] = series[kept].tolist()
        if len(begins := _close_up(samples, series, ref.shape.horizon)):
            record["close"] = _close_record(test, ref, models, baselines, begins)
    return record


def _close_record(
    test: Prepared, ref: SeriesRef, models: _Drawn, baselines: Baselines, begins: np.ndarray
) -> dict[str, Any]:
    """Return all steps of the forecasts at some places among the samples."""
    samples, steps = ref.evaluate_samples(), np.arange(ref.shape.horizon)
    rows = (samples[begins][:, None] + steps).ravel()
    near = baselines.predict(samples[begins])
    return {
        "at": [test.name_of(row) for row in rows.tolist()],
        "series": np.repeat(ref.series_of(samples)[begins], len(steps)).tolist(),
        **models.record(
            lambda values: values[begins, :, 0].reshape(-1, *values.shape[3:]),
            {name: values[:, :, 0].ravel() for name, values in near.items()},
        ),
    }


_Pick = Callable[[np.ndarray], np.ndarray]  # (samples, horizon, targets, ...) -> (n, ...)


def _close_up(samples: np.ndarray, of: np.ndarray, horizon: int) -> np.ndarray:
    """Return the places of the last forecasts of the first series, without overlap, (n,).

    Empty if all forecasts are of one step, and few.
    """
    series = list(dict.fromkeys(of.tolist()))[:_CLOSE_SERIES]
    if horizon == 1 and len(samples) <= _CLOSE_ROWS * len(series):
        return np.empty(0, np.int64)
    found: list[int] = []
    for number in series:
        own: list[int] = []
        for place in np.flatnonzero(of == number)[::-1].tolist():
            if not own or samples[place] + horizon <= samples[own[-1]]:
                own.append(place)
            if len(own) * horizon >= _CLOSE_ROWS:
                break
        found += own[::-1]
    return np.array(found, np.int64)


@dataclass(frozen=True)
class _Drawn:
    """Truth and predictions, of which parts are drawn."""

    ref: DataRef
    truth: np.ndarray
    predicted: list[np.ndarray]  # by each model
    together: np.ndarray | None  # by the ensemble
    calibration: Calibration | None

    def record(self, pick: _Pick, plain: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return a part: the truth, the models' mean, a band and the baselines."""
        picked = [pick(p) for p in self.predicted]
        models = np.stack([points_of(p, self.ref) for p in picked])  # (models, n)
        if isinstance(self.ref, SeriesRef):
            plain = {name: values for name, values in plain.items() if name != "training_mean"}
        with np.errstate(over="ignore", invalid="ignore"):  # forecasts may overflow
            mean = models.mean(axis=0)
        record: dict[str, Any] = {
            "truth": _numbers(pick(self.truth)),
            "predicted": _numbers(mean),
            "baselines": {name: _numbers(values) for name, values in plain.items()},
        }
        if self.calibration is not None:
            record |= self._intervals(self.calibration, pick)
        elif quantiles := self.ref.shape.quantiles:
            lowest, highest = (np.mean([p[:, i] for p in picked], axis=0) for i in (0, -1))
            band = f"quantiles {quantiles[0]:g} to {quantiles[-1]:g}"
            record |= {"lower": _numbers(lowest), "upper": _numbers(highest), "band": band}
        elif len(models) > 1:
            record |= {"lower": _numbers(models.min(axis=0)), "upper": _numbers(models.max(axis=0))}
            record["band"] = f"range of {len(models)} models"
        return record

    def _intervals(self, calibration: Calibration, pick: _Pick) -> dict[str, Any]:
        assert isinstance(self.ref, SeriesRef)
        intervals = calibration.ensemble or calibration.single
        predicted = self.predicted[0] if self.together is None else self.together
        points = points_of(predicted, self.ref)
        scale = intervals.scale_of(self.ref, self.ref.evaluate_samples())
        lower, upper = map(pick, intervals.around(points, self.ref.transform, scale))  # (n, levels)
        *others, widest = [
            {
                "name": f"{level:g} interval",
                "lower": _numbers(lower[:, i]),
                "upper": _numbers(upper[:, i]),
            }
            for i, level in enumerate(intervals.levels)
        ]
        band = {"band": widest.pop("name"), "bands": others[::-1]}
        return {"predicted": _numbers(pick(points)), **widest, **band}


def _names(test: Prepared, ref: DataRef, samples: np.ndarray) -> list[str]:
    """Return the names of the samples, or of their steps if each step has a value."""
    names = [test.name_of(sample) for sample in samples.tolist()]
    if not ref.shape.each_step:
        return names
    lengths = np.diff(ref.load("bounds")[samples])[:, 0].tolist()
    return [f"{name} {i + 1}" for name, n in zip(names, lengths, strict=True) for i in range(n)]


def _classes(
    test: Prepared, truth: np.ndarray, predicted: list[np.ndarray]
) -> dict[str, Any] | None:
    n = len(test.facts.classes)
    if n > _MOST_CLASSES:
        return None
    counts = np.zeros((n, n), np.int64)
    for probabilities in predicted:
        np.add.at(counts, (truth, probabilities.argmax(axis=1)), 1)
    names = [str(name) for name in test.facts.classes]
    return {
        "kind": "classes",
        "models": len(predicted),
        "total": len(truth),
        "classes": names,
        "confusion": counts.tolist(),
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """Return the values with seven digits; None for infinite ones, which JSON lacks."""
    return [float(f"{v:.7g}") if math.isfinite(v) else None for v in values.tolist()]


def test_predictions(record: StudyRecord, get_model: Callable[[], Model]) -> pd.DataFrame:
    """Return the model's predictions of the test set, on which the study was evaluated.

    Args:
        record: the study.
        get_model: returns the winner's model.

    Returns:
        As of `Model.predict`: `horizon` rows for each scored window of a forecast, a row for each
        scored sequence. The truth is in columns whose names end with `_true`.

    Raises:
        DataError: the data cannot be read, or has changed.
        RunError: the winner was not evaluated on the test set.
    """
    test = record.test
    if test is None or not find_winner(record).was_tested(test):
        whose = "yet" if test is None else "for the configuration that wins now"
        reopen = "open_test=True" if test is None else "reopen_test=True"
        rule = f"study {record.name!r} was not evaluated on the test set {whose}"
        raise RunError(rule, remedy=f"search with {reopen}")
    model = get_model()
    params, table = find_winner(record).params, read_table(record.experiment.data)
    with scratch_folder() as folder:
        opened = open_test_part(
            record.experiment, folder, sha256=record.data["sha256"], all_data=test.refit is not None
        ).of(params)
        ref = opened.folds[-1].with_window(params.get("window"))
        samples = ref.evaluate_samples()
        truth = ref.truth_of(samples)
        if isinstance(ref, SeriesRef):
            found = model.predict_at(table, samples)
            if opened.facts.classes:
                return _beside(found, model, [np.array(opened.facts.classes, object)[truth]])
            return _beside(found, model, list(truth.reshape(-1, truth.shape[-1]).T))
        found = _of_part(model.predict_at(table), opened, samples, record)
        if opened.facts.classes:
            return _beside(found, model, [np.array(opened.facts.classes, object)[truth]])
        if isinstance(ref, PairsRef):
            written = table.raw_strings(model.pipeline.targets)
            return _beside(found, model, [column[samples] for column in written.values()])
        return _beside(found, model, list(truth[:, 0].T))


def _of_part(
    predicted: pd.DataFrame, opened: Prepared, samples: np.ndarray, record: StudyRecord
) -> pd.DataFrame:
    """Return the predictions of some sequences, in their order, with the rows of all steps."""
    if not record.experiment.task.each_step:
        return predicted.iloc[samples].reset_index(drop=True)
    names = [opened.name_of(sample) for sample in samples.tolist()]
    ids = pd.Index(predicted[record.experiment.data.id].astype(str))
    at = pd.Index(names).get_indexer(ids)
    rows = np.argsort(np.where(at < 0, len(names), at), kind="stable")[: (at >= 0).sum()]
    return predicted.iloc[rows].reset_index(drop=True)


def _beside(predicted: pd.DataFrame, model: Model, truth: list[np.ndarray]) -> pd.DataFrame:
    """Insert the truth of each target before its predictions."""
    pipeline, targets = model.pipeline, model.pipeline.targets
    first = len(predicted.columns) - len(targets) - len(pipeline.classes)
    if pipeline.task == "forecast":
        first = 2 + (pipeline.columns.id is not None)  # series, time, step
    width = (len(predicted.columns) - first) // len(targets)  # columns of a target
    for i, (target, values) in enumerate(zip(targets, truth, strict=True)):
        *_, name = distinct([*predicted.columns, f"{target}_true"])
        predicted.insert(first + i * (width + 1), name, values)
    return predicted
