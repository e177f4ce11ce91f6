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
    forecast from all columns, unless they are more than `MOST_INPUTS` numbers. What is known of
    the rows to come is read as well, within that number, each target having weights of its own
    for it.

    It is 0 until `tuner.training.window_path.fit_path` fits it in closed form, and not trained: the
    layers learn what it leaves over. Where gradients move it as well, a few hundred windows are
    enough for them to fit noise: sunspots, window 22, RMSE of three seeds 15.9 in place of 14.9.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.columns = columns_of_targets(shape, "linear_path")
        self.targets = shape.targets
        n_coming = shape.targets * shape.ahead * len(shape.known_columns)
        n_all = shape.window * shape.inputs + n_coming
        self.reads_all = shape.targets == 1 and n_all <= MOST_INPUTS
        self.n_coming = n_coming if self.reads_all or shape.window + n_coming <= MOST_INPUTS else 0
        """Inputs that are of rows to come: they stand after those of the window."""
        own = torch.zeros(shape.inputs, dtype=torch.bool)
        own[[self.columns[0], *(column for column, _ in shape.lag_columns)]] = True
        of_window = own if self.reads_all else torch.ones(1, dtype=torch.bool)
        of_coming = torch.zeros(self.n_coming, dtype=torch.bool)
        self.own_inputs = torch.cat((of_window.repeat_interleave(shape.window), of_coming))
        """Which inputs are values of the target, its lags among them, (inputs,)."""
        self.linear = nn.Linear(len(self.own_inputs), shape.horizon)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter.requires_grad_(False))

    def windows(self, x: Tensor, coming: Tensor | None) -> Tensor:
        """Return what each target is forecast from, (batch, targets, inputs)."""
        columns = x.transpose(1, 2)  # (batch, features, window)
        read = columns.flatten(1).unsqueeze(1) if self.reads_all else columns[:, self.columns]
        if coming is None or not self.n_coming:
            return read
        known = coming.transpose(1, 2).flatten(1)  # (batch, known * horizon)
        # For each target in a place of its own, with zeros in those of the others.
        each = torch.eye(self.targets, device=x.device, dtype=known.dtype)
        placed = (each.unsqueeze(2) * known.unsqueeze(1).unsqueeze(1)).flatten(2)
        return torch.cat((read, placed), dim=2)

    def forward(self, x: Tensor, coming: Tensor | None = None) -> Tensor:
        """Map (batch, window, features) to (batch, horizon, targets).

        Args:
            x: the window.
            coming: what is known of the rows to come, (batch, horizon, known columns).
        """
        # In full precision: in half of it a forecast of the level itself would be a coarse one.
        with torch.autocast(x.device.type, enabled=False):
            read = self.windows(x, coming).to(self.linear.weight.dtype)
            ahead: Tensor = self.linear(read)
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

    def forward(self, x: Tensor, coming: None = None) -> Tensor:
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
