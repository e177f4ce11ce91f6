"""Decomposition of a window: the targets' columns as parts that add up to them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.data import Shape
from tuner.training.normalization import columns_of_targets

__all__ = ["Decomposition"]


class Decomposition(nn.Module):
    """Puts the parts of each target's window side by side.

    * A moving average is the trend, and what it leaves the remainder (Wu et al. 2021,
      "Autoformer", eq. 1; Zeng et al. 2023, "Are Transformers Effective for Time Series
      Forecasting?", DLinear). The first and last row of the window are repeated around it, the
      first one once more where the length is even: no other row plays a role.
    * Modes stand in the last columns already (`tuner.data.modes`); what they leave is the
      last part.

    Out come the remainders of all targets, the other columns in their order, and the trends.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.columns = columns_of_targets(shape, "decompose")
        self.inputs, self.length, self.modes = shape.inputs, shape.trend, shape.modes
        self.behind = (self.length - 1) // 2 if self.length else 0
        """Rows that are repeated behind the window."""
        self.before = self.length - 1 - self.behind if self.length else 0
        """Rows that are repeated before it."""
        others = [i for i in range(shape.inputs) if i not in self.columns]
        self.others: Tensor
        self.register_buffer("others", torch.tensor(others, dtype=torch.long), persistent=False)
        self.width = shape.inputs + (len(self.columns) if self.length else 0)
        """What comes out of a step."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, window, inputs) to (batch, window, width)."""
        own = x[:, :, self.columns]  # (batch, window, targets)
        rest = x.index_select(2, self.others)
        if not self.length:
            first = self.inputs - self.modes * len(self.columns)
            modes = x[:, :, first:].reshape(*own.shape, self.modes)
            return torch.cat((own - modes.sum(dim=3), rest), dim=2)
        columns = own.transpose(1, 2)
        padded = functional.pad(columns, (self.before, self.behind), mode="replicate")
        trend = functional.avg_pool1d(padded, self.length, stride=1).transpose(1, 2)
        return torch.cat((own - trend, rest, trend), dim=2)
