"""An ensemble: several trained models that speak with one voice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.training.linear_path import LinearPath, SequencePath
from tuner.training.model import Model

__all__ = ["Ensemble", "mean_outputs"]


class Ensemble(nn.Module):
    """Models of one configuration; what it puts out is the mean of what they put out.

    Of values and quantiles it is the mean of the scaled outputs, so one graph gives it and what
    undoes the scaling need not know of it. Of classes it is the mean of the probabilities, put
    out as logarithms, which are logits too.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.shape = models[0].shape

    @property
    def linear_path(self) -> LinearPath | SequencePath | None:
        """That of the first model: all have one, or none has."""
        first = self.models[0]
        assert isinstance(first, Model)
        return first.linear_path

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, prefix: Tensor | None = None
    ) -> Tensor:
        """Say what sequences come to, as `Model.forward` does."""
        outputs = [model(x, lengths, prefix) for model in self.models]
        return mean_outputs(outputs, bool(self.shape.classes))


def mean_outputs(outputs: Sequence[Tensor], classes: bool) -> Tensor:
    """Return the mean of what several models put out.

    Args:
        outputs: of each; one alone is returned as it is.
        classes: whether they are logits, (..., classes).

    Returns:
        The same shape; of classes the logarithm of the mean probability.
    """
    if len(outputs) == 1:
        return outputs[0]
    together = torch.stack(list(outputs))
    if not classes:
        return together.mean(dim=0)
    logs = functional.log_softmax(together, dim=-1)
    return torch.logsumexp(logs, dim=0) - math.log(len(outputs))
