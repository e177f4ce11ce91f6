"""A convolution over the steps, before the recurrent layers read them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Convolution"]


class Convolution(nn.Module):
    """A 1-D convolution and ReLU; as many steps come out as go in, zeros stand around them.

    It is a linear layer over the `kernel` steps around each step, (kernel - 1) // 2 of them
    before it: no library chooses another algorithm for it, and so it repeats bit for bit.
    """

    def __init__(self, inputs: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.before = (kernel - 1) // 2
        self.linear = nn.Linear(inputs * kernel, channels)  # of (inputs, kernel), flattened

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, steps, inputs), zeros where it pads, to (batch, steps, channels)."""
        x = functional.pad(x, (0, 0, self.before, self.kernel - 1 - self.before))
        if torch.onnx.is_in_onnx_export():  # which has no such view
            steps = x.shape[1] - self.kernel + 1
            seen = torch.stack([x[:, i : steps + i] for i in range(self.kernel)], dim=3)
        else:
            seen = x.unfold(1, self.kernel, 1)  # (batch, steps, inputs, kernel)
        return functional.relu(self.linear(seen.flatten(2)))
