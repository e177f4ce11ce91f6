"""Segments: steps next to one another that are read as one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.training.padding import real_steps

__all__ = ["Segments"]


class Segments(nn.Module):
    """Reads `length` steps as one, through a linear layer and ReLU.

    Lin et al. (2023), "SegRNN: Segment Recurrent Neural Network for Long-Term Time Series
    Forecasting", section 4.2. A window that `length` does not divide gets its oldest row
    repeated in front; a sequence gets zeros behind its end.
    """

    def __init__(self, length: int, inputs: int, width: int, *, in_front: bool) -> None:
        super().__init__()
        self.length, self.in_front = length, in_front
        self.linear = nn.Linear(length * inputs, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, steps, inputs), zeros where it pads, to (batch, segments, width)."""
        missing = -x.shape[1] % self.length
        if missing and self.in_front:
            x = torch.cat((x[:, :1].expand(-1, missing, -1), x), dim=1)
        elif missing:
            x = functional.pad(x, (0, 0, 0, missing))
        return functional.relu(self.linear(x.reshape(x.shape[0], -1, self.linear.in_features)))

    def count(self, lengths: Tensor) -> Tensor:
        """Return in how many segments so many steps are."""
        return (lengths + self.length - 1) // self.length

    def spread(self, weights: Tensor, steps: int, lengths: Tensor | None) -> Tensor:
        """Give each segment's weight to its steps in equal shares; steps that pad get 0.

        Args:
            weights: (batch, segments).
            steps: how many steps were read.
            lengths: (batch,), how many of them are real; all by default.

        Returns:
            (batch, steps); it adds up to what the weights do.
        """
        device = weights.device
        step = torch.arange(steps, device=device)
        segment = (step + (-steps % self.length if self.in_front else 0)) // self.length
        real = torch.ones(len(weights), steps, dtype=torch.bool, device=device)
        if lengths is not None:
            real = real_steps(lengths, steps, device)
        index = segment.expand_as(real)
        counts = torch.zeros_like(weights).scatter_add_(1, index, real.to(weights.dtype))
        return (weights / counts.clamp(min=1)).gather(1, index) * real
