"""Fits the weights of a linear path: of windows, and of whole sequences."""

from __future__ import annotations

import functools
import hashlib
import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.data import SeriesRef, Shape
from tuner.data.linear_models import deal_folds
from tuner.training.decoders import InSegments, Recursive
from tuner.training.layers import part
from tuner.training.linear_path import PENALTIES, LinearPath, Moments, Ridge, Rows, SequencePath
from tuner.training.losses import balanced_weights
from tuner.training.model import Model
from tuner.training.samples import Samples, some_samples, split

__all__ = [
    "LOGISTIC_PENALTIES",
    "Logistic",
    "choose_logistic",
    "fit_logistic",
    "fit_path",
    "fit_sequence_path",
    "prior",
]

_BATCH = 1024

_LONGEST = 2048  # inputs of a regression; of longer windows the older rows get no weight

_PRODUCTS = 4e10  # in the moments; of more windows some are taken

_RESIDUALS = 2**22

_OTHERS = (0.0, 0.1, 0.3, 1.0)  # spreads of the inputs that are not the target's own

_MARGIN = 0.04  # share of the squared error that they must take off

_NARROWEST = 1e-3  # between first quantiles, in scaled units


def prior(window: int, season: int, horizon: int) -> np.ndarray:
    """Return how far the weight of each row of a window is expected to be from 0, (window,).

    Up to a factor that the penalty is: one over the distance of the row from what is forecast, the
    harmonic decay of Litterman (1986), "Forecasting with Bayesian Vector Autoregressions". The
    same phase m seasons before is as near as m rows, for a season repeats itself as a level does;
    and a row is as near as it is to any step of the horizon.

    Args:
        window: rows.
        season: rows in a season; 1 without one.
        horizon: steps.
    """
    before = np.arange(window, 0, -1)[:, None] + np.arange(horizon)  # rows, of each step
    if season == 1:
        return np.asarray(1.0 / before.min(axis=1))
    seasons = np.stack([before // season, -(-before // season)])
    distances = np.abs(before - season * seasons) + seasons
    return np.asarray(1.0 / np.minimum(distances.min(axis=0), before).min(axis=1))


@torch.no_grad()
def fit_path(model: Model, samples: Samples, index: Tensor, data: SeriesRef) -> None:
    """Give the linear path of a forecast the weights of a ridge regression.

    It is fitted in the space in which the path works, scaled and normalized. A window weighs by
    the square of its spread there, as its error does in a loss that is taken after the inverse,
    and by the mean of its targets' weights; all targets count alike. Rows are penalized by how far
    away they are (`prior`): a long window does no harm where there are few of them; what is known
    of rows to come counts as the last row does. Columns beside the target's own count as much as
    is best for the last quarter of each series' training windows (`_regression`). The quantiles of
    a model that forecasts them begin as those of the regression's errors.

    Args:
        model: with a linear path.
        samples: the training split.
        index: the training windows.
        data: the split.
    """
    path, shape = model.linear_path, model.shape
    assert isinstance(path, LinearPath)
    n_inputs = min(len(path.own_inputs), _LONGEST)
    most = int(_PRODUCTS / (shape.targets * n_inputs**2))

    def rows(index: Tensor) -> Iterator[Rows]:
        for batch in split(index, _BATCH):
            x, _ = samples.inputs(batch)
            x, coming = part(x.double(), shape)
            y = samples.targets(batch).double()
            weights = torch.ones_like(y[:, :1])  # (batch, 1, targets)
            if model.normalization is not None:
                x, level = model.normalization(x)
                y = level.take_off(y)
                if level.spread is not None:
                    weights = level.spread.square()
            if (of_targets := samples.weights(batch)) is not None:
                weights = weights * of_targets.double().mean(dim=1)[:, None, None]
            windows = path.windows(x, coming)[:, :, -n_inputs:]  # (batch, targets, inputs)
            yield windows.flatten(0, 1), y.transpose(1, 2).flatten(0, 1), weights.flatten()

    def moments(index: Tensor) -> Moments:
        return Moments.of(lambda: rows(index))

    few = some_samples(index, most)
    near = prior(shape.window, data.season, shape.horizon)
    columns = (len(path.own_inputs) - path.n_coming) // shape.window
    near = np.append(np.tile(near, columns), np.ones(path.n_coming))[-n_inputs:]
    scale = torch.from_numpy(near).to(index.device)
    own = path.own_inputs[-n_inputs:].to(index.device)
    if own.all():
        found = moments(few).scaled(scale).ridge()
    else:
        parts = [moments(part) if len(part) else None for part in _in_time(few, data)]
        found, scale = _regression(parts, own, scale)
    weight = found.weight * scale
    path.linear.weight.zero_()
    path.linear.weight[:, -n_inputs:] = weight
    path.linear.bias.copy_(found.bias)
    if shape.quantiles:
        few = some_samples(index, _RESIDUALS // (shape.horizon * shape.targets))
        errors = [y - x @ weight.T - found.bias for x, y, _ in rows(few)]
        ahead = torch.cat(errors).cpu().numpy().reshape(-1, shape.targets, shape.horizon)
        bias = _quantile_bias(model.head, ahead.transpose(0, 2, 1), shape)
        model.last_layer.bias.copy_(torch.from_numpy(bias))


def _in_time(index: Tensor, data: SeriesRef) -> tuple[Tensor, Tensor, Tensor]:
    """Return, of each series, the last quarter of its windows, those before it, and between both.

    What is between are windows whose targets overlap the quarter's.
    """
    starts = index.cpu().numpy()
    _, first, of = np.unique(data.series_of(starts), return_index=True, return_inverse=True)
    ends = np.append(first[1:], len(starts))
    begin = starts[ends - np.maximum((ends - first) // 4, 1)][of]  # of the quarter, for each window
    late, early = starts >= begin, starts + data.shape.horizon <= begin

    def at(which: np.ndarray) -> Tensor:
        return index[torch.from_numpy(which).to(index.device)]

    return at(late), at(early), at(~late & ~early)


def _regression(
    parts: Sequence[Moments | None], own: Tensor, scale: Tensor
) -> tuple[Ridge, Tensor]:
    """Fit a regression whose other columns count as much as is best for later windows.

    What other columns say changes more often than how a series follows itself, which generalized
    cross-validation, whose rows are exchangeable, cannot see. So each share is fitted on early
    windows and judged on late ones; then all are fitted. A share of 1 is the target's own spread.

    Args:
        parts: moments of late windows, of early ones and of those between; None for no windows.
        own: which inputs are the target's own, (inputs,).
        scale: what these are multiplied by before they are penalized alike, (inputs,).

    Returns:
        The regression of scaled inputs, and what inputs are multiplied by.
    """
    late, early, _ = parts
    best = torch.where(own, scale, 0.0)
    if late is not None and early is not None:
        spread = early.xx.diagonal().sqrt()
        common = torch.where(spread > 0, spread[own].mean() / spread, 0.0)
        least = math.inf
        for share in _OTHERS:
            tried = torch.where(own, scale, share * common * scale)
            error = late.scaled(tried).error(early.scaled(tried).ridge())
            if error < least:
                best, least = tried, error
            if share == 0:
                least = error * (1 - _MARGIN)
    total = functools.reduce(operator.add, (part for part in parts if part is not None))
    return total.scaled(best).ridge(), best


def _quantile_bias(head: nn.Module, errors: np.ndarray, shape: Shape) -> np.ndarray:
    """Return the bias with which a head that puts out nothing else says the errors' quantiles.

    Args:
        head: of the model: it says all steps of the horizon, or so many at a time.
        errors: (windows, horizon, targets).
        shape: of the data.
    """
    at_once = shape.horizon
    if isinstance(head, Recursive):
        at_once = 1
    elif isinstance(head, InSegments):
        at_once = head.steps
    steps = np.arange(shape.horizon) % at_once
    numbers = np.empty((at_once, shape.targets, len(shape.quantiles)))
    for step in range(at_once):
        here = errors[:, steps == step] if step in steps else errors
        found = np.quantile(here, shape.quantiles, axis=(0, 1)).T  # (targets, quantiles)
        ups = np.diff(found, axis=1).clip(min=_NARROWEST)
        numbers[step] = np.concatenate((found[:, :1], ups + np.log(-np.expm1(-ups))), axis=1)
    return numbers.reshape(-1)


LOGISTIC_PENALTIES = tuple(10.0 ** (k / 2) for k in range(0, -11, -1))

"""What is tried, the strongest first: in units of the mean variance of the inputs times rows."""

_RIDGE_PENALTIES = (*PENALTIES, *(10.0 ** (k / 2) for k in range(-13, -16, -1)))

"""Weaker ones also fit the rounding of inputs in float32."""

_FOLDS = 5

_PATIENCE = 2  # weaker penalties that may be worse before no weaker one is tried

_PRODUCTS = 4e10  # in the moments; of more sequences evenly spaced ones are taken

_NUMBERS = 4e6  # coordinates of all rows times classes of a logistic regression, likewise

_ITERATIONS = 300

_KEPT = 8

Fitted = tuple[Tensor, Tensor]

"""Weight (outputs, inputs) and bias (outputs,), float64."""


@dataclass(frozen=True, eq=False)
class Logistic:
    """A multinomial logistic regression with an intercept that is not penalized."""

    weight: Tensor  # (classes, inputs)
    bias: Tensor  # (classes,)
    penalty: float  # of half the sum of squared weights, beside the sum of cross entropies


_fitted: OrderedDict[bytes, Fitted] = OrderedDict()

"""By what was fitted on: the trials of a search begin with the same one."""


@torch.no_grad()
def fit_sequence_path(model: Model, samples: Samples, index: Tensor, *, balanced: bool) -> None:
    """Give the path of a model of whole sequences the weights of a linear model of them.

    Values: a ridge regression, its penalty by generalized cross-validation (`Moments.ridge`).
    Classes: a logistic regression (`choose_logistic`). Both see each number of the sequence, in
    units of its own spread over the sequences, which count what they weigh.

    Args:
        model: with a linear path, of a task with one output for each sequence.
        samples: the training split.
        index: the training sequences.
        balanced: whether rare classes weigh more.
    """
    path, classes = model.linear_path, model.shape.classes
    assert isinstance(path, SequencePath)
    index = some_samples(index, _most_rows(path.linear.in_features, classes))
    parts = [(samples.inputs(b)[0], samples.targets(b)) for b in split(index, _BATCH)]
    x = torch.cat([x.flatten(1) for x, _ in parts]).cpu()
    y = torch.cat([y if classes else y.flatten(1) for _, y in parts]).cpu()
    own = samples.weights(index)
    counts = None if own is None else own.flatten().cpu()
    weight, bias = _remembered(
        (x, y) if counts is None else (x, y, counts),
        (classes, balanced),
        lambda: _fit(x.double(), y, counts, classes=classes, balanced=balanced),
    )
    path.linear.weight.copy_(weight)
    path.linear.bias.copy_(bias)


def _most_rows(n_inputs: int, classes: int) -> int:
    """Return how many sequences can be fitted on in time."""
    if not classes:
        return int(_PRODUCTS / n_inputs**2)
    numbers = _NUMBERS / classes  # rows have as many coordinates as there are inputs, or rows
    return int(max(numbers / n_inputs, min(n_inputs, numbers**0.5)))


def _remembered(
    arrays: tuple[Tensor, ...], options: tuple[int, bool], fit: Callable[[], Fitted]
) -> Fitted:
    """Return what was fitted on the same numbers before, or fit."""
    digest = hashlib.sha256(repr((options, *(a.shape for a in arrays))).encode())
    for array in arrays:
        digest.update(array.contiguous().numpy().tobytes())
    key = digest.digest()
    if key not in _fitted:
        _fitted[key] = fit()
        while len(_fitted) > _KEPT:
            _fitted.popitem(last=False)
    return _fitted[key]


def _fit(x: Tensor, y: Tensor, counts: Tensor | None, *, classes: int, balanced: bool) -> Fitted:
    """Fit inputs (rows, inputs), float64, to values (rows, targets) or classes (rows,).

    Rows count what `counts` (rows,) says, or all alike.
    """
    mean, spread = x.mean(dim=0), x.std(dim=0, correction=0)
    moves = x.amax(dim=0) > x.amin(dim=0)
    spread = torch.where(moves & (spread > 0), spread, 1.0)
    x = torch.where(moves, (x - mean) / spread, 0.0)
    along, directions = _along(x)
    found: Ridge | Logistic
    if classes:
        weights = torch.ones(len(y), dtype=torch.float64)
        own = None if counts is None else counts.numpy()
        if balanced:
            weights = balanced_weights(y.numpy(), classes, own).double()[y]
        if counts is not None:
            weights = weights * counts.double()
        found = choose_logistic(along, y, weights, classes)
    else:
        row = torch.ones(len(y), dtype=torch.float64) if counts is None else counts.double()
        rows = [(along, y.double(), row)]
        found = Moments.of(lambda: iter(rows)).ridge(_RIDGE_PENALTIES)
    weight = found.weight if directions is None else found.weight @ directions
    weight = weight / spread
    return weight, found.bias - weight @ mean


def _along(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return rows as coordinates, (rows, fewer), along orthogonal directions, (fewer, inputs).

    A penalized regression of the coordinates is that of the rows. Where there are as many rows
    as inputs there is nothing to gain: the rows themselves, and no directions.
    """
    if len(x) > x.shape[1]:
        return x, None
    u, sizes, directions = torch.linalg.svd(x, full_matrices=False)
    return u * sizes, directions


def choose_logistic(x: Tensor, y: Tensor, weights: Tensor, classes: int) -> Logistic:
    """Fit with the penalty whose cross entropy over folds of the rows is the least.

    The rows of every class are dealt to five folds in their order, so nothing is drawn. Of a
    fold are judged the rows whose class the other folds have.

    Args:
        x: (rows, inputs), float64.
        y: (rows,), the classes.
        weights: (rows,), of the rows' cross entropies.
        classes: how many there are.
    """
    unit = float(x.square().sum() / x.shape[1])
    if unit == 0:  # nothing moves
        return fit_logistic(x, y, weights, classes, 1.0)
    folds = list(_folds(y, classes))
    best, least, worse = unit * LOGISTIC_PENALTIES[0], math.inf, 0
    begins: list[Logistic | None] = [None] * len(folds)
    for penalty in (unit * p for p in LOGISTIC_PENALTIES if folds):
        cost = 0.0
        for k, (rest, held) in enumerate(folds):
            share = float(rest.sum()) / len(y)  # as many rows as the penalty is for
            of_rest = x[rest], y[rest], weights[rest]
            found = fit_logistic(*of_rest, classes, penalty * share, begins[k])
            begins[k] = found
            logits = x[held] @ found.weight.T + found.bias
            losses = functional.cross_entropy(logits, y[held], reduction="none")
            cost += float((weights[held] * losses).sum())
        best, least, worse = (penalty, cost, 0) if cost < least else (best, least, worse + 1)
        if worse == _PATIENCE:
            break
    return fit_logistic(x, y, weights, classes, best)


def _folds(y: Tensor, classes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield which rows are fitted on and which are judged, for each fold that has both."""
    fold = torch.from_numpy(deal_folds(y.numpy(), _FOLDS))
    for k in range(_FOLDS):
        rest = fold != k
        seen = torch.bincount(y[rest], minlength=classes) > 0
        held = ~rest & seen[y]
        if int(seen.sum()) > 1 and held.any():
            yield rest, held


@torch.enable_grad()
def fit_logistic(
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    classes: int,
    penalty: float,
    begin: Logistic | None = None,
) -> Logistic:
    """Minimize the weighted cross entropies and half the penalty times the squared weights.

    By L-BFGS in float64 (Liu & Nocedal 1989, "On the Limited Memory BFGS Method for Large Scale
    Optimization"), from another one or from 0.
    """
    total = float(weights.sum())
    both = torch.zeros(classes, x.shape[1] + 1, dtype=torch.float64)
    if begin is not None:
        both = torch.cat((begin.weight, begin.bias[:, None]), dim=1)
    both.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [both],
        max_iter=_ITERATIONS,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        optimizer.zero_grad()
        logits = x @ both[:, :-1].T + both[:, -1]
        losses = functional.cross_entropy(logits, y, reduction="none")
        mean = (weights * losses).sum() / total
        mean = mean + penalty / 2 / total * both[:, :-1].square().sum()
        torch.autograd.backward(mean)
        return mean.item()

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = both.detach()
    return Logistic(found[:, :-1], found[:, -1], penalty)
