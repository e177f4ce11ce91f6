"""Optimizers and schedules of the learning rate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from torch import nn, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tuner.experiment.hyperparameters import Hyperparameters

Schedule = Callable[[float], None]
"""Called with the validation loss after every epoch; sets the learning rate of the next epoch."""

_PLATEAU_EPOCHS = 5  # without a better validation loss, before the learning rate is halved
_MOMENTUM = 0.9


def make_optimizer(parameters: Hyperparameters, weights: list[nn.Parameter]) -> optim.Optimizer:
    """Return the optimizer of the parameters, fused where torch supports it."""
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
            return _cosine(optimizer, parameters.learning_rate, epochs)
        case "plateau":
            plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=_PLATEAU_EPOCHS)
            return lambda val_loss: plateau.step(val_loss)


def _cosine(optimizer: optim.Optimizer, rate: float, epochs: int) -> Schedule:
    """Return cosine annealing to 0: epoch k of n has (1 + cos(pi k/n)) / 2 of the learning rate.

    Torch's own schedule makes a reference cycle with the optimizer, which keeps a model in memory
    until the next garbage collection.
    """
    numbers = itertools.count(1)

    def anneal(val_loss: float) -> None:
        done = next(numbers)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * done / epochs)) / 2

    return anneal
