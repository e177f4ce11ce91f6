"""Optimizers, their steps, and schedules of the learning rate.

A step of a small model is short: what it computes takes less time than to call an operation for
each of its weights. So on a CPU all weights are views of one tensor. The norm of the gradient, the
optimizer and the average of the weights then are a call each; benchmarks/training.py measures it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training.user_models import UserLayer, UserModel

Schedule = Callable[[float], None]
"""Called with the validation loss after every epoch; sets the learning rate of the next epoch."""

_PLATEAU_EPOCHS = 5  # without a better validation loss, before the learning rate is halved
_MOMENTUM = 0.9


def make_optimizer(parameters: Hyperparameters, weights: Sequence[Tensor]) -> optim.Optimizer:
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


def trained_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a model that are trained: all but the frozen ones."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def joined(model: nn.Module) -> list[Tensor]:
    """Return the weights of a model that an optimizer gets, in as few tensors as is sound.

    On a CPU those of `trained_weights` become views of one tensor, (weights,), in this order; call
    this once for a model. On a GPU they stay what they are, as cuDNN needs the weights of its
    layers in memory of their own, and an optimizer updates many tensors in one kernel. So do those
    of user code, which may share memory, differ in type, or get their shape from the first batch.
    """
    every = list(model.parameters())
    of_user = any(isinstance(module, UserLayer | UserModel) for module in model.modules())
    if of_user or any(weight.device.type != "cpu" for weight in every):
        return list(every)  # with frozen ones, which user code may release
    weights = trained_weights(model)
    whole = torch.cat([weight.detach().flatten() for weight in weights])
    sizes = [weight.numel() for weight in weights]
    for weight, part in zip(weights, torch.split(whole, sizes), strict=True):
        weight.data = part.view_as(weight)
    return [whole]


class Steps(Protocol):
    """The steps of an optimizer on the weights of a model."""

    optimizer: optim.Optimizer
    parts: list[Tensor]
    """The weights that are trained, as `joined` returns them."""

    def take(self, loss: Tensor) -> None:
        """Clip the gradient of a loss, a scalar, to the largest norm, and update the weights."""


def make_steps(model: nn.Module, parameters: Hyperparameters, *, half: bool = False) -> Steps:
    """Return the steps of the parameters' optimizer; `model` is on its device.

    Args:
        half: whether the loss is computed in half precision, so that it must be scaled.
    """
    parts = joined(model)
    if len(parts) == 1 and not isinstance(parts[0], nn.Parameter):
        return JoinedSteps(trained_weights(model), parts[0], parameters)
    return SeparateSteps(parts, parameters, half=half)


class JoinedSteps(Steps):
    """Steps on weights that are views of one tensor.

    The gradients of a loss are concatenated, which is faster than to accumulate them in views.
    Adam's kernel is called without its optimizer, which takes three times as long. It also divides
    the gradient, so that clipping costs no more than the norm.

    Args:
        weights: the views, in their order.
        whole: all weights, (weights,), which is no parameter.
        parameters: of the optimizer.
    """

    def __init__(
        self, weights: Sequence[nn.Parameter], whole: Tensor, parameters: Hyperparameters
    ) -> None:
        self.parts, self._weights, self._whole = [whole], list(weights), whole
        self.optimizer = make_optimizer(parameters, self.parts)
        self._clip = parameters.gradient_clip
        kernels = {"adam": torch._fused_adam_, "adamw": torch._fused_adamw_}
        self._kernel = kernels.get(parameters.optimizer)
        self._moments = [torch.zeros_like(whole)], [torch.zeros_like(whole)]
        self._done = torch.zeros(())

    def go_on_from(self, moments: Sequence[Tensor], done: int) -> None:
        """Go on where `done` steps of Adam ended, with these means of gradient and square."""
        for (own,), given in zip(self._moments, moments, strict=True):
            own.copy_(given)
        self._done.fill_(done)

    def take(self, loss: Tensor) -> None:
        """See `Steps.take`."""
        found = torch.autograd.grad(loss, self._weights, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([each.reshape(-1) for each in found])
        # Of a norm above the largest; a norm that is not finite makes the weights so, as it should.
        divisor = torch.linalg.vector_norm(gradient).div_(self._clip).clamp_(min=1.0)
        if self._kernel is None:
            self._whole.grad = gradient.div_(divisor)
            self.optimizer.step()
            return
        (group,) = self.optimizer.param_groups
        beta1, beta2 = group["betas"]
        self._done += 1
        self._kernel(
            self.parts,
            [gradient],
            *self._moments,
            [],  # amsgrad's
            [self._done],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )


class SeparateSteps(Steps):
    """Steps on weights that are tensors of their own.

    Args:
        weights: to train.
        parameters: of the optimizer.
        half: whether the loss is computed in half precision, so that it must be scaled.
    """

    def __init__(
        self, weights: Sequence[Tensor], parameters: Hyperparameters, *, half: bool
    ) -> None:
        self.parts = list(weights)
        self.optimizer = make_optimizer(parameters, self.parts)
        self._clip = parameters.gradient_clip
        device = self.parts[0].device.type if self.parts else "cpu"
        self._foreach = device != "cpu"  # there one by one is faster
        self.scaler = torch.amp.GradScaler(device, enabled=half)

    def take(self, loss: Tensor) -> None:
        """See `Steps.take`."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parts, self._clip, foreach=self._foreach)
        self.scaler.step(self.optimizer)
        self.scaler.update()
