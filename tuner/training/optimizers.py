"""Optimizers, and schedules of their learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tuner.experiment.hyperparameters import Hyperparameters

__all__ = ["Schedule", "make_optimizer", "make_schedule"]

Schedule = Callable[[float], None]
"""Hears of the validation loss after every epoch, and sets the learning rate of the next."""

_PLATEAU_EPOCHS = 5  # this many without a better validation loss are borne
_MOMENTUM = 0.9


def make_optimizer(parameters: Hyperparameters, weights: list[nn.Parameter]) -> optim.Optimizer:
    """Return the optimizer of the parameters; fused where torch has it, for that is faster."""
    rate, decay = parameters.learning_rate, parameters.weight_decay
    match parameters.optimizer:
        case "adam":
            return optim.Adam(weights, lr=rate, weight_decay=decay, fused=True)
        case "adamw":
            return optim.AdamW(weights, lr=rate, weight_decay=decay, fused=True)
        case "rmsprop":
            return optim.RMSprop(weights, lr=rate, weight_decay=decay)
        case "sgd":
            return optim.SGD(weights, lr=rate, momentum=_MOMENTUM, weight_decay=decay, fused=True)


def make_schedule(
    parameters: Hyperparameters, optimizer: optim.Optimizer, *, epochs: int
) -> Schedule:
    """Return the schedule of the parameters for so many epochs."""
    match parameters.schedule:
        case "none":
            return lambda val_loss: None
        case "cosine":
            return _Cosine(optimizer, parameters.learning_rate, epochs)
        case "plateau":
            plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=_PLATEAU_EPOCHS)
            return lambda val_loss: plateau.step(val_loss)


class _Cosine:
    """From the learning rate to 0 along half a cosine: epoch k of n has (1 + cos(pi k/n)) / 2.

    Torch's own schedule ties the optimizer into a cycle of references, and a model's memory to
    the next collection of garbage.
    """

    def __init__(self, optimizer: optim.Optimizer, rate: float, epochs: int) -> None:
        self.optimizer, self.rate, self.epochs, self.done = optimizer, rate, epochs, 0

    def __call__(self, val_loss: float) -> None:
        self.done += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * (1 + math.cos(math.pi * self.done / self.epochs)) / 2
