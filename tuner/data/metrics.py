"""Scores of predictions, and prediction intervals by split conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.data.preprocessing import Transform
from tuner.data.reference import DataRef, SeriesRef
from tuner.errors import InputError, one_line, refusal
from tuner.metrics import METRICS, Scored
from tuner.user_code import evaluate, is_reference, load_object, parse

if TYPE_CHECKING:
    from tuner.experiment import Experiment

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "log1p": np.log1p,
    "square": np.square, "sign": np.sign, "minimum": np.minimum, "maximum": np.maximum,
    "where": np.where, "mean": np.mean, "sum": np.sum, "median": np.median, "std": np.std,
    "min": np.min, "max": np.max, "quantile": np.quantile,
}  # fmt: skip


def own_score(definition: str, truth: np.ndarray, forecast: np.ndarray) -> float:
    """Return the score of forecasts by a user's metric.

    Args:
        truth: (samples, horizon, targets) values, in the data's units, or (n,) classes.
        forecast: of the same shape, with quantiles the median; of classes their probabilities,
            (n, classes).

    Raises:
        InputError: it fails, or its value is no number.
    """
    given = []
    for array in (truth, forecast):
        view = array.view()
        view.flags.writeable = False  # the next epoch is measured by the same truth
        given.append(view)
    try:
        with np.errstate(all="ignore"):  # a score that is not finite is none
            if is_reference(definition):
                found = load_object(definition)(*given)
            else:
                names = dict(zip(("truth", "forecast"), given, strict=True))
                found = evaluate(parse(definition), names, _FUNCTIONS, np.float64)
    except InputError as error:
        raise error.with_(key="objective.metric") from None
    except Exception as error:  # whatever it does
        rule = f"{definition} has no score of these forecasts: {type(error).__name__}: "
        rule += one_line(error)
        raise InputError(rule, key="objective.metric", remedy="correct it") from None
    if np.ndim(found) or not isinstance(found, int | float | np.number):
        what = f"an array of shape {np.shape(found)}" if np.ndim(found) else type(found).__name__
        rule = "must come to one number"
        got = f"{what} of {definition}"
        raise InputError(rule, key="objective.metric", got=got, remedy="take the mean")
    return float(found)


def check_own_metric(experiment: Experiment, path: Path) -> None:
    """Refuse a user's metric that fails on a few made forecasts."""
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

    Means are weighted where targets have weights, as by scikit-learn's `sample_weight`.

    rmse, mae, r2 and mape (a fraction: 0.05 is five percent) are those of scikit-learn. smape is
    the mean of |truth - predicted| over the mean of |truth| and |predicted|, from 0 to 2. mase is
    the mean absolute error over that of the naive prediction on the training part, of a forecast in
    the same series; series without such an error are left out. pinball is the mean over the
    quantiles; the other metrics score quantile 0.5. f1 is the mean over the classes that are true
    or predicted somewhere; auroc that over the classes that are true somewhere, each against the
    rest, and of two classes that of the second. exact_match is the share of texts that are right in
    every token.

    Args:
        metric: of `tuner.metrics.METRICS`; a user's metric gets all values at once.
        truth: (samples, horizon, targets) values, or (n,) classes; or (n, longest) tokens of
            texts, padded with 0, of which 1 is one that is never right.
        predicted: of values the same shape, with quantiles one axis more, last; of classes their
            probabilities, (n, classes).
        samples: their samples; by default all that are evaluated.
        weights: (samples, horizon), or (n,) of classes; by default those of the samples. A user's
            metric has none, nor has exact_match.
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
    """Return the arguments of a metric: of values a row for each sample and step of its horizon."""
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


@dataclass(frozen=True, eq=False)
class Intervals:
    """Prediction intervals by split conformal prediction.

    Of n absolute residuals |y - f(x)| on rows that the model was not trained on, the one of rank
    ceil((n + 1) * level) is the radius (Vovk, Gammerman and Shafer 2005, *Algorithmic Learning in a
    Random World*; Lei et al. 2018, doi 10.1080/01621459.2017.1307116, algorithm 2). If new rows are
    exchangeable with these, f(x) +- radius covers the truth with a probability of at least `level`,
    and of at most level + 1 / (n + 1) where no two residuals are equal. The validation rows choose
    trial, finalists and epoch, so their residuals are a little too small, and the coverage may be
    somewhat below `level`.

    Each step of the horizon and each target has a radius of its own, in the level space of the
    transform, where the residuals are more alike: of log a factor.
    """

    levels: tuple[float, ...]  # rising
    radii: np.ndarray  # (levels, horizon, targets), in level space; rising along the first axis
    scales: np.ndarray | None = None  # (series, targets), the units of the radii

    def scale_of(self, ref: SeriesRef, samples: np.ndarray) -> np.ndarray | float:
        """Return the factors of the radii of samples, (samples, targets), or 1.

        They are the scales that the series had at calibration.
        """
        return 1.0 if self.scales is None else self.scales[ref.series_of(samples)]

    def around(
        self, points: np.ndarray, transform: Transform, scale: np.ndarray | float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the intervals.

        Args:
            points: forecasts in the data's units, (samples, horizon, targets).
            scale: the factor of the radii: of each sample's series, (samples, targets).

        Returns:
            Lower and upper ends in the data's units, (samples, horizon, targets, levels).
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            centre = transform.to_level(points)[..., None]
            radii = np.moveaxis(self.radii, 0, -1)[None] * _along(scale)[..., None]
            return transform.from_level(centre - radii), transform.from_level(centre + radii)

    def coverage(
        self,
        points: np.ndarray,
        truth: np.ndarray,
        transform: Transform,
        scale: np.ndarray | float = 1.0,
    ) -> list[dict[str, float | None]]:
        """Return for each level the share of the truth that lies within, and the mean width.

        Both are over all samples, steps and targets; a width is None where it is not finite.
        """
        lower, upper = self.around(points, transform, scale)
        with np.errstate(over="ignore", invalid="ignore"):
            inside = (lower <= truth[..., None]) & (truth[..., None] <= upper)
            widths = (upper - lower).mean(axis=(0, 1, 2))
        return [
            {
                "level": level,
                "coverage": float(inside[..., i].mean()),
                "width": float(widths[i]) if math.isfinite(widths[i]) else None,
            }
            for i, level in enumerate(self.levels)
        ]


def calibrated(levels: Sequence[float], ref: SeriesRef, points: np.ndarray) -> Intervals:
    """Return the intervals that the residuals of the evaluated windows give.

    Args:
        levels: rising; for each there are `fewest_residuals` windows at least.
        points: the forecasts, in the data's units, (samples, horizon, targets).
    """
    samples = ref.evaluate_samples()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        level = ref.transform.to_level
        off = level(ref.truth_of(samples)) - level(points)
    scales = np.array(ref.load("scales")) if ref.own_scales else None
    scale = 1.0 if scales is None else scales[ref.series_of(samples)]
    return Intervals(tuple(levels), radii_of(np.abs(off) / _along(scale), levels), scales)


def radii_of(residuals: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return of each level the residual of rank ceil((n + 1) * level), (levels, ...).

    Args:
        residuals: absolute ones, (n, ...); each place of the other axes is ranked by itself.
        levels: in (0, 1).

    Raises:
        ValueError: n is below `fewest_residuals`.
    """
    ranked = np.sort(residuals, axis=0)
    # Exact, as levels are written: 0.55 * 20 is 11.
    ranks = [math.ceil(Fraction(str(level)) * (len(ranked) + 1)) for level in levels]
    if ranks and max(ranks) > len(ranked):
        raise ValueError(f"{len(ranked)} residuals are too few for {max(levels)}")
    return np.stack([ranked[rank - 1] for rank in ranks])


def fewest_residuals(level: float) -> int:
    """Return the least n with ceil((n + 1) * level) <= n, which is level / (1 - level) or more."""
    exact = Fraction(str(level))
    return math.ceil(exact / (1 - exact))


def _along(scale: np.ndarray | float) -> np.ndarray:
    scale = np.asarray(scale)
    return scale[:, None, :] if scale.ndim == 2 else scale.reshape(1, 1, 1)
