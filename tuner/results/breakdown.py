"""Where a model errs: the test score of each step, each series, each target and each class."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from tuner.data.dataset import Prepared
from tuner.data.metrics import score
from tuner.data.reference import SeriesRef

__all__ = ["MOST_SERIES", "breakdown"]

MOST_SERIES = 1000
"""That have a score each in the record; of more, the first ones."""


def breakdown(
    metric: str, test: Prepared, truth: np.ndarray, predicted: list[np.ndarray]
) -> dict[str, list[dict[str, Any]]]:
    """Return the scores of parts of the test rows, each the mean over the models.

    Rows count what they weigh; so do steps of the horizon, but where each has its own score.

    Args:
        metric: the experiment's.
        test: the opened test part.
        truth: of its samples, as `DataRef.truth_of` has it.
        predicted: what each of the winner's models says of them.

    Returns:
        By `step` of the horizon, by `series` and by `target`, where there are several: lists of
        `{name, rows, score}`, with the score None where there is none. By `class`: `{name, rows,
        precision, recall, f1}`, from 0 to 1, of scikit-learn's.
    """
    (ref,) = test.folds
    if not predicted or ref.shape.task == "translate":  # a text is right or not
        return {}
    if ref.shape.classes:
        return {"class": list(_classes(test, truth, predicted))}
    samples, horizon, n_targets = ref.evaluate_samples(), truth.shape[1], truth.shape[2]
    weights = ref.weights_of(samples)
    of_rows = weights  # for a step of its own what the steps weigh says nothing
    if isinstance(ref, SeriesRef) and ref.step_weights:
        of_rows = replace(ref, step_weights=()).weights_of(samples)

    every = slice(None)

    def of(name: Any, rows: Any, steps: slice, targets: slice) -> dict[str, Any]:
        place = rows, steps, targets
        chosen = samples[rows] if isinstance(ref, SeriesRef) else None
        counted = weights if steps == every else of_rows
        if counted is not None:
            counted = counted[rows, steps] if isinstance(ref, SeriesRef) else counted
        elif weights is not None:
            counted = np.ones(truth[place].shape[:2])
        scores = [
            _score_of(metric, truth[place], p[place], test, chosen, targets, counted)
            for p in predicted
        ]
        known = [value for value in scores if math.isfinite(value)]
        mean = statistics.fmean(known) if len(known) == len(scores) else None
        return {"name": name, "rows": int(truth[place].size), "score": mean}

    found: dict[str, list[dict[str, Any]]] = {}
    if horizon > 1:
        found["step"] = [of(k + 1, every, slice(k, k + 1), every) for k in range(horizon)]
    if isinstance(ref, SeriesRef) and len(test.facts.series) > 1:
        series = ref.series_of(samples)
        found["series"] = [
            of(test.facts.series[i], np.flatnonzero(series == i), every, every)
            for i in np.unique(series)[:MOST_SERIES].tolist()
        ]
    if n_targets > 1:
        found["target"] = [
            of(name, every, every, slice(i, i + 1)) for i, name in enumerate(test.facts.targets)
        ]
    return found


def _score_of(
    metric: str,
    truth: np.ndarray,
    predicted: np.ndarray,
    test: Prepared,
    samples: np.ndarray | None,
    targets: slice,
    weights: np.ndarray | None,
) -> float:
    (ref,) = test.folds
    if metric != "mase" or targets == slice(None):
        return score(metric, truth, predicted, ref, samples, weights)
    # MASE of one target: the mean absolute error over its naive one, as in `score`.
    own = ref.evaluate_samples() if samples is None else samples
    units = np.repeat(ref.naive_errors(own)[:, targets], truth.shape[1], axis=0)
    errors = np.abs(truth - _points(predicted, test)).reshape(-1, truth.shape[-1]) / units
    if not np.isfinite(errors).all() or (weights is not None and not weights.any()):
        return math.nan
    return float(np.average(errors[:, 0], weights=None if weights is None else weights.ravel()))


def _points(predicted: np.ndarray, test: Prepared) -> np.ndarray:
    quantiles = test.folds[0].shape.quantiles
    return np.asarray(predicted[..., quantiles.index(0.5)] if quantiles else predicted)


def _classes(
    test: Prepared, truth: np.ndarray, predicted: list[np.ndarray]
) -> Iterable[dict[str, Any]]:
    from sklearn.metrics import precision_recall_fscore_support  # slow to import

    (ref,) = test.folds
    weights = ref.weights_of(ref.evaluate_samples()) if ref.has_weights else None
    names, numbers = test.facts.classes, np.arange(len(test.facts.classes))
    of_models = np.mean(
        [
            precision_recall_fscore_support(
                truth,
                p.argmax(axis=1),
                labels=numbers,
                zero_division=0.0,
                sample_weight=weights,
            )[:3]
            for p in predicted
        ],
        axis=0,
    )  # (3, classes)
    rows = np.bincount(truth, minlength=len(names))
    for number, name in enumerate(names):
        precision, recall, f1 = of_models[:, number].tolist()
        scores = {"precision": precision, "recall": recall, "f1": f1}
        yield {"name": str(name), "rows": int(rows[number]), **scores}
