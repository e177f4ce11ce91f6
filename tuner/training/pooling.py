"""Pooling: how all steps that the last recurrent layer puts out become one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["POOLINGS", "Attention", "Last", "Max", "Mean"]


class Last(nn.Module):
    """What the layer holds at the end: forwards after the last real step, backwards the first."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return one vector a sequence, (batch, width); the signature of every pooling.

        Args:
            outputs: (batch, steps, width), anything where a step pads.
            last: the hidden state at the end, (batch, width).
            real: which steps do not pad, (batch, steps); None where all are real.
        """
        return last


class Mean(nn.Module):
    """The mean over the real steps."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return one vector a sequence, (batch, width); see `Last`."""
        if real is None:
            return outputs.mean(dim=1)
        total = outputs.masked_fill(~real.unsqueeze(2), 0.0).sum(dim=1)
        return total / real.sum(dim=1, keepdim=True)


class Max(nn.Module):
    """The largest over the real steps, of every unit its own."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return one vector a sequence, (batch, width); see `Last`."""
        if real is not None:
            outputs = outputs.masked_fill(~real.unsqueeze(2), -torch.inf)
        return outputs.max(dim=1).values


class Attention(nn.Module):
    """A weighted mean over the real steps, weighted by additive attention.

    Bahdanau, Cho & Bengio (2015), "Neural Machine Translation by Jointly Learning to Align and
    Translate", appendix A.1.2, with the hidden state at the end, s, as what asks:

        e_t = v . tanh(W s + U h_t),  alpha = softmax(e),  pooled = sum_t alpha_t h_t
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)  # W
        self.key = nn.Linear(width, width, bias=False)  # U
        self.energy = nn.Linear(width, 1, bias=False)  # v

    def weigh(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return the weight of every step, (batch, steps): they sum to 1, padding has 0."""
        hidden = torch.tanh(self.query(last).unsqueeze(1) + self.key(outputs))
        energies: Tensor = self.energy(hidden).squeeze(2)  # (batch, steps)
        if real is not None:
            energies = energies.masked_fill(~real, -torch.inf)
        return energies.softmax(dim=1)

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return one vector a sequence, (batch, width); see `Last`."""
        if real is not None:  # 0 times what pads must be 0
            outputs = outputs.masked_fill(~real.unsqueeze(2), 0.0)
        weights = self.weigh(outputs, last, real)  # (batch, steps)
        return torch.bmm(weights.unsqueeze(1), outputs).squeeze(1)


POOLINGS: dict[str, type[nn.Module]] = {
    "last": Last,
    "mean": Mean,
    "max": Max,
    "attention": Attention,
}
"""By the name in the hyperparameter `pooling`; each is made from its width."""
