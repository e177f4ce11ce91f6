"""The losses that training minimizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tuner.data import DataRef, Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.experiment.own_text import is_own
from tuner.training.errors import TrainingError
from tuner.training.own_loss import own_loss

__all__ = ["Loss", "balanced_weights", "make_loss", "pinball"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps what a model puts out, and what it should have, to a mean over all of it, a scalar."""

_OF_VALUES: dict[str, Loss] = {
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
        return own_loss(parameters.loss, data.shape)
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
            classes = data.truth_of(data.train_samples())
            weights = balanced_weights(classes, data.shape.classes).to(device)
        return partial(_cross_entropy, weights=weights)
    if data.shape.each_step:
        return partial(_of_real_steps, loss=_OF_VALUES[name])
    return _OF_VALUES[name]


def _of_real_steps(outputs: Tensor, targets: Tensor, *, loss: Loss) -> Tensor:
    """Return the loss of values where a step has them: targets that pad are no numbers."""
    real = ~targets.isnan()
    return loss(outputs[real], targets[real])


def _fitting(shape: Shape) -> list[str]:
    """Return the losses for a model's outputs, the one that auto takes first."""
    if shape.classes:
        return ["cross_entropy"]
    return ["quantile"] if shape.quantiles else list(_OF_VALUES)


def pinball(outputs: Tensor, targets: Tensor, *, levels: Tensor) -> Tensor:
    """Return the mean quantile loss of (..., quantiles) for (...): a level q costs q above it."""
    above = targets.unsqueeze(-1) - outputs
    return torch.maximum(levels * above, (levels - 1) * above).mean()


def _cross_entropy(outputs: Tensor, targets: Tensor, *, weights: Tensor | None) -> Tensor:
    """Return the mean over classes or real steps, each loss times the weight of its class.

    Torch's mean divides by the weights in the batch, so that a class alone in it weighs nothing.
    """
    total = functional.cross_entropy(
        outputs.flatten(0, -2),
        targets.flatten(),
        weight=weights,
        ignore_index=-1,
        reduction="sum",
    )
    return total / (targets != -1).sum()


def balanced_weights(classes: np.ndarray, n_classes: int) -> Tensor:
    """Return what each class weighs, (n_classes,), so that all classes weigh the same together.

    As scikit-learn's `class_weight="balanced"`; a class without an example weighs as if it had
    one, for it may be in the validation part.
    """
    counts = np.bincount(classes, minlength=n_classes).clip(min=1)
    return torch.tensor(len(classes) / (n_classes * counts), dtype=torch.float32)
