"""Losses that training minimizes: built in, or the user's own."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tuner.data import DataRef, Shape
from tuner.errors import InputError, one_line
from tuner.experiment.fields import is_own
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training.device import TrainingError
from tuner.user_code import evaluate, is_reference, load_object, parse

__all__ = ["Loss", "balanced_weights", "make_loss", "own_loss", "pinball"]


def own_loss(definition: str, shape: Shape) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss, of what a model puts out and what it should have, in scaled units.

    A function is given truth and forecast, in that order: of values, (batch, horizon, targets)
    each, with quantiles one axis more of the forecast; of classes, (n,) and their logits, (n,
    classes). Of every step it is given the real ones alone, one after another.

    Args:
        definition: `package.module:function`, or an expression.
        shape: of the data.

    Raises:
        TrainingError: there is no such function.
    """
    if not is_reference(definition):
        return partial(_of_expression, tree=parse(definition), shape=shape)
    try:
        function = load_object(definition)
    except InputError as error:
        raise TrainingError(f"loss: {error}") from None
    if not callable(function):
        text = f"loss: must be a function, got {definition!r}, which is {type(function).__name__}"
        raise TrainingError(f"{text}; name a function")
    return partial(_of_function, function=function, what=definition, shape=shape)


def _real(outputs: Tensor, targets: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Return outputs and targets without the steps that pad."""
    if not shape.each_step:
        return outputs, targets
    real = targets != -1 if shape.classes else ~targets.isnan()
    return outputs[real], targets[real]


def _of_function(
    outputs: Tensor, targets: Tensor, *, function: Callable[..., Any], what: str, shape: Shape
) -> Tensor:
    forecast, truth = _real(outputs, targets, shape)
    try:
        found = function(truth, forecast)
    except Exception as error:  # whatever it does
        problem = f"{type(error).__name__}: {one_line(error)}"
        raise TrainingError(f"loss: {what} has no loss of a batch: {problem}") from error
    if not isinstance(found, Tensor) or found.ndim or not found.is_floating_point():
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise TrainingError(f"loss: {what} must come to one number of torch, got {got}")
    return found


def _of_expression(outputs: Tensor, targets: Tensor, *, tree: ast.expr, shape: Shape) -> Tensor:
    forecast, truth = _real(outputs, targets, shape)
    names = {"truth": truth, "forecast": forecast}
    found: Tensor = evaluate(tree, names, _FUNCTIONS, lambda number: forecast.new_tensor(number))
    return found


def _number(x: Tensor) -> Tensor:
    """Return what is true or false as 1 or 0."""
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": torch.abs, "sqrt": torch.sqrt, "exp": torch.exp, "log": torch.log,
    "log1p": torch.log1p, "square": torch.square, "sign": torch.sign,
    "minimum": torch.minimum, "maximum": torch.maximum, "where": torch.where,
    "mean": lambda x: _number(x).mean(), "sum": lambda x: _number(x).sum(),
    "median": lambda x: _number(x).quantile(0.5), "std": lambda x: x.std(correction=0),
    "min": torch.min, "max": torch.max, "quantile": lambda x, q: x.quantile(q),
}  # fmt: skip


class Loss(Protocol):
    """Maps what a model puts out, and what it should have, to a mean over all of it, a scalar."""

    def __call__(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /
    ) -> Tensor:
        """Return the mean, each loss times its weight.

        It is divided by the number of losses, not by the weights: these have the mean 1 over all
        samples, so that a sample weighs the same whatever it is in a batch with.

        Args:
            outputs: see `Model`.
            targets: see `Samples.targets`.
            weights: (batch, horizon), (batch,) of classes, or of every step (batch, steps).
        """


_OF_VALUES: dict[str, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,  # as mse up to an error of 1 in scaled units, then as mae
}


def make_loss(parameters: Hyperparameters, data: DataRef, device: torch.device) -> Loss:
    """Return the loss of the parameters, for the data's outputs and targets.

    Raises:
        TrainingError: the loss asked for is none of what the data's model puts out.
    """
    if is_own(parameters.loss):
        return partial(_unweighted, loss=own_loss(parameters.loss, data.shape))
    fitting = _fitting(data.shape)
    name = fitting[0] if parameters.loss == "auto" else parameters.loss
    if name not in fitting:
        raise TrainingError(
            f"loss: {name} does not fit the task's outputs; choose from: {', '.join(fitting)}"
        )
    if name == "quantile":
        return partial(pinball, levels=torch.tensor(data.shape.quantiles, device=device))
    if name == "cross_entropy":
        weights = None
        if parameters.class_weights == "balanced":
            trained = data.train_samples()
            classes, of_samples = data.truth_of(trained), data.weights_of(trained)
            weights = balanced_weights(classes, data.shape.classes, of_samples).to(device)
        return partial(_cross_entropy, of_classes=weights)
    return partial(_of_values, loss=_OF_VALUES[name], each_step=data.shape.each_step)


def _unweighted(
    outputs: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    /,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    if weights is not None:
        raise TrainingError("loss: one's own cannot be weighted; write auto")
    return loss(outputs, targets)


def _of_values(
    outputs: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    /,
    *,
    loss: Callable[..., Tensor],
    each_step: bool,
) -> Tensor:
    """Return the loss of values; where each step has some, targets that pad are no numbers."""
    if weights is not None:
        weights = weights.unsqueeze(-1).expand_as(targets)
    if each_step:
        real = ~targets.isnan()
        outputs, targets = outputs[real], targets[real]
        weights = None if weights is None else weights[real]
    if weights is None:
        return loss(outputs, targets)
    return (weights * loss(outputs, targets, reduction="none")).mean()


def _fitting(shape: Shape) -> list[str]:
    """Return the losses for a model's outputs, the one that auto takes first."""
    if shape.classes:
        return ["cross_entropy"]
    return ["quantile"] if shape.quantiles else list(_OF_VALUES)


def pinball(
    outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /, *, levels: Tensor
) -> Tensor:
    """Return the mean quantile loss of (..., quantiles) for (...): a level q costs q above it."""
    above = targets.unsqueeze(-1) - outputs
    losses = torch.maximum(levels * above, (levels - 1) * above)
    if weights is not None:
        losses = weights[..., None, None] * losses
    return losses.mean()


def _cross_entropy(
    outputs: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    /,
    *,
    of_classes: Tensor | None,
) -> Tensor:
    """Return the mean over classes or real steps, each loss times the weight of its class.

    Torch's mean divides by the weights in the batch, so that a class alone in it weighs nothing.
    """
    total = functional.cross_entropy(
        outputs.flatten(0, -2),
        targets.flatten(),
        weight=of_classes,
        ignore_index=-1,
        reduction="sum" if weights is None else "none",
    )
    if weights is not None:
        total = (weights.flatten() * total).sum()
    return total / (targets != -1).sum()


def balanced_weights(
    classes: np.ndarray, n_classes: int, weights: np.ndarray | None = None
) -> Tensor:
    """Return what each class weighs, (n_classes,), so that all classes weigh the same together.

    As scikit-learn's `class_weight="balanced"`; a class without an example weighs as if it had
    one, for it may be in the validation part. An example counts as much as it weighs, where there
    are weights, (n,).
    """
    if weights is not None:
        counted = np.bincount(classes, weights / weights.mean(), minlength=n_classes)
        counted = np.where(counted > 0, counted, 1)
        return torch.tensor(len(classes) / (n_classes * counted), dtype=torch.float32)
    counts = np.bincount(classes, minlength=n_classes).clip(min=1)
    return torch.tensor(len(classes) / (n_classes * counts), dtype=torch.float32)
