"""The exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from tuner.training.model import Model

__all__ = ["WeightAverage"]

_WARMUP = 3
"""The k-th step counts at least 3 / (3 + k): first weights are random, and soon forgotten."""


class WeightAverage:
    """A copy of a model whose weights follow those of the model, smoothed.

    After step k of an optimizer: average += r (weights - average), where r is the larger of
    1 / (1 + epochs * steps) and 3 / (3 + k). What noise the last steps leave in the weights cancels
    out in their mean (Polyak & Juditsky 1992, "Acceleration of Stochastic Approximation by
    Averaging").

    Args:
        model: is trained.
        epochs: over which the average goes, above 0: the mean age of what it consists of.
        steps: of the optimizer in an epoch.
    """

    def __init__(self, model: Model, *, epochs: float, steps: int) -> None:
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, nn.RNNBase):  # cuDNN wants its weights side by side
                module.flatten_parameters()
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        # Views on the numbers: what is fixed is the same in both.
        moving = [(a.detach(), w.detach()) for a, w in pairs if w.requires_grad]
        self._averages = [a for a, _ in moving]
        self._weights = [w for _, w in moving]
        kept = set(model.state_dict())  # but for what is not trained, and follows as it is
        others = zip(self.model.named_buffers(), model.buffers(), strict=True)
        self._buffers = [(a, b) for (name, a), b in others if name in kept]
        self._least, self._done = 1 / (1 + epochs * steps), 0

    def update(self) -> None:
        """Follow the model, once after each step."""
        self._done += 1
        rate = max(self._least, _WARMUP / (_WARMUP + self._done))
        torch._foreach_lerp_(self._averages, self._weights, rate)
        for average, buffer in self._buffers:
            average.copy_(buffer)
