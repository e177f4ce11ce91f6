"""Numbers that a linear layer puts out, as values of targets or as their quantiles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tuner.data import Shape

__all__ = ["as_values", "middle", "middle_at", "numbers_per_step"]


def numbers_per_step(shape: Shape) -> int:
    """Return how many numbers say what a step of the horizon comes to."""
    return shape.targets * max(1, len(shape.quantiles))


def as_values(numbers: Tensor, shape: Shape) -> Tensor:
    """Map (batch, steps * numbers_per_step) to (batch, steps, targets), or (..., quantiles).

    Quantiles cannot cross: the lowest is put out, and every other one as a positive step up.
    """
    if not shape.quantiles:
        return numbers.view(numbers.shape[0], -1, shape.targets)
    numbers = numbers.view(numbers.shape[0], -1, shape.targets, len(shape.quantiles))
    lowest, steps = numbers[..., :1], functional.softplus(numbers[..., 1:])
    return torch.cat((lowest, lowest + steps.cumsum(dim=-1)), dim=-1)


def middle(values: Tensor, shape: Shape) -> Tensor:
    """Return the one value of each target, of quantiles the one nearest to the median."""
    return values[..., middle_at(shape)] if shape.quantiles else values


def middle_at(shape: Shape) -> int:
    """Return the place of the quantile that is nearest to the median."""
    return min(range(len(shape.quantiles)), key=lambda i: abs(shape.quantiles[i] - 0.5))
