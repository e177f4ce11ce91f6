"""What is known of the rows to come: parted from the window, and what it adds to a forecast."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.data import Shape
from tuner.training.values import numbers_per_step

__all__ = ["LocalHead", "numbers_alone", "part"]


def part(x: Tensor, shape: Shape) -> tuple[Tensor, Tensor | None]:
    """Part what is read into the window and what is known of the rows to come.

    Args:
        x: (batch, steps, features); of a forecast with columns that are known ahead the last
            `horizon` steps are rows to come. Other columns of these are never looked at.
        shape: of the data.

    Returns:
        (batch, steps, features), and (batch, horizon, known columns); None where nothing is known.
        The numbers of categories say nothing by their size: they are 0.
    """
    if shape.categories:
        x = x * torch.tensor(numbers_alone(shape), dtype=x.dtype, device=x.device)
    if not shape.ahead:
        return x, None
    return x[:, : -shape.ahead], x[:, -shape.ahead :, list(shape.known_columns)]


def numbers_alone(shape: Shape) -> list[float]:
    """Return 1 for each input that is a number, 0 for a category, (inputs,)."""
    columns = {column for column, _ in shape.categories}
    return [float(at not in columns) for at in range(shape.inputs)]


class LocalHead(nn.Module):
    """Says what each step of the horizon comes to from what is known of it, beside a head.

    The local network of Wen et al. (2017), "A Multi-Horizon Quantile Recurrent Forecaster",
    section 3.1: one for all steps, with one hidden layer, here of ReLU. It reads what the
    recurrent layers came to and the known columns of its step; what it puts out is added to what
    the head says.
    """

    def __init__(self, width: int, shape: Shape) -> None:
        super().__init__()
        self.known = len(shape.known_columns)
        self.hidden = nn.Linear(width + self.known, width)
        self.out = nn.Linear(width, shape.classes or numbers_per_step(shape))

    def forward(self, pooled: Tensor, coming: Tensor) -> Tensor:
        """Map (batch, width) and (batch, horizon, known) to (batch, horizon * numbers)."""
        state = pooled.unsqueeze(1).expand(-1, coming.shape[1], -1)
        hidden = functional.relu(self.hidden(torch.cat((state, coming), dim=2)))
        numbers: Tensor = self.out(hidden)
        return numbers.flatten(1)
