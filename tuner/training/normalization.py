"""Reversible normalization: what a window's level is, taken off before it is read and put back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.data import Shape
from tuner.training.errors import TrainingError

__all__ = ["SPREAD", "Level", "Normalization", "columns_of_targets"]

SPREAD = 1e-5
"""Added to a window's variance, as RevIN does: a window that does not move is not blown up."""


def columns_of_targets(shape: Shape, key: str) -> list[int]:
    """Return the input column of each target.

    Raises:
        TrainingError: a target is not read, which the hyperparameter `key` needs.
    """
    columns = list(shape.target_columns)
    if len(columns) != shape.targets or -1 in columns:
        raise TrainingError(f"{key}: needs every target among the features")
    return columns


@dataclass(frozen=True)
class Level:
    """What was taken off the windows of a batch, in scaled units."""

    shift: Tensor  # (batch, 1, targets)
    spread: Tensor | None  # (batch, 1, targets), above 0; None where nothing is divided

    def take_off(self, targets: Tensor) -> Tensor:
        """Bring (batch, horizon, targets) to the level of the windows."""
        targets = targets - self.shift
        return targets if self.spread is None else targets / self.spread

    def put_back(self, values: Tensor) -> Tensor:
        """Undo `take_off`, also of (batch, horizon, targets, quantiles)."""
        shift, spread = self.shift, self.spread
        if values.ndim == 4:
            shift = shift.unsqueeze(3)
            spread = None if spread is None else spread.unsqueeze(3)
        return (values if spread is None else values * spread) + shift


class Normalization(nn.Module):
    """Takes the level of the targets off a window, from their columns and those of their lags.

    By kind, of the window's values x_1 ... x_L of a target:

    * last: x - x_L (NLinear of Zeng et al. 2023, "Are Transformers Effective for Time Series
      Forecasting?");
    * mean: x - E[x];
    * standard: (x - E[x]) / sqrt(Var[x] + 1e-5), the variance biased (Kim et al. 2022,
      "Reversible Instance Normalization", eq. 1 and 2 with gamma 1 and beta 0).

    `Level.put_back` is the inverse (eq. 4 there). Other columns keep their level; modes of a
    target, which have none, are divided by its spread.
    """

    def __init__(self, kind: str, shape: Shape) -> None:
        super().__init__()
        self.kind = kind
        self.columns = columns_of_targets(shape, "normalize")
        of = [0] * shape.inputs  # whose level a column has
        takes = [0.0] * shape.inputs
        for target, column in enumerate(self.columns):
            of[column], takes[column] = target, 1.0
        for column, target in shape.lag_columns:
            of[column], takes[column] = target, 1.0
        over = list(takes)
        for column in range(shape.features, shape.inputs):  # modes swing around 0
            of[column], over[column] = (column - shape.features) // shape.modes, 1.0
        self.of: Tensor
        self.takes: Tensor
        self.over: Tensor
        self.register_buffer("of", torch.tensor(of), persistent=False)
        self.register_buffer("takes", torch.tensor(takes), persistent=False)
        self.register_buffer("over", torch.tensor(over), persistent=False)

    def level(self, x: Tensor) -> Level:
        """Return the level of windows, (batch, window, features)."""
        own = x[:, :, self.columns]  # (batch, window, targets)
        if self.kind == "last":
            return Level(own[:, -1:], None)
        mean = own.mean(dim=1, keepdim=True)
        if self.kind == "mean":
            return Level(mean, None)
        variance = (own - mean).square().mean(dim=1, keepdim=True)
        return Level(mean, (variance + SPREAD).sqrt())

    def forward(self, x: Tensor) -> tuple[Tensor, Level]:
        """Return windows without their level, and the level."""
        level = self.level(x)
        x = x - level.shift[:, :, self.of] * self.takes
        if level.spread is not None:
            x = x / (level.spread[:, :, self.of] * self.over + (1 - self.over))
        return x, level
