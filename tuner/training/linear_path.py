"""The linear path beside the recurrent layers, and the regressions that fit it in closed form."""

from __future__ import annotations

import functools
import hashlib
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.data import SeriesRef, Shape
from tuner.data.linear_models import deal_folds
from tuner.training.device import TrainingError
from tuner.training.layers import columns_of_targets, pick, split_future
from tuner.training.losses import balanced_weights
from tuner.training.recurrent import Decoder
from tuner.training.samples import Samples, some_samples, split

if TYPE_CHECKING:
    from tuner.training.model import Model

PENALTIES = tuple(10.0 ** (k / 2) for k in range(6, -13, -1))
"""Ridge penalties tried, the strongest first, in units of the inputs' mean variance times rows."""
LOGISTIC_PENALTIES = tuple(10.0 ** (k / 2) for k in range(0, -11, -1))
"""The same of logistic regressions."""
MOST_INPUTS = 1024
"""Inputs of a forecast from all columns, at most."""

_FEWEST_FREE = 0.1  # share of the rows' degrees of freedom that a penalty must leave
_BATCH = 1024  # samples read at a time
_PRODUCTS = 4e10  # multiplications for the moments; a subset of more samples is used
# Of windows:
_LONGEST = 2048  # inputs of a regression; older rows of longer windows get no weight
_RESIDUALS = 2**22  # errors of which quantiles are taken
_OTHERS = (0.0, 0.1, 0.3, 1.0)  # spreads of the other columns, relative to the target's own
_MARGIN = 0.04  # share of the squared error by which other columns must reduce it
_NARROWEST = 1e-3  # distance of first quantiles, in scaled units
# Of sequences:
_SEQUENCE_PENALTIES = (*PENALTIES, *(10.0 ** (k / 2) for k in range(-13, -16, -1)))
"""Weaker penalties also fit the rounding of inputs in float32."""
_FOLDS = 5
_PATIENCE = 2  # penalties in a row without a better score before the search for one ends
_NUMBERS = 4e6  # coordinates of all rows times classes in a logistic regression
_ITERATIONS = 300  # of L-BFGS
_KEPT = 8  # fits remembered

_fitted: dict[bytes, tuple[Tensor, Tensor]] = {}
"""Weights and biases by a digest of the data: all trials of a search begin with the same fit."""

Rows = tuple[Tensor, Tensor, Tensor]
"""Inputs (rows, inputs), outputs (rows, outputs) and weights (rows,), all float64."""


class LinearPath(nn.Module):
    """One linear layer from the window to the horizon.

    The autoregressive part of LSTNet (Lai et al. 2018, "Modeling Long- and Short-Term Temporal
    Patterns with Deep Neural Networks", section 3.6), for every step of the horizon. Several
    targets share the weights, each with its own window. A single target is forecast from all
    columns, unless these are more than `MOST_INPUTS` numbers. Known future values are inputs too,
    within that limit, with separate weights for each target.

    It is 0 until `fit_path` fits it in closed form, and is not trained: the layers learn the
    residuals. Trained on a few hundred windows it would fit noise: sunspots, window 22, RMSE of
    three seeds 15.9 in place of 14.9.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.columns = columns_of_targets(shape, "linear_path")
        self.targets = shape.targets
        n_coming = shape.targets * shape.ahead * len(shape.known_columns)
        n_all = shape.window * shape.inputs + n_coming
        self.reads_all = shape.targets == 1 and n_all <= MOST_INPUTS
        self.n_coming = n_coming if self.reads_all or shape.window + n_coming <= MOST_INPUTS else 0
        """Inputs of known future values, behind those of the window."""
        own = torch.zeros(shape.inputs, dtype=torch.bool)
        own[[self.columns[0], *(column for column, _ in shape.lag_columns)]] = True
        of_window = own if self.reads_all else torch.ones(1, dtype=torch.bool)
        of_coming = torch.zeros(self.n_coming, dtype=torch.bool)
        self.own_inputs = torch.cat((of_window.repeat_interleave(shape.window), of_coming))
        """Which inputs are values of the target or its lags, (inputs,)."""
        self.linear = _fixed_linear(len(self.own_inputs), shape.horizon)

    def windows(self, x: Tensor, coming: Tensor | None) -> Tensor:
        """Return the inputs of each target, (batch, targets, inputs)."""
        if self.reads_all:
            read = x.transpose(1, 2).flatten(1).unsqueeze(1)
        else:
            read = pick(x, self.columns).transpose(1, 2)
        if coming is None or not self.n_coming:
            return read
        known = coming.transpose(1, 2).flatten(1)  # (batch, known * horizon)
        # Separate inputs for each target, zeros in those of the others.
        each = torch.eye(self.targets, device=x.device, dtype=known.dtype)
        placed = (each.unsqueeze(2) * known.unsqueeze(1).unsqueeze(1)).flatten(2)
        return torch.cat((read, placed), dim=2)

    def forward(self, x: Tensor, coming: Tensor | None = None) -> Tensor:
        """Map (batch, window, features) to (batch, horizon, targets).

        Args:
            x: the window.
            coming: known future values, (batch, horizon, known columns).
        """
        # In full precision: half precision is too coarse for the level of a series.
        with torch.autocast(x.device.type, enabled=False):
            read = self.windows(x, coming).to(self.linear.weight.dtype)
            ahead: Tensor = self.linear(read)
        return ahead.transpose(1, 2)


class SequencePath(nn.Module):
    """One linear layer from all numbers of a sequence to values or logits.

    All sequences have one length. It is 0 until `fit_sequence_path` fits it, and is not trained.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.window < 1 or shape.vocabulary or shape.task not in ("regress", "classify"):
            rule = "needs sequences of numbers, all of one length"
            raise TrainingError(rule, key="linear_path")
        self.classes = shape.classes
        self.linear = _fixed_linear(shape.window * shape.features, shape.classes or shape.targets)

    def forward(self, x: Tensor, coming: None = None) -> Tensor:
        """Map (batch, steps, features) to (batch, 1, targets), or (batch, classes)."""
        with torch.autocast(x.device.type, enabled=False):
            outputs: Tensor = self.linear(x.flatten(1).to(self.linear.weight.dtype))
        return outputs if self.classes else outputs.unsqueeze(1)


def _fixed_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter.requires_grad_(False))
    return layer


def make_path(shape: Shape) -> LinearPath | SequencePath:
    """Return the linear path for the data; raises TrainingError if none fits."""
    return LinearPath(shape) if shape.task == "forecast" else SequencePath(shape)


def prior(window: int, season: int, horizon: int) -> np.ndarray:
    """Return the expected size of the weight of each row of a window, (window,), up to a factor.

    It is one over the distance of the row from the forecast, the harmonic decay of Litterman
    (1986), "Forecasting with Bayesian Vector Autoregressions". The same phase m seasons before is
    as near as m rows. The nearest step of the horizon counts.

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

    It is fitted to scaled and normalized values. A window has the weight of its squared spread,
    as in a loss that is taken after the inverse, times the mean weight of its targets; all targets
    count alike. Rows are penalized by their distance (`prior`), so a long window does no harm where
    there are few of them; known future values count as the last row does. The share of the other
    columns is the best one for the last quarter of each series' training windows (`_regression`).
    A model of quantiles begins with the quantiles of the regression's errors.

    Args:
        model: has a linear path.
        samples: of `data`.
        index: the training windows, (n,).
        data: the training split.
    """
    path, shape = model.linear_path, model.shape
    assert isinstance(path, LinearPath)
    n_inputs = min(len(path.own_inputs), _LONGEST)

    def moments(index: Tensor) -> Moments:
        return Moments.of(lambda: _rows(model, samples, index, n_inputs))

    near = prior(shape.window, data.season, shape.horizon)
    columns = (len(path.own_inputs) - path.n_coming) // shape.window
    near = np.append(np.tile(near, columns), np.ones(path.n_coming))[-n_inputs:]
    scale = torch.from_numpy(near).to(index.device)
    own = path.own_inputs[-n_inputs:].to(index.device)
    few = some_samples(index, int(_PRODUCTS / (shape.targets * n_inputs**2)))
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
        rows = _rows(model, samples, few, n_inputs)
        errors = torch.cat([y - x @ weight.T - found.bias for x, y, _ in rows]).cpu().numpy()
        ahead = errors.reshape(-1, shape.targets, shape.horizon).transpose(0, 2, 1)
        model.last_layer.bias.copy_(torch.from_numpy(_quantile_bias(model.head, ahead, shape)))


def _rows(model: Model, samples: Samples, index: Tensor, n_inputs: int) -> Iterator[Rows]:
    """Yield the last inputs of the path, scaled and normalized, with targets and weights."""
    path, shape = model.linear_path, model.shape
    assert isinstance(path, LinearPath)
    for batch in split(index, _BATCH):
        x, _ = samples.inputs(batch)
        x, coming = split_future(x.double(), shape)
        y = samples.targets(batch).double()
        weights = torch.ones_like(y[:, :1])  # (batch, 1, targets)
        if model.normalization is not None:
            x, level = model.normalization(x)
            y = level.normalize(y)
            if level.spread is not None:
                weights = level.spread.square()
        if (of_targets := samples.weights(batch)) is not None:
            weights = weights * of_targets.double().mean(dim=1)[:, None, None]
        windows = path.windows(x, coming)[:, :, -n_inputs:]  # (batch, targets, inputs)
        yield windows.flatten(0, 1), y.transpose(1, 2).flatten(0, 1), weights.flatten()


def _in_time(index: Tensor, data: SeriesRef) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last quarter of each series' windows, the earlier ones, and those between.

    Targets of the windows between overlap those of the quarter.
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
) -> tuple[Regression, Tensor]:
    """Fit a regression with the share of other columns that is best for later windows.

    The effect of other columns changes more often than that of a series' own past. Generalized
    cross-validation, whose rows are exchangeable, does not notice. So each share is fitted on early
    windows and scored on late ones; then all are fitted. A share of 1 is the target's own spread.

    `parts` are the moments of late, early and remaining windows, `own` the target's own inputs,
    (inputs,), and `scale` their factors before all are penalized alike, (inputs,). The result has
    the factors of all inputs.
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
    """Return the bias with which a head of zero weights forecasts the quantiles of the errors.

    The errors are (windows, horizon, targets).
    """
    at_once = head.steps if isinstance(head, Decoder) else shape.horizon  # steps of an output
    steps = np.arange(shape.horizon) % at_once
    numbers = np.empty((at_once, shape.targets, len(shape.quantiles)))
    for step in range(at_once):
        here = errors[:, steps == step] if step in steps else errors
        found = np.quantile(here, shape.quantiles, axis=(0, 1)).T  # (targets, quantiles)
        ups = np.diff(found, axis=1).clip(min=_NARROWEST)
        numbers[step] = np.concatenate((found[:, :1], ups + np.log(-np.expm1(-ups))), axis=1)
    return numbers.reshape(-1)


@torch.no_grad()
def fit_sequence_path(model: Model, samples: Samples, index: Tensor, *, balanced: bool) -> None:
    """Give the linear path of whole sequences the weights of a linear model.

    Values: a ridge regression, its penalty by generalized cross-validation (`Moments.ridge`).
    Classes: a logistic regression (`choose_logistic`). Inputs are all numbers of a sequence,
    standardized over the sequences; sequences count by their weights.

    Args:
        model: has a linear path, and one output for each sequence.
        samples: of the training split.
        index: the training sequences, (n,).
        balanced: whether rare classes weigh more.
    """
    path, classes = model.linear_path, model.shape.classes
    assert isinstance(path, SequencePath)
    n_inputs = path.linear.in_features
    most = _PRODUCTS / n_inputs**2
    if classes:  # rows have as many coordinates as there are inputs, or rows
        numbers = _NUMBERS / classes
        most = max(numbers / n_inputs, min(n_inputs, numbers**0.5))
    index = some_samples(index, int(most))
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


def _remembered(
    arrays: Sequence[Tensor], options: tuple[int, bool], fit: Callable[[], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return the weight (outputs, inputs) and bias (outputs,) of an earlier fit, or fit."""
    digest = hashlib.sha256(repr((options, *(a.shape for a in arrays))).encode())
    for array in arrays:
        digest.update(array.contiguous().numpy().tobytes())
    key = digest.digest()
    if key not in _fitted:
        _fitted[key] = fit()
        while len(_fitted) > _KEPT:
            del _fitted[next(iter(_fitted))]
    return _fitted[key]


def _fit(
    x: Tensor, y: Tensor, counts: Tensor | None, *, classes: int, balanced: bool
) -> tuple[Tensor, Tensor]:
    """Fit inputs (rows, inputs), float64, to values (rows, targets) or classes (rows,).

    `counts` are the weights of the rows, (rows,); None for equal ones.
    """
    mean, spread = x.mean(dim=0), x.std(dim=0, correction=0)
    varies = x.amax(dim=0) > x.amin(dim=0)
    spread = torch.where(varies & (spread > 0), spread, 1.0)
    x = torch.where(varies, (x - mean) / spread, 0.0)
    directions = None
    if len(x) <= x.shape[1]:  # the same regression of fewer coordinates, along singular vectors
        u, sizes, directions = torch.linalg.svd(x, full_matrices=False)
        x = u * sizes
    weights = torch.ones(len(y), dtype=torch.float64) if counts is None else counts.double()
    if classes:
        if balanced:
            own = None if counts is None else counts.numpy()
            weights = balanced_weights(y.numpy(), classes, own).double()[y] * weights
        found = choose_logistic(x, y, weights, classes)
    else:
        found = Moments.of(lambda: iter([(x, y.double(), weights)])).ridge(_SEQUENCE_PENALTIES)
    weight = found.weight if directions is None else found.weight @ directions
    weight = weight / spread
    return weight, found.bias - weight @ mean


@dataclass(frozen=True, eq=False)
class Regression:
    """A ridge or multinomial logistic regression with an unpenalized intercept."""

    weight: Tensor  # (outputs or classes, inputs)
    bias: Tensor  # (outputs or classes,)
    penalty: float
    """Factor of the squared weights beside the squared errors, or of half of them beside the cross
    entropies."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Weighted means and centred products of rows, the sufficient statistics of a regression."""

    n: int  # rows
    total: Tensor  # the sum of their weights, ()
    mean_x: Tensor  # (inputs,)
    mean_y: Tensor  # (outputs,)
    xx: Tensor  # (inputs, inputs)
    xy: Tensor  # (inputs, outputs)
    yy: Tensor  # the sum over all outputs, ()

    @classmethod
    def of(cls, batches: Callable[[], Iterator[Rows]]) -> Moments:
        """Add up rows, which `batches` yields; it is called twice."""
        n, total, mean_x, mean_y = _sums(
            (w.new_tensor(len(w)), w.sum(), w @ x, w @ y) for x, y, w in batches()
        )
        mean_x, mean_y = mean_x / total, mean_y / total

        def products() -> Iterator[tuple[Tensor, ...]]:
            for x, y, w in batches():
                x, y = x - mean_x, y - mean_y
                weighted = w[:, None] * x
                yield weighted.T @ x, weighted.T @ y, (w[:, None] * y.square()).sum()

        return cls(int(n), total, mean_x, mean_y, *_sums(products()))

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the rows of both."""
        total = self.total + other.total
        share = other.total / total
        x, y = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        weight = self.total * share
        return Moments(
            self.n + other.n,
            total,
            self.mean_x + share * x,
            self.mean_y + share * y,
            self.xx + other.xx + weight * x[:, None] * x,
            self.xy + other.xy + weight * x[:, None] * y,
            self.yy + other.yy + weight * y.square().sum(),
        )

    def scaled(self, scale: Tensor) -> Moments:
        """Return the moments of rows whose inputs are multiplied by `scale`, (inputs,)."""
        return replace(
            self,
            mean_x=scale * self.mean_x,
            xx=scale[:, None] * self.xx * scale,
            xy=scale[:, None] * self.xy,
        )

    def ridge(self, penalties: Sequence[float] = PENALTIES) -> Regression:
        """Fit in closed form, with the penalty of the best generalized cross-validation.

        Golub, Heath & Wahba (1979), "Generalized Cross-Validation as a Method for Choosing a Good
        Ridge Parameter": with n rows, their weighted squared errors RSS(a) over all outputs and
        the degrees of freedom df(a) = 1 + sum_i l_i / (l_i + a), l_i the eigenvalues of the
        inputs' moments, the least of RSS(a) / (n - df(a))^2. All outputs share one penalty.

        Args:
            penalties: candidates in the units of `PENALTIES`, the strongest first.
        """
        xx, xy, yy = self.xx, self.xy, self.yy
        unit = float(xx.diagonal().mean())
        if unit == 0:  # all inputs are constant
            return Regression(torch.zeros_like(xy.T), self.mean_y, 0.0)
        values, vectors = torch.linalg.eigh(xx.cpu())
        values, vectors = values.clamp(min=0).to(xx.device), vectors.to(xx.device)
        along = vectors.T @ xy  # (inputs, outputs)
        explained = along.square().sum(dim=1)
        best, least = penalties[0] * unit, math.inf
        for penalty in (unit * p for p in penalties):
            free = self.n - 1 - float((values / (values + penalty)).sum())
            if free < _FEWEST_FREE * self.n:
                continue
            gain = explained * (values + 2 * penalty) / (values + penalty).square()
            # Rounding errors of a perfect fit must not decide between penalties.
            rss = max(float(yy - gain.sum()), 1e-14 * float(yy))
            if rss / free**2 < least:
                best, least = penalty, rss / free**2
        weight = (vectors @ (along / (values + best)[:, None])).T
        return Regression(weight, self.mean_y - weight @ self.mean_x, best)

    def error(self, ridge: Regression) -> float:
        """Return the weighted sum of squared errors of a regression on these rows."""
        away = self.mean_y - ridge.weight @ self.mean_x - ridge.bias
        explained = (ridge.weight @ self.xx - 2 * self.xy.T) * ridge.weight
        return float(self.yy + explained.sum() + self.total * away.square().sum())


def _sums(parts: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
    sums: list[Tensor] = []
    for part in parts:
        sums = [a + b for a, b in zip(sums, part, strict=True)] if sums else list(part)
    return sums


def choose_logistic(x: Tensor, y: Tensor, weights: Tensor, classes: int) -> Regression:
    """Fit with the penalty that has the least cross entropy in cross-validation.

    The rows of every class are dealt to five folds in their order, so nothing is random. A held-out
    row is scored if the other folds have its class.

    Args:
        x: (rows, inputs), float64.
        y: (rows,), the classes.
        weights: (rows,), of the cross entropies.
        classes: their number.
    """
    unit = float(x.square().sum() / x.shape[1])
    if unit == 0:  # all inputs are constant
        return fit_logistic(x, y, weights, classes, 1.0)
    folds = list(_folds(y, classes))
    best, least, worse = unit * LOGISTIC_PENALTIES[0], math.inf, 0
    begins: list[Regression | None] = [None] * len(folds)
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
    """Yield the rows to fit on and those to score, (rows,) bool, of each fold that has both."""
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
    begin: Regression | None = None,
) -> Regression:
    """Minimize the weighted cross entropies and half the penalty times the squared weights.

    By L-BFGS in float64 (Liu & Nocedal 1989, "On the Limited Memory BFGS Method for Large Scale
    Optimization"), from the weights of `begin` or from 0.
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
    return Regression(found[:, :-1], found[:, -1], penalty)
