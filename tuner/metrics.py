"""The metrics: what each measures, which way is better, its function, and where it is undefined.

A new metric is a function here and its entry in `METRICS`. Those of values are a few operations of
numpy, as every epoch is scored; RMSE, MAE, MAPE and pinball loss equal scikit-learn's, which takes
twenty times as long to check its arguments. It is imported when a score of it is computed: it is
slow to import.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tuner.user_code import is_reference

WAYS = ("minimize", "maximize")


@dataclass(frozen=True)
class Scored:
    """Predictions and the truth, as a metric gets them."""

    truth: np.ndarray
    """(n, targets) values in the data's units; (n,) classes; (n, longest) tokens, padded with 0."""
    predicted: np.ndarray
    """Of values the same shape; of classes their probabilities, (n, classes); tokens."""
    weights: np.ndarray | None = None
    """(n,), from 0 to 1; None where all count the same, and of texts."""
    levels: np.ndarray | None = None
    """Of quantiles: (n, targets, quantiles)."""
    quantiles: tuple[float, ...] = ()
    naive_errors: Callable[[], np.ndarray] | None = None
    """Of values: (n, targets), the mean absolute error of the naive forecast in training."""


@dataclass(frozen=True)
class Undefined:
    """Why a metric has no score of some values, or the same one whatever is predicted."""

    rule: str
    got: str
    remedy: str | None = None
    """Another metric; None where a larger part of the data helps."""
    column: str = "{target!r} in the {part} part"
    """The column, and what is wrong with it."""


@dataclass(frozen=True)
class Metric:
    """A score of predictions on rows or sequences that were not trained on."""

    of: Literal["values", "quantiles", "classes", "texts", "any"]
    score: Callable[[Scored], float] | None = None
    """Computes it; None for a metric from user code."""
    maximize: bool = False
    label: str | None = None
    """Its name in sentences; by default in capitals."""
    undefined: Callable[[np.ndarray, np.ndarray], Undefined | None] | None = None
    """Why it is undefined for true values of a target, (n,); None where it is defined.

    The second argument is what MASE divides by, (samples,), with nan where there is nothing; empty
    for classes.
    """
    best_class: bool = False
    """Whether it counts the most probable class alone, not the probabilities."""
    ratios: bool = True
    """Whether a share of a score, such as five percent less, means something."""
    definition: str | None = None
    """Of a metric from user code: `package.module:function`, or an expression."""

    @property
    def sign(self) -> float:
        """The factor that makes a smaller score the better one."""
        return -1.0 if self.maximize else 1.0


class _Metrics(dict[str, Metric]):
    """The metrics by name; one from user code has the text in the experiment as its name."""

    def __contains__(self, name: object) -> bool:
        way, _, definition = str(name).partition(" ")
        return super().__contains__(name) or (way in WAYS and bool(definition))

    def __missing__(self, name: str) -> Metric:
        way, _, definition = name.partition(" ")
        if way not in WAYS or not definition:
            raise KeyError(name)
        of: Literal["any", "values"] = "any" if is_reference(definition) else "values"
        return Metric(of, None, way == "maximize", definition=definition)


def _of_sklearn(name: str, given: Scored, **options: Any) -> float:
    from sklearn import metrics

    function = getattr(metrics, name)
    return float(function(given.truth, given.predicted, sample_weight=given.weights, **options))


def _mean(errors: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return the weighted mean over the rows of (n, targets), (targets,)."""
    return np.asarray(errors.mean(axis=0) if weights is None else np.average(errors, 0, weights))


def _rmse(given: Scored) -> float:
    squares = np.square(given.truth - given.predicted)
    return float(np.sqrt(_mean(squares, given.weights)).mean())


def _mae(given: Scored) -> float:
    return float(_mean(np.abs(given.predicted - given.truth), given.weights).mean())


def _mape(given: Scored) -> float:
    size = np.maximum(np.abs(given.truth), np.finfo(np.float64).eps)
    errors = np.abs(given.predicted - given.truth) / size
    return float(_mean(errors, given.weights).mean())


def _r2(given: Scored) -> float:
    return math.nan if len(given.truth) < 2 else _of_sklearn("r2_score", given)


def _smape(given: Scored) -> float:
    # Halved first: the sum may overflow.
    size = np.abs(given.truth) / 2 + np.abs(given.predicted) / 2
    return _relative(given, np.where(size == 0, 1.0, size))


def _mase(given: Scored) -> float:
    assert given.naive_errors is not None
    return _relative(given, given.naive_errors())


def _relative(given: Scored, unit: np.ndarray) -> float:
    """Return the mean absolute error in a unit, (n, targets); rows without one are left out."""
    has_unit = ~np.isnan(unit).any(axis=1)
    true, point = (given.truth / unit)[has_unit], (given.predicted / unit)[has_unit]
    weights = None if given.weights is None else given.weights[has_unit]
    if weights is not None and not weights.any():
        return math.nan
    if not (len(true) and np.isfinite(true).all() and np.isfinite(point).all()):
        return math.nan
    return _mae(Scored(true, point, weights))


def _pinball(given: Scored) -> float:
    assert given.levels is not None
    levels = np.array(given.quantiles)
    above = given.truth[..., None] - given.levels  # (n, targets, quantiles)
    losses = np.maximum(levels * above, (levels - 1) * above)
    return float(_mean(losses, given.weights).mean())


def _accuracy(given: Scored) -> float:
    return _of_sklearn("accuracy_score", _most_probable(given))


def _f1(given: Scored) -> float:
    best = _most_probable(_with_weight(given))
    return _of_sklearn("f1_score", best, average="macro", zero_division=0.0)


def _most_probable(given: Scored) -> Scored:
    return replace(given, predicted=given.predicted.argmax(axis=1))


def _with_weight(given: Scored) -> Scored:
    """Return the rows with a weight: else a class whose rows all have weight 0 would count."""
    if given.weights is None:
        return given
    counted = given.weights > 0
    return Scored(given.truth[counted], given.predicted[counted], given.weights[counted])


def _auroc(given: Scored) -> float:
    from sklearn import metrics

    given = _with_weight(given)
    n_classes = given.predicted.shape[1]
    counts = np.bincount(given.truth, minlength=n_classes)
    mixed = [c for c in range(n_classes) if 0 < counts[c] < len(given.truth)]
    areas = [
        metrics.roc_auc_score(given.truth == c, given.predicted[:, c], sample_weight=given.weights)
        for c in mixed
        if c == 1 or n_classes > 2
    ]
    return float(np.mean(areas)) if areas else math.nan


def _cross_entropy(given: Scored) -> float:
    sums = given.predicted.sum(axis=1, keepdims=True)
    if (given.predicted < 0).any() or not ((sums > 0) & np.isfinite(sums)).all():
        return math.nan
    # Probabilities of 32 bits do not add up to one as exactly as scikit-learn asks.
    labels = np.arange(given.predicted.shape[1])
    return _of_sklearn("log_loss", replace(given, predicted=given.predicted / sums), labels=labels)


def _exact_match(given: Scored) -> float:
    both = (given.truth, given.predicted)
    longest = max(rows.shape[1] for rows in both)
    a, b = (np.pad(rows, ((0, 0), (0, longest - rows.shape[1]))) for rows in both)
    return float((a == b).all(axis=1).mean())


def _mape_undefined(truth: np.ndarray, _: np.ndarray) -> Undefined | None:
    if not (truth == 0).any():
        return None
    return Undefined("mape divides by the values", "0", "write smape, mae or rmse")


def _mase_undefined(_: np.ndarray, units: np.ndarray) -> Undefined | None:
    zero = bool((units == 0).any())
    if not (zero or np.isnan(units).all()):
        return None
    return Undefined(
        "mase divides by the error of the naive forecast in the training part",
        "0" if zero else "none",
        "write rmse or mae",
        "{target!r}, which is constant, repeats itself or is too short",
    )


def _r2_undefined(truth: np.ndarray, _: np.ndarray) -> Undefined | None:
    if len(truth) < 2:
        return Undefined("r2 needs at least 2 values", "1")
    if np.ptp(truth) == 0:
        return Undefined("r2 compares with the variance", "a constant", "write rmse or mae")
    return None


def _auroc_undefined(truth: np.ndarray, _: np.ndarray) -> Undefined | None:
    return Undefined("auroc needs at least 2 classes", "1") if len(np.unique(truth)) < 2 else None


METRICS = _Metrics(
    rmse=Metric("values", _rmse),
    mae=Metric("values", _mae),
    mape=Metric("values", _mape, undefined=_mape_undefined),
    smape=Metric("values", _smape, label="sMAPE"),
    mase=Metric("values", _mase, undefined=_mase_undefined),
    r2=Metric("values", _r2, maximize=True, label="R²", undefined=_r2_undefined, ratios=False),
    pinball=Metric("quantiles", _pinball, label="pinball loss"),
    accuracy=Metric("classes", _accuracy, maximize=True, label="accuracy", best_class=True),
    f1=Metric("classes", _f1, maximize=True, label="F1", best_class=True),
    auroc=Metric("classes", _auroc, maximize=True, undefined=_auroc_undefined),
    cross_entropy=Metric("classes", _cross_entropy, label="cross entropy"),
    exact_match=Metric("texts", _exact_match, maximize=True),
)
"""Tuner's metrics by name. The first of a kind is the default of the tasks that predict it."""

COSTS = {
    "weights": "numbers that were learned",
    "seconds": "of training",
    "latency": "milliseconds of predicting one sample, in torch",
}
"""What a model costs, of which less is better: a second objective beside a metric."""


def metrics_of(kind: str) -> list[str]:
    """Return the metrics of `values`, `quantiles`, `classes` or `texts`; the default first."""
    return [name for name, metric in METRICS.items() if metric.of == kind]


def short_name(metric: str) -> str:
    """Return a name without punctuation: tuner's own, the function's, or `own_metric`."""
    definition = METRICS[metric].definition
    if definition is None:
        return metric
    return definition.rpartition(":")[2] if is_reference(definition) else "own_metric"
