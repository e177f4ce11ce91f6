"""Scores of predictions: scikit-learn's metrics and the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tuner.data.reference import DataRef
from tuner.errors import InputError, one_line, refusal
from tuner.experiment import Experiment
from tuner.experiment.metrics import METRICS
from tuner.user_code import evaluate, is_reference, load_object, parse

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "log1p": np.log1p,
    "square": np.square, "sign": np.sign, "minimum": np.minimum, "maximum": np.maximum,
    "where": np.where, "mean": np.mean, "sum": np.sum, "median": np.median, "std": np.std,
    "min": np.min, "max": np.max, "quantile": np.quantile,
}  # fmt: skip


def own_score(definition: str, truth: np.ndarray, forecast: np.ndarray) -> float:
    """Return what a metric of one's own says of forecasts.

    Args:
        truth: (samples, horizon, targets) values, in the data's units, or (n,) classes.
        forecast: of the same shape, with quantiles the median; of classes their probabilities,
            (n, classes).

    Raises:
        InputError: it comes to no number.
    """
    given = []
    for array in (truth, forecast):
        view = array.view()
        view.flags.writeable = False  # the next epoch is measured by the same truth
        given.append(view)
    try:
        with np.errstate(all="ignore"):  # what is not finite is no score
            if is_reference(definition):
                found = load_object(definition)(*given)
            else:
                names = dict(zip(("truth", "forecast"), given, strict=True))
                found = evaluate(parse(definition), names, _FUNCTIONS, np.float64)
    except InputError as error:
        raise error.with_(key="objective.metric") from None
    except Exception as error:  # whatever it does
        rule = (
            f"{definition} has no score of these forecasts: {type(error).__name__}: "
            f"{one_line(error)}"
        )
        raise InputError(rule, key="objective.metric", remedy="correct it") from None
    if np.ndim(found) or not isinstance(found, int | float | np.number):
        what = f"an array of shape {np.shape(found)}" if np.ndim(found) else type(found).__name__
        rule = "must come to one number"
        got = f"{what} of {definition}"
        raise InputError(rule, key="objective.metric", got=got, remedy="take the mean")
    return float(found)


def check_own_metric(experiment: Experiment, path: Path) -> None:
    """Refuse a metric of one's own that does not work, by a few made forecasts."""
    definition = METRICS[experiment.objective.metric].definition
    if definition is None:
        return
    rng, task = np.random.default_rng(0), experiment.task
    if task.kind in ("classify", "label"):
        truth, forecast = np.array([0, 1, 2, 1]), rng.dirichlet(np.ones(3), 4)
    else:
        shape = (4, task.horizon, len(experiment.data.targets))
        truth, forecast = rng.uniform(1, 2, shape), rng.uniform(1, 2, shape)
    try:
        found = own_score(definition, truth, forecast)
        if not math.isfinite(found):
            got = f"{found} of {definition} for values from 1 to 2"
            raise InputError("must come to a finite number", got=got, remedy="correct it")
    except InputError as error:
        raise refusal(path, "objective.metric", error.rule, error.got, error.remedy) from None


def score(
    metric: str,
    truth: np.ndarray,
    predicted: np.ndarray,
    ref: DataRef,
    samples: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> float:
    """Score predictions in the data's units; of values the uniform mean over targets.

    Means are weighted where targets count differently, as scikit-learn's `sample_weight` does.

    rmse, mae, r2 and mape (a fraction: 0.05 is five percent) are what scikit-learn says. smape is
    the mean of |truth - predicted| over the mean of |truth| and |predicted|, from 0 to 2. mase is
    the mean absolute error over that of the naive prediction on the training part, of a forecast
    in the same series; series that have no such error are left out. pinball is
    the mean over the quantiles, of which 0.5 is the value that the other metrics score. f1 is
    the mean over the classes that are true or predicted somewhere; auroc that over the classes
    that are true somewhere, each against the rest, and of two classes that of the second.
    exact_match is the share of texts that are right in every token.

    Args:
        metric: of `tuner.experiment.metrics.METRICS`; one's own has all values at once.
        truth: (samples, horizon, targets) values, or (n,) classes; or (n, longest) tokens of
            texts, padded with 0, of which 1 is one that is never right.
        predicted: of values the same shape, with quantiles one axis more, last; of classes their
            probabilities, (n, classes).
        samples: that they are of; by default all that are evaluated.
        weights: (samples, horizon), or (n,) of classes, what each counts; by default that of
            the samples. No metric of one's own has any, nor exact_match.

    Returns:
        The score; nan where a prediction is not finite, or there is no finite score of it.
    """
    if not len(truth) or not np.isfinite(predicted).all():
        return math.nan
    if metric == "exact_match":
        return _exact_matches(truth, predicted)
    if weights is None and ref.has_weights:
        weights = ref.weights_of(ref.evaluate_samples() if samples is None else samples)
    if weights is not None:
        if not (weights > 0).any():
            return math.nan
        weights = (weights / weights.max()).ravel()
    with np.errstate(all="ignore"):
        if (definition := METRICS[metric].definition) is not None:
            if ref.shape.quantiles:
                predicted = predicted[..., ref.shape.quantiles.index(0.5)]
            value = own_score(definition, truth, predicted)
        elif ref.shape.classes:
            value = _score_classes(metric, truth, np.asarray(predicted, np.float64), weights)
        else:
            value = _score_values(metric, truth, predicted, ref, samples, weights)
    return value if math.isfinite(value) else math.nan


def _exact_matches(truth: np.ndarray, predicted: np.ndarray) -> float:
    longest = max(truth.shape[1], predicted.shape[1])
    both = [np.pad(rows, ((0, 0), (0, longest - rows.shape[1]))) for rows in (truth, predicted)]
    return float((both[0] == both[1]).all(axis=1).mean())


def _score_values(
    metric: str,
    truth: np.ndarray,
    predicted: np.ndarray,
    ref: DataRef,
    samples: np.ndarray | None,
    weights: np.ndarray | None,  # (samples * horizon,)
) -> float:
    from sklearn import metrics  # slow to import

    n_targets, quantiles = truth.shape[-1], ref.shape.quantiles
    true = truth.reshape(-1, n_targets)  # (samples * horizon, targets)
    if metric == "pinball":
        levels = predicted.reshape(-1, n_targets, len(quantiles))
        losses = [
            metrics.mean_pinball_loss(true, levels[..., i], alpha=q, sample_weight=weights)
            for i, q in enumerate(quantiles)
        ]
        return float(np.mean(losses))
    if quantiles:
        predicted = predicted[..., quantiles.index(0.5)]
    point = predicted.reshape(-1, n_targets)
    if metric == "r2" and len(true) < 2:
        return math.nan
    if metric in ("smape", "mase"):
        unit = np.empty(0)
        if metric == "mase":
            unit = ref.naive_errors(ref.evaluate_samples() if samples is None else samples)
        unit = np.repeat(unit, truth.shape[1], axis=0)  # (samples * horizon, targets)
        if metric == "smape":
            size = np.abs(true) / 2 + np.abs(point) / 2  # halved first: the sum may overflow
            unit = np.where(size == 0, 1.0, size)
        has_unit = ~np.isnan(unit).any(axis=1)
        true, point, metric = (true / unit)[has_unit], (point / unit)[has_unit], "mae"
        weights = None if weights is None else weights[has_unit]
        if weights is not None and not weights.any():
            return math.nan
        if not (len(true) and np.isfinite(true).all() and np.isfinite(point).all()):
            return math.nan
    functions = {
        "rmse": metrics.root_mean_squared_error,
        "mae": metrics.mean_absolute_error,
        "mape": metrics.mean_absolute_percentage_error,
        "r2": metrics.r2_score,
    }
    return float(functions[metric](true, point, sample_weight=weights))


def _score_classes(
    metric: str, truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None
) -> float:
    from sklearn import metrics  # slow to import

    n_classes = predicted.shape[1]
    if metric == "accuracy":
        return float(metrics.accuracy_score(truth, predicted.argmax(axis=1), sample_weight=weights))
    if metric == "f1":
        best = predicted.argmax(axis=1)
        if weights is not None:  # else a class whose every row is left out would count
            counted = weights > 0
            truth, best, weights = truth[counted], best[counted], weights[counted]
        return float(
            metrics.f1_score(truth, best, average="macro", zero_division=0.0, sample_weight=weights)
        )
    if metric == "auroc":
        if weights is not None:
            counted = weights > 0
            truth, predicted, weights = truth[counted], predicted[counted], weights[counted]
        counts = np.bincount(truth, minlength=n_classes)
        mixed = [c for c in range(n_classes) if 0 < counts[c] < len(truth)]
        scored = [c for c in mixed if c == 1 or n_classes > 2]
        areas = [
            metrics.roc_auc_score(truth == c, predicted[:, c], sample_weight=weights)
            for c in scored
        ]
        return float(np.mean(areas)) if areas else math.nan
    assert metric == "cross_entropy", metric
    sums = predicted.sum(axis=1, keepdims=True)
    if (predicted < 0).any() or not ((sums > 0) & np.isfinite(sums)).all():
        return math.nan
    # Probabilities of 32 bits do not add up to one as exactly as scikit-learn asks.
    labels = np.arange(n_classes)
    return float(metrics.log_loss(truth, predicted / sums, labels=labels, sample_weight=weights))
