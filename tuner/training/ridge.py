"""Ridge regression in closed form, from the moments of its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["PENALTIES", "Moments", "Ridge", "Rows"]

PENALTIES = tuple(10.0 ** (k / 2) for k in range(6, -13, -1))
"""What is tried, the strongest first: in units of the mean variance of the inputs times rows."""

_FEWEST_FREE = 0.1  # of the rows' degrees of freedom must be left for a penalty to be judged

Rows = tuple[Tensor, Tensor, Tensor]
"""Inputs (rows, inputs), outputs (rows, outputs) and weights (rows,), all float64."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """A ridge regression with an intercept that is not penalized."""

    weight: Tensor  # (outputs, inputs)
    bias: Tensor  # (outputs,)
    penalty: float  # of the sum of squared weights, beside the sum of squared errors


@dataclass(frozen=True, eq=False)
class Moments:
    """Weighted means and centred products of rows: all that a ridge regression needs of them."""

    n: int  # rows
    total: Tensor  # the sum of their weights, ()
    mean_x: Tensor  # (inputs,)
    mean_y: Tensor  # (outputs,)
    xx: Tensor  # (inputs, inputs)
    xy: Tensor  # (inputs, outputs)
    yy: Tensor  # the sum over all outputs, ()

    @classmethod
    def of(cls, batches: Callable[[], Iterator[Rows]]) -> Moments:
        """Add up rows.

        Args:
            batches: yields all rows, the same ones each time that it is called.
        """
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
        """Return those of both's rows."""
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
        """Return those of the rows with each input multiplied by its number, (inputs,)."""
        return replace(
            self,
            mean_x=scale * self.mean_x,
            xx=scale[:, None] * self.xx * scale,
            xy=scale[:, None] * self.xy,
        )

    def ridge(self, penalties: Sequence[float] = PENALTIES) -> Ridge:
        """Fit in closed form, with the penalty whose generalized cross-validation is best.

        Golub, Heath & Wahba (1979), "Generalized Cross-Validation as a Method for Choosing a Good
        Ridge Parameter": with n rows, their weighted squared errors RSS(a) over all outputs and
        the degrees of freedom df(a) = 1 + sum_i l_i / (l_i + a), l_i the eigenvalues of the
        inputs' moments, the least of RSS(a) / (n - df(a))^2. One penalty is of all outputs.

        Args:
            penalties: that are tried, in the unit of `PENALTIES`, the strongest first.
        """
        xx, xy, yy = self.xx, self.xy, self.yy
        unit = float(xx.diagonal().mean())
        if unit == 0:  # nothing moves
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
            # What rounding leaves of a perfect fit is no difference between penalties.
            rss = max(float(yy - gain.sum()), 1e-14 * float(yy))
            if rss / free**2 < least:
                best, least = penalty, rss / free**2
        weight = (vectors @ (along / (values + best)[:, None])).T
        return Ridge(weight, self.mean_y - weight @ self.mean_x, best)

    def error(self, ridge: Ridge) -> float:
        """Return the weighted sum of squared errors that a regression makes on these rows."""
        away = self.mean_y - ridge.weight @ self.mean_x - ridge.bias
        explained = (ridge.weight @ self.xx - 2 * self.xy.T) * ridge.weight
        return float(self.yy + explained.sum() + self.total * away.square().sum())


def _sums(parts: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
    """Return the sum of each place of the tuples."""
    sums: list[Tensor] = []
    for part in parts:
        sums = [a + b for a, b in zip(sums, part, strict=True)] if sums else list(part)
    return sums
