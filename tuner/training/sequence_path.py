"""The weights of a linear path over whole sequences: a ridge or a logistic regression of them."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tuner.data.linear_sequences import deal_folds
from tuner.training.linear_path import SequencePath
from tuner.training.losses import balanced_weights
from tuner.training.model import Model
from tuner.training.ridge import PENALTIES, Moments, Ridge
from tuner.training.samples import Samples, some_samples, split

__all__ = ["LOGISTIC_PENALTIES", "Logistic", "choose_logistic", "fit_logistic", "fit_sequence_path"]

LOGISTIC_PENALTIES = tuple(10.0 ** (k / 2) for k in range(0, -11, -1))
"""What is tried, the strongest first: in units of the mean variance of the inputs times rows."""

_RIDGE_PENALTIES = (*PENALTIES, *(10.0 ** (k / 2) for k in range(-13, -16, -1)))
"""Weaker ones also fit the rounding of inputs in float32."""
_FOLDS = 5
_PATIENCE = 2  # weaker penalties that may be worse before no weaker one is tried
_BATCH = 1024
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
