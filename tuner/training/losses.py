"""Loss functions of training: built in, or user code."""

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
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training.device import TrainingError
from tuner.user_code import evaluate, is_reference, is_user_code, load_object, parse


def user_loss(definition: str, shape: Shape) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss from user code, of outputs and targets in scaled units.

    A function takes truth and forecast, in that order: values, (batch, horizon, targets) each,
    with one more axis of the forecast for quantiles; or classes, (n,), and logits, (n, classes).
    Where every step has a target, the real steps are concatenated.

    Args:
        definition: `package.module:function`, or an expression.
        shape: of the data.

    Raises:
        TrainingError: there is no such function.
    """
    if is_reference(definition):
        calculate = partial(_call, _load(definition), definition)
    else:
        calculate = partial(_evaluate, parse(definition))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if shape.each_step:
            real = targets != -1 if shape.classes else ~targets.isnan()
            outputs, targets = outputs[real], targets[real]
        return calculate(targets, outputs)

    return loss


def _load(reference: str) -> Callable[..., Any]:
    try:
        found = load_object(reference)
    except InputError as error:
        raise TrainingError(f"the loss is not found: {error}") from None
    if callable(found):
        return found  # type: ignore[no-any-return]
    got = f"{reference!r}, which is {type(found).__name__}"
    raise TrainingError("the loss must be a function", got=got, remedy="name a function")


def _call(function: Callable[..., Any], name: str, truth: Tensor, forecast: Tensor) -> Tensor:
    try:
        found = function(truth, forecast)
    except Exception as error:  # of the user's code
        problem = f"{type(error).__name__}: {one_line(error)}"
        raise TrainingError(f"{name} gives no loss for a batch: {problem}") from error
    if not isinstance(found, Tensor) or found.ndim or not found.is_floating_point():
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise TrainingError(f"the loss {name} must return one number of torch", got=got)
    return found


def _evaluate(tree: ast.expr, truth: Tensor, forecast: Tensor) -> Tensor:
    names = {"truth": truth, "forecast": forecast}
    found: Tensor = evaluate(tree, names, _FUNCTIONS, lambda number: forecast.new_tensor(number))
    return found


def _number(x: Tensor) -> Tensor:
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
    """Maps outputs and targets to the mean loss, a scalar."""

    def __call__(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /
    ) -> Tensor:
        """Return the sum of the weighted losses over their number.

        The sum of the weights does not matter: a sample counts the same in every batch. The mean
        weight of all samples is 1.

        Args:
            outputs: see `Model`.
            targets: see `Samples.targets`.
            weights: (batch, horizon), (batch,) of classes, or (batch, steps) of every step.
        """


_OF_VALUES: dict[str, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,  # as mse up to an error of 1 in scaled units, then as mae
}


def make_loss(parameters: Hyperparameters, data: DataRef, device: torch.device) -> Loss:
    """Return the loss of the parameters, for the data's outputs and targets.

    Raises:
        TrainingError: the loss does not fit the model's outputs.
    """
    shape = data.shape
    if is_user_code(parameters.loss):
        return partial(_unweighted, user_loss(parameters.loss, shape))
    if shape.classes:
        fitting = ["cross_entropy"]
    else:
        fitting = ["quantile"] if shape.quantiles else list(_OF_VALUES)
    name = fitting[0] if parameters.loss == "auto" else parameters.loss
    if name not in fitting:
        rule = f"the loss {name} does not fit the task's outputs"
        raise TrainingError(rule, remedy=f"choose from: {', '.join(fitting)}")
    if name == "quantile":
        return partial(pinball, levels=torch.tensor(shape.quantiles, device=device))
    if name == "cross_entropy":
        weights = None
        if parameters.class_weights == "balanced":
            trained = data.train_samples()
            classes, of_samples = data.truth_of(trained), data.weights_of(trained)
            weights = balanced_weights(classes, shape.classes, of_samples).to(device)
        return partial(_cross_entropy, of_classes=weights)
    return partial(_of_values, _OF_VALUES[name], shape.each_step)


def _unweighted(
    loss: Callable[[Tensor, Tensor], Tensor],
    outputs: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    if weights is not None:
        raise TrainingError("a loss from user code has no weights", remedy="write auto")
    return loss(outputs, targets)


def _of_values(
    loss: Callable[..., Tensor],
    each_step: bool,
    outputs: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the loss of values; where each step has a target, padding is nan."""
    if weights is not None:
        weights = weights.unsqueeze(-1).expand_as(targets)
    if each_step:
        real = ~targets.isnan()
        outputs, targets = outputs[real], targets[real]
        weights = None if weights is None else weights[real]
    if weights is None:
        return loss(outputs, targets)
    return (weights * loss(outputs, targets, reduction="none")).mean()


def pinball(
    outputs: Tensor, targets: Tensor, weights: Tensor | None = None, *, levels: Tensor
) -> Tensor:
    """Return the mean quantile loss of (..., quantiles) for targets (...).

    An error of level q costs q where the target is above, 1 - q where it is below.
    """
    above = targets.unsqueeze(-1) - outputs
    losses = torch.maximum(levels * above, (levels - 1) * above)
    if weights is not None:
        losses = weights[..., None, None] * losses
    return losses.mean()


def _cross_entropy(
    outputs: Tensor, targets: Tensor, weights: Tensor | None = None, *, of_classes: Tensor | None
) -> Tensor:
    """Return the mean over samples or real steps of each loss times the weight of its class.

    Torch's mean divides by the weights in the batch, so that a class alone in it has no weight.
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
    """Return weights of the classes, (n_classes,), that give all classes the same total.

    As scikit-learn's `class_weight="balanced"`; a class without an example, which may be in the
    validation part, has the weight of a class with one. Examples count by `weights`, (n,).
    """
    relative = None if weights is None else weights / weights.mean()
    counts = np.bincount(classes, relative, minlength=n_classes)
    counts = np.where(counts > 0, counts, 1)
    return torch.tensor(len(classes) / (n_classes * counts), dtype=torch.float32)
