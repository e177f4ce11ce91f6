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
    experiment: Experiment,
    job: TrainJob,
    weights: Sequence[Weights],
    executor: Executor,
) -> Intervals | None:
    """Return the intervals of a model, or of the mean of several.

    Args:
        experiment: says which.
        job: that trained them; the residuals are those of its last fold's validation rows, of
            which the models have learned nothing but when to stop.
        weights: of each model.
        executor: predicts.

    Returns:
        None where the experiment asks for none.
    """
    levels, ref = experiment.task.intervals, job.folds[-1]
    if not levels or not isinstance(ref, SeriesRef):
        return None
    first, *others = weights
    asked = PredictJob(
        f"intervals of {len(weights)}",
        job.hyperparameters,
        first,
        ref,
        device=job.device,
        others=tuple(others),
    )
    (outcome,) = run_jobs(executor, [asked])
    assert outcome.predictions is not None
    return calibrated(levels, ref, points_of(outcome.predictions, ref))


def calibrate_all(
    experiment: Experiment, models: Sequence[tuple[TrainJob, Weights]], executor: Executor
) -> Calibration | None:
    """Return the intervals of the first model and of the mean of all, as `calibrate` does."""
    (job, first), weights = models[0], [each for _, each in models]
    single = calibrate(experiment, job, [first], executor)
    if single is None:
        return None
    several = len(weights) > 1
    return Calibration(single, calibrate(experiment, job, weights, executor) if several else None)


def coverage_of(
    intervals: Intervals, predicted: np.ndarray, ref: DataRef, truth: np.ndarray
) -> list[dict[str, Any]]:
    """Return what `Intervals.coverage` says of predictions of what `ref` evaluates."""
    assert isinstance(ref, SeriesRef)
    scale = intervals.scale_of(ref, ref.evaluate_samples())
    return [*intervals.coverage(points_of(predicted, ref), truth, ref.transform, scale)]


def points_of(predicted: np.ndarray, ref: DataRef) -> np.ndarray:
    """Return the values that are forecast, (samples, horizon, targets); of quantiles the median."""
    quantiles = ref.shape.quantiles
    return np.asarray(predicted[..., quantiles.index(0.5)] if quantiles else predicted)


_MOST_POINTS = 2000  # that are kept: the journal is read often
_CLOSE_ROWS, _CLOSE_SERIES = 240, 4  # that can still be read in a picture
_MOST_CLASSES = 60  # of a confusion matrix that people can still read


def predictions_record(
    test: Prepared,
    truth: np.ndarray,
    predicted: list[np.ndarray],
    baselines: Baselines,
    together: np.ndarray | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any] | None:
    """Return the truth, the models' predictions and the plain ones, as JSON.

    Args:
        test: the opened test part.
        truth: of its samples, as `DataRef.truth_of` has it.
        predicted: what each of the winner's models says of them.
        baselines: the plain predictions of the test part.
        together: what they say as an ensemble, where they are several.
        calibration: the intervals, where some are asked for.

    Returns:
        Of values, `kind` values: the first step of the first target, of every `every`-th of
        `total` samples: `at` (their names), `truth`, `predicted` (the models' mean), `lower`,
        `upper` and what that `band` is where there is one (of intervals the widest; `bands` are
        the narrower ones, and `predicted` is what they are around), `baselines`, and where there
        are several, the `series` of each. Where those are many, or of several steps, `close` has
        the same of the last rows of a few series, each row in one forecast with all its steps.
        Of classes, `kind` classes: `confusion`, how often a true
        class (row) was taken for another (column), counted over all models. None where no model
        said anything, or where there are more classes than a picture can show.
    """
    (ref,) = test.folds
    if not predicted or ref.shape.task == "translate":
        return None
    if ref.shape.classes:
        return _classes(test, truth, predicted)
    samples = ref.evaluate_samples()
    names = _names(test, ref, samples)
    every = max(1, math.ceil(len(names) / _MOST_POINTS))
    kept = slice(None, None, every)
    if ref.shape.each_step:
        plain = {name: values[kept] for name, values in baselines.predict(samples).items()}
    else:
        plain = baselines.predict(samples[kept])

    def drawn(pick: _Pick, plain: dict[str, np.ndarray]) -> dict[str, Any]:
        return _drawn(ref, pick, truth, predicted, plain, together, calibration)

    record: dict[str, Any] = {
        "kind": "values",
        "target": test.facts.targets[0],
        "horizon": ref.shape.horizon,
        "models": len(predicted),
        "total": len(names),
        "every": every,
        "at": names[kept],
        **drawn(
            lambda values: values[kept, 0, 0],
            {name: values[:, 0, 0] for name, values in plain.items()},
        ),
    }
    if isinstance(ref, SeriesRef):
        of = ref.series_of(samples)
        if len(set(of.tolist())) > 1:
            record["series"] = of[kept].tolist()
        if len(begins := _close_up(samples, of, ref.shape.horizon)):
            steps = np.arange(ref.shape.horizon)
            rows = (samples[begins][:, None] + steps).ravel()
            near = baselines.predict(samples[begins])
            record["close"] = {
                "at": [test.name_of(row) for row in rows.tolist()],
                "series": np.repeat(of[begins], len(steps)).tolist(),
                **drawn(
                    lambda values: values[begins, :, 0].reshape(-1, *values.shape[3:]),
                    {name: values[:, :, 0].ravel() for name, values in near.items()},
                ),
            }
    return record


_Pick = Callable[[np.ndarray], np.ndarray]
"""Takes (samples, horizon, targets, ...) values to those that are drawn, (n, ...)."""


def _close_up(samples: np.ndarray, of: np.ndarray, horizon: int) -> np.ndarray:
    """Return the places of the last forecasts, one after another, of the first series, (n,).

    None where all are drawn: where few forecasts of one step are all that there are.
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


def _drawn(
    ref: DataRef,
    pick: _Pick,
    truth: np.ndarray,
    predicted: list[np.ndarray],
    plain: dict[str, np.ndarray],
    together: np.ndarray | None,
    calibration: Calibration | None,
) -> dict[str, Any]:
    """Return what is drawn of some values: the truth, the models' mean, a band, plain forecasts."""
    models = np.stack([_point(pick(p), ref) for p in predicted])  # (models, n)
    if isinstance(ref, SeriesRef):
        plain = {name: values for name, values in plain.items() if name != "training_mean"}
    with np.errstate(over="ignore", invalid="ignore"):  # a forecast may be beyond all bounds
        mean = models.mean(axis=0)
    record: dict[str, Any] = {
        "truth": _numbers(pick(truth)),
        "predicted": _numbers(mean),
        "baselines": {name: _numbers(values) for name, values in plain.items()},
    }
    if calibration is not None:
        record |= _intervals(ref, predicted[0] if together is None else together, calibration, pick)
    elif quantiles := ref.shape.quantiles:
        lowest, highest = (np.mean([pick(p)[:, i] for p in predicted], axis=0) for i in (0, -1))
        record |= {"lower": _numbers(lowest), "upper": _numbers(highest)}
        record["band"] = f"quantiles {quantiles[0]:g} to {quantiles[-1]:g}"
    elif len(models) > 1:
        record |= {"lower": _numbers(models.min(axis=0)), "upper": _numbers(models.max(axis=0))}
        record["band"] = f"range of {len(models)} models"
    return record


def _names(test: Prepared, ref: DataRef, samples: np.ndarray) -> list[str]:
    """Return what people call the samples, or their steps where every step has its own value."""
    names = [test.name_of(sample) for sample in samples.tolist()]
    if not ref.shape.each_step:
        return names
    lengths = np.diff(ref.load("bounds")[samples])[:, 0].tolist()
    return [f"{name} {i + 1}" for name, n in zip(names, lengths, strict=True) for i in range(n)]


def _intervals(
    ref: DataRef, predicted: np.ndarray, calibration: Calibration, pick: _Pick
) -> dict[str, Any]:
    """Return the intervals of what is drawn, and the forecast within them."""
    assert isinstance(ref, SeriesRef)
    intervals = calibration.ensemble or calibration.single
    points = points_of(predicted, ref)
    scale = intervals.scale_of(ref, ref.evaluate_samples())
    ends = intervals.around(points, ref.transform, scale)
    lower, upper = map(pick, ends)  # (n, levels)
    bands = [
        {
            "name": f"{level:g} interval",
            "lower": _numbers(lower[:, i]),
            "upper": _numbers(upper[:, i]),
        }
        for i, level in enumerate(intervals.levels)
    ]
    widest, *others = bands[::-1]
    return {
        "predicted": _numbers(pick(points)),
        "lower": widest["lower"],
        "upper": widest["upper"],
        "band": widest["name"],
        "bands": others,
    }


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


def _point(picked: np.ndarray, ref: DataRef) -> np.ndarray:
    """Return the values; of quantiles the middle one, (n,)."""
    quantiles = ref.shape.quantiles
    return np.asarray(picked[:, quantiles.index(0.5)] if quantiles else picked)


def _numbers(values: np.ndarray) -> list[float | None]:
    """Return the values with the seven digits that a picture can show; JSON has no infinity."""
    return [float(f"{v:.7g}") if math.isfinite(v) else None for v in values.tolist()]


def test_predictions(record: StudyRecord, get_model: Callable[[], Model]) -> pd.DataFrame:
    """Return what a study's model says of the test part, which the study has opened before.

    Args:
        record: the study.
        get_model: gives that of its winner, where it is the one that was tested.

    Returns:
        What `Model.predict` returns: of a forecast `horizon` rows for each window that was scored;
        of sequences a row for each one that was. Beside each target's column is the truth, in a
        column with `_true` behind the name.

    Raises:
        DataError: the data cannot be read any more, or has changed.
        RunError: the test part was not opened yet, or not for this winner.
    """
    test = record.test
    if test is None or not find_winner(record).was_tested(test):
        whose = "yet" if test is None else "for the configuration that wins now"
        reopen = "open_test=True" if test is None else "reopen_test=True"
        rule = f"study {record.name!r} has not opened its test part {whose}"
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
    """Return the predictions of some sequences, in their order; of every step all of their rows."""
    if not record.experiment.task.each_step:
        return predicted.iloc[samples].reset_index(drop=True)
    names = [opened.name_of(sample) for sample in samples.tolist()]
    ids = pd.Index(predicted[record.experiment.data.id].astype(str))
    at = pd.Index(names).get_indexer(ids)
    rows = np.argsort(np.where(at < 0, len(names), at), kind="stable")[: (at >= 0).sum()]
    return predicted.iloc[rows].reset_index(drop=True)


def _beside(predicted: pd.DataFrame, model: Model, truth: list[np.ndarray]) -> pd.DataFrame:
    """Put the truth of each target before what is predicted of it."""
    pipeline, targets = model.pipeline, model.pipeline.targets
    first = len(predicted.columns) - len(targets) - len(pipeline.classes)
    if pipeline.task == "forecast":
        first = 2 + (pipeline.columns.id is not None)  # series, time, step
    width = (len(predicted.columns) - first) // len(targets)  # columns of a target
    for i, (target, values) in enumerate(zip(targets, truth, strict=True)):
        *_, name = distinct([*predicted.columns, f"{target}_true"])
        predicted.insert(first + i * (width + 1), name, values)
    return predicted
