"""The recursive decoder: a second recurrent layer that forecasts the horizon step by step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training.recurrent import State, make_layers, read
from tuner.training.values import as_values, middle, numbers_per_step

__all__ = ["Recursive"]


class Recursive(nn.Module):
    """Forecasts a step from its own forecast of the step before, training as in use.

    A layer of the encoder's cell and last width begins with the encoder's state, brought to its
    size by a linear bridge where that differs: the encoder may read both ways, a decoder cannot.
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape, state_sizes: list[int]) -> None:
        super().__init__()
        self.shape = shape
        units = parameters.widths[-1]
        hidden = (parameters.proj_size if parameters.cell == "lstm" else 0) or units
        self.layer = make_layers(parameters, shape.targets, units, bidirectional=False)
        self.bridges = nn.ModuleList(
            nn.Identity() if size == own else nn.Linear(size, own)
            for size, own in zip(state_sizes, (hidden, units), strict=False)
        )
        self.begin = nn.Parameter(torch.zeros(shape.targets))
        """What is read before the first step."""
        self.dropout = nn.Dropout(parameters.dropout)
        self.head = nn.Linear(hidden, numbers_per_step(shape))

    def forward(self, state: State) -> Tensor:
        """Map the state, each (batch, size), to (batch, horizon, targets[, quantiles])."""
        state = tuple(
            bridge(s).unsqueeze(0) for bridge, s in zip(self.bridges, state, strict=True)
        )  # (1, batch, units)
        x = self.begin.expand(state[0].shape[1], 1, -1)  # (batch, 1, targets)
        steps = []
        for _ in range(self.shape.horizon):
            outputs, state = read(self.layer, x, state)
            values = as_values(self.head(self.dropout(outputs[:, 0])), self.shape)
            steps.append(values)  # (batch, 1, targets[, quantiles])
            x = middle(values, self.shape)
        return torch.cat(steps, dim=1)
