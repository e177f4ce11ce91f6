"""Windows: views of one tensor of rows, gathered into batches by their first target row."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from tuner.data import DataRef
from tuner.training.device import to_device

__all__ = ["Shape", "Windows", "unfold"]


class Shape(TypedDict):
    """The sizes of a window's inputs and targets."""

    features: int
    horizon: int
    targets: int


def unfold(rows: Tensor, length: int) -> Tensor:
    """View (rows, columns) as (rows - length + 1, length, columns); window i starts at row i."""
    return rows.unfold(0, length, 1).transpose(1, 2)


class Windows:
    """What the model reads and what it should say, for any first target row `t`.

    Rows [t - window, t) are read and rows [t, t + horizon) are forecast. Both are views: a
    window takes memory only while its batch is in use. A window that would reach past either
    end of the rows raises (`index_select` takes no negative index).
    """

    def __init__(self, data: DataRef, device: torch.device) -> None:
        self.window = data.window
        inputs = to_device(data.inputs(), device)  # (rows, features)
        targets = to_device(data.targets(), device)  # (rows, targets)
        self.past = unfold(inputs, data.window)  # (rows - window + 1, window, features)
        self.future = unfold(targets, data.horizon)  # (rows - horizon + 1, horizon, targets)

    @property
    def shape(self) -> Shape:
        """What a model must know of its data."""
        return {
            "features": self.past.shape[2],
            "horizon": self.future.shape[1],
            "targets": self.future.shape[2],
        }

    def index(self, starts: np.ndarray) -> Tensor:
        """Return first target rows as an index that `before` and `after` take."""
        return torch.tensor(starts, dtype=torch.int64, device=self.past.device)

    def before(self, starts: Tensor) -> Tensor:
        """Gather the inputs, (batch, window, features), in the order of `starts`."""
        return self.past.index_select(0, starts - self.window)

    def after(self, starts: Tensor) -> Tensor:
        """Gather the targets, (batch, horizon, targets), in the order of `starts`."""
        return self.future.index_select(0, starts)
