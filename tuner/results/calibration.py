"""Intervals of a configuration, from what its models said of validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuner.coordination.work import run_jobs
from tuner.data.intervals import Intervals, calibrated
from tuner.data.reference import DataRef, SeriesRef
from tuner.executors.base import Executor
from tuner.experiment import Experiment
from tuner.jobs import PredictJob, TrainJob, Weights

__all__ = ["Calibration", "calibrate", "calibrate_all", "coverage_of", "points_of"]


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
