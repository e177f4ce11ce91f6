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
from tuner.metrics import METRICS, Scored
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
    targets: slice = slice(None),
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
        metric: of `tuner.metrics.METRICS`; one's own has all values at once.
        truth: (samples, horizon, targets) values, or (n,) classes; or (n, longest) tokens of
            texts, padded with 0, of which 1 is one that is never right.
        predicted: of values the same shape, with quantiles one axis more, last; of classes their
            probabilities, (n, classes).
        samples: that they are of; by default all that are evaluated.
        weights: (samples, horizon), or (n,) of classes, what each counts; by default that of
            the samples. No metric of one's own has any, nor exact_match.
        targets: the targets whose values are given; by default all.

    Returns:
        The score; nan where a prediction is not finite, or there is no finite score of it.
    """
    if not len(truth) or not np.isfinite(predicted).all():
        return math.nan
    kind = METRICS[metric]
    if kind.of == "texts" and kind.score is not None:
        return kind.score(Scored(truth, predicted))
    if weights is None and ref.has_weights:
        weights = ref.weights_of(ref.evaluate_samples() if samples is None else samples)
    if weights is not None:
        if not (weights > 0).any():
            return math.nan
        weights = (weights / weights.max()).ravel()
    with np.errstate(all="ignore"):
        if kind.definition is not None:
            if ref.shape.quantiles:
                predicted = predicted[..., ref.shape.quantiles.index(0.5)]
            value = own_score(kind.definition, truth, predicted)
        else:
            assert kind.score is not None
            value = kind.score(_scored(truth, predicted, ref, samples, weights, targets))
    return value if math.isfinite(value) else math.nan


def _scored(
    truth: np.ndarray,
    predicted: np.ndarray,
    ref: DataRef,
    samples: np.ndarray | None,
    weights: np.ndarray | None,  # (samples * horizon,)
    targets: slice,
) -> Scored:
    """Return what a metric is given: of values one row for each sample and row of its horizon."""
    if ref.shape.classes:
        return Scored(truth, np.asarray(predicted, np.float64), weights)

    def naive_errors() -> np.ndarray:
        errors = ref.naive_errors(ref.evaluate_samples() if samples is None else samples)
        return np.repeat(errors[:, targets], truth.shape[1], axis=0)

    n_targets, quantiles = truth.shape[-1], ref.shape.quantiles
    levels = predicted.reshape(-1, n_targets, len(quantiles)) if quantiles else None
    point = predicted[..., quantiles.index(0.5)] if quantiles else predicted
    rows = truth.reshape(-1, n_targets), point.reshape(-1, n_targets)
    return Scored(*rows, weights, levels, tuple(quantiles), naive_errors)
