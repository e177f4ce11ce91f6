"""The linear path beside the recurrent layers, and the ridge regression that fits it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tuner.data import Shape
from tuner.training.device import TrainingError
from tuner.training.layers import columns_of_targets

__all__ = ["PENALTIES", "LinearPath", "Moments", "Ridge", "Rows", "SequencePath", "make_path"]

PENALTIES = tuple(10.0 ** (k / 2) for k in range(6, -13, -1))
"""Penalties tried, the strongest first, in units of the inputs' mean variance times rows."""

MOST_INPUTS = 1024
"""Inputs of a forecast from all columns, at most."""

_FEWEST_FREE = 0.1  # share of the rows' degrees of freedom that a penalty must leave

Rows = tuple[Tensor, Tensor, Tensor]
"""Inputs (rows, inputs), outputs (rows, outputs) and weights (rows,), all float64."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """A ridge regression with an unpenalized intercept."""

    weight: Tensor  # (outputs, inputs)
    bias: Tensor  # (outputs,)
    penalty: float  # of the sum of squared weights, beside the sum of squared errors


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

    def ridge(self, penalties: Sequence[float] = PENALTIES) -> Ridge:
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
            return Ridge(torch.zeros_like(xy.T), self.mean_y, 0.0)
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
        return Ridge(weight, self.mean_y - weight @ self.mean_x, best)

    def error(self, ridge: Ridge) -> float:
        """Return the weighted sum of squared errors of a regression on these rows."""
        away = self.mean_y - ridge.weight @ self.mean_x - ridge.bias
        explained = (ridge.weight @ self.xx - 2 * self.xy.T) * ridge.weight
        return float(self.yy + explained.sum() + self.total * away.square().sum())


def _sums(parts: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
    """Return the sum of each place of the tuples."""
    sums: list[Tensor] = []
    for part in parts:
        sums = [a + b for a, b in zip(sums, part, strict=True)] if sums else list(part)
    return sums


class LinearPath(nn.Module):
    """One linear layer from the window to the horizon.

    The autoregressive part of LSTNet (Lai et al. 2018, "Modeling Long- and Short-Term Temporal
    Patterns with Deep Neural Networks", section 3.6), for every step of the horizon. Several
    targets share the weights, each with its own window. A single target is forecast from all
    columns, unless these are more than `MOST_INPUTS` numbers. Known future values are inputs too,
    within that limit, with separate weights for each target.

    It is 0 until `tuner.training.linear_fits.fit_path` fits it in closed form, and is not trained:
    the layers learn the residuals. Trained on a few hundred windows it would fit noise: sunspots,
    window 22, RMSE of three seeds 15.9 in place of 14.9.
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
        columns = x.transpose(1, 2)  # (batch, features, window)
        read = columns.flatten(1).unsqueeze(1) if self.reads_all else columns[:, self.columns]
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

    All sequences have one length. It is 0 until `tuner.training.linear_fits` fits it, and is not
    trained.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.window < 1 or shape.vocabulary or shape.task not in ("regress", "classify"):
            raise TrainingError("linear_path: needs sequences of numbers, all of one length")
        self.classes = shape.classes
        self.linear = _fixed_linear(shape.window * shape.features, shape.classes or shape.targets)

    def forward(self, x: Tensor, coming: None = None) -> Tensor:
        """Map (batch, steps, features) to (batch, 1, targets), or (batch, classes)."""
        with torch.autocast(x.device.type, enabled=False):
            said: Tensor = self.linear(x.flatten(1).to(self.linear.weight.dtype))
        return said if self.classes else said.unsqueeze(1)


def _fixed_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter.requires_grad_(False))
    return layer


def make_path(shape: Shape) -> LinearPath | SequencePath:
    """Return the linear path for the data; raises TrainingError if there is none."""
    return LinearPath(shape) if shape.task == "forecast" else SequencePath(shape)
