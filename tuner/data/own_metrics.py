"""Metrics of one's own: an installed function, or an expression of truth and forecast."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tuner.data.tables import refusal
from tuner.errors import InputError, one_line
from tuner.experiment import Experiment
from tuner.experiment.metrics import METRICS
from tuner.expressions import evaluate, parse
from tuner.own_code import is_reference, load_object

__all__ = ["check_own_metric", "own_score"]

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "log1p": np.log1p,
    "square": np.square, "sign": np.sign, "minimum": np.minimum, "maximum": np.maximum,
    "where": np.where, "mean": np.mean, "sum": np.sum, "median": np.median, "std": np.std,
    "min": np.min, "max": np.max, "quantile": np.quantile,
}  # fmt: skip


def own_score(definition: str, truth: np.ndarray, forecast: np.ndarray) -> float:
    """Return what a metric of one's own says of forecasts.

    Args:
        definition: `package.module:function`, or an expression.
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
        raise InputError(f"objective.metric: {error}") from None
    except Exception as error:  # whatever it does
        problem = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(
            f"objective.metric: {definition} has no score of these forecasts: {problem}; correct it"
        ) from None
    if np.ndim(found) or not isinstance(found, int | float | np.number):
        what = f"an array of shape {np.shape(found)}" if np.ndim(found) else type(found).__name__
        raise InputError(
            f"objective.metric: must come to one number, got {what} of {definition}; take the mean"
        )
    return float(found)


def check_own_metric(experiment: Experiment, path: Path) -> None:
    """Refuse a metric of one's own that does not work, by a few made forecasts.

    Raises:
        DataError: naming file, key, rule, value and remedy.
    """
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
            text = (
                f"must come to a finite number, got {found} of {definition} for values from 1 to 2"
            )
            raise InputError(f"{text}; correct it")
    except InputError as error:
        text = str(error).removeprefix("objective.metric: ")
        raise refusal(path, "objective.metric", text) from None
