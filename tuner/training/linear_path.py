"""The linear path: a linear forecast from the window, or a linear model of a whole sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuner.data import Shape
from tuner.training.errors import TrainingError
from tuner.training.normalization import columns_of_targets

__all__ = ["LinearPath", "SequencePath", "make_path"]

MOST_INPUTS = 1024
"""Numbers that one forecast is made from, where it reads all columns."""


class LinearPath(nn.Module):
    """One linear layer from the window to the horizon.

    The autoregressive part of LSTNet (Lai et al. 2018, "Modeling Long- and Short-Term Temporal
    Patterns with Deep Neural Networks", section 3.6), for every step of the horizon. Each of
    several targets is forecast from its own window, by the same weights. A single target is
    forecast from all columns, unless they are more than `MOST_INPUTS` numbers.

    It is 0 until `tuner.training.window_path.fit_path` fits it in closed form, and not trained: the
    layers learn what it leaves over. Where gradients move it as well, a few hundred windows are
    enough for them to fit noise: sunspots, window 22, RMSE of three seeds 15.9 in place of 14.9.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.columns = columns_of_targets(shape, "linear_path")
        self.reads_all = shape.targets == 1 and shape.window * shape.inputs <= MOST_INPUTS
        own = torch.zeros(shape.inputs, dtype=torch.bool)
        own[[self.columns[0], *(column for column, _ in shape.lag_columns)]] = True
        self.own_inputs = (
            own.repeat_interleave(shape.window)
            if self.reads_all
            else torch.ones(shape.window, dtype=torch.bool)
        )
        """Which inputs are values of the target, its lags among them, (inputs,)."""
        self.linear = nn.Linear(len(self.own_inputs), shape.horizon)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter.requires_grad_(False))

    def windows(self, x: Tensor) -> Tensor:
        """Return what each target is forecast from, (batch, targets, inputs)."""
        columns = x.transpose(1, 2)  # (batch, features, window)
        return columns.flatten(1).unsqueeze(1) if self.reads_all else columns[:, self.columns]

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, window, features) to (batch, horizon, targets)."""
        # In full precision: in half of it a forecast of the level itself would be a coarse one.
        with torch.autocast(x.device.type, enabled=False):
            ahead: Tensor = self.linear(self.windows(x).to(self.linear.weight.dtype))
        return ahead.transpose(1, 2)


class SequencePath(nn.Module):
    """One linear layer from all numbers of a sequence to its values, or the logits of its class.

    The sequences have one length. It is 0 until `tuner.training.sequence_path` fits it, and not
    trained.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.window < 1 or shape.vocabulary or shape.task not in ("regress", "classify"):
            raise TrainingError("linear_path: needs sequences of numbers, all of one length")
        self.classes = shape.classes
        self.linear = nn.Linear(shape.window * shape.features, shape.classes or shape.targets)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter.requires_grad_(False))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, steps, features) to (batch, 1, targets), or (batch, classes)."""
        with torch.autocast(x.device.type, enabled=False):
            said: Tensor = self.linear(x.flatten(1).to(self.linear.weight.dtype))
        return said if self.classes else said.unsqueeze(1)


def make_path(shape: Shape) -> LinearPath | SequencePath:
    """Return the path that fits the data.

    Raises:
        TrainingError: there is none.
    """
    return LinearPath(shape) if shape.task == "forecast" else SequencePath(shape)
