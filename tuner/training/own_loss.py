"""Losses of one's own: an installed function of torch, or an expression of truth and forecast."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tuner.data import Shape
from tuner.errors import InputError, one_line
from tuner.expressions import evaluate, parse
from tuner.own_code import is_reference, load_object
from tuner.training.errors import TrainingError

__all__ = ["own_loss"]


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
