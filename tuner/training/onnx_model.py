"""A trained model as a graph of ONNX, part by part as in `tuner.training.model`."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import nn

from tuner.data import Shape
from tuner.training.decoder import Recursive
from tuner.training.graph import Graph
from tuner.training.model import Model
from tuner.training.onnx_layers import add_layers, axes
from tuner.training.pooling import Attention, Last, Max, Mean
from tuner.training.values import middle_at

__all__ = ["to_onnx"]


def to_onnx(model: Model) -> onnx.ModelProto:
    """Return what `model` computes without dropout, for batches and sequences of any length.

    Inputs: `inputs`, (batch, steps, features), or `tokens`, (batch, steps), int64; and but for
    forecasts `lengths`, (batch,), int64, how many steps of each are real. The output, `outputs`,
    is that of `Model.forward`.
    """
    g, shape = Graph(), model.shape
    inputs: dict[str, tuple[int, list[str | int]]] = {}
    if model.embedding is None:
        inputs["inputs"] = (TensorProto.FLOAT, ["batch", "steps", shape.features])
        x = "inputs"
    else:
        inputs["tokens"] = (TensorProto.INT64, ["batch", "steps"])
        x = g.op("Gather", model.embedding.weight, "tokens")
    lengths = real = ""
    if shape.task != "forecast":
        inputs["lengths"] = (TensorProto.INT64, ["batch"])
        lengths = g.op("Cast", "lengths", to=TensorProto.INT32)
        real = _real_steps(g, x)
    x = g.op("Transpose", x, perm=[1, 0, 2])  # (steps, batch, features)
    for stack in model.recurrent.stacks:
        x, states = add_layers(g, stack, x, lengths)
    x = g.op("Transpose", x, perm=[1, 0, 2])  # (batch, steps, width)

    out: list[str | int]
    if model.pooling is None:
        y, out = _linear(g, model.head, x), ["batch", "steps", shape.classes]
    else:
        pooled = _pool(g, model.pooling, x, states[0], real)
        y, out = _head(g, model.head, [pooled, *states[1:]], shape)
    return g.to_model(inputs, {"outputs": (y, out)})


def _real_steps(g: Graph, x: str) -> str:
    """Add which steps of (batch, steps, ...) are real, (batch, steps, 1)."""
    n_steps = g.op("Gather", g.op("Shape", x), np.array(1))
    step = g.op("Range", np.array(0), n_steps, np.array(1))  # (steps,)
    real = g.op("Less", step, g.op("Unsqueeze", "lengths", axes(1)))
    return g.op("Unsqueeze", real, axes(2))


def _pool(g: Graph, pooling: nn.Module, outputs: str, last: str, real: str) -> str:
    """Add what a pooling makes of (batch, steps, width): (batch, width)."""
    if isinstance(pooling, Last):
        return last
    if isinstance(pooling, Max):
        return g.op("ReduceMax", _or(g, real, outputs, -np.inf), axes=[1], keepdims=0)
    outputs = _or(g, real, outputs, 0.0)  # ONNX leaves it open what is put out where a step pads
    if isinstance(pooling, Mean):
        if not real:
            return g.op("ReduceMean", outputs, axes=[1], keepdims=0)
        total = g.op("ReduceSum", outputs, axes(1), keepdims=0)
        count = g.op("Unsqueeze", g.op("Cast", "lengths", to=TensorProto.FLOAT), axes(1))
        return g.op("Div", total, count)
    assert isinstance(pooling, Attention)
    query = g.op("Unsqueeze", _linear(g, pooling.query, last), axes(1))
    hidden = g.op("Tanh", g.op("Add", query, _linear(g, pooling.key, outputs)))
    energies = _or(g, real, _linear(g, pooling.energy, hidden), -np.inf)  # (batch, steps, 1)
    weights = g.op("Transpose", g.op("Softmax", energies, axis=1), perm=[0, 2, 1])
    return g.op("Squeeze", g.op("MatMul", weights, outputs), axes(1))


def _or(g: Graph, real: str, x: str, otherwise: float) -> str:
    """Add what puts a number in place of steps that are not real."""
    return g.op("Where", real, x, np.array(otherwise, np.float32)) if real else x


def _head(
    g: Graph, head: nn.Module, states: list[str], shape: Shape
) -> tuple[str, list[str | int]]:
    """Add the head of a vector that was pooled; return what it puts out, and its shape."""
    if shape.classes:
        return _linear(g, head, states[0]), ["batch", shape.classes]
    quantiles = [len(shape.quantiles)] if shape.quantiles else []
    out: list[str | int] = ["batch", shape.horizon, shape.targets, *quantiles]
    if isinstance(head, Recursive):
        return _decode(g, head, states), out
    return _as_values(g, _linear(g, head, states[0]), shape), out


def _decode(g: Graph, head: Recursive, states: list[str]) -> str:
    """Add a loop over the horizon; return (batch, horizon, targets[, quantiles])."""
    shape = head.shape
    states = [
        s if isinstance(bridge, nn.Identity) else _linear(g, bridge, s)
        for bridge, s in zip(head.bridges, states, strict=True)
    ]
    batch = g.op("Slice", g.op("Shape", states[0]), axes(0), axes(1))  # (1,)
    size = g.op("Concat", batch, axes(shape.targets), axis=0)
    begin = g.op("Expand", head.begin, size)  # (batch, targets)

    def step(g: Graph, before: list[str]) -> tuple[list[str], str]:
        x, *states = before
        _, states = add_layers(g, head.layer, g.op("Unsqueeze", x, axes(0)), "", states)
        values = _as_values(g, _linear(g, head.head, states[0]), shape)
        values = g.op("Squeeze", values, axes(1))  # (batch, targets[, quantiles])
        x = values
        if shape.quantiles:
            x = g.op("Gather", values, np.array(middle_at(shape)), axis=2)
        return [x, *states], values

    values = g.loop(shape.horizon, [begin, *states], step)  # (horizon, batch, targets[, quantiles])
    return g.op("Transpose", values, perm=[1, 0, 2, 3] if shape.quantiles else [1, 0, 2])


def _as_values(g: Graph, numbers: str, shape: Shape) -> str:
    """Add `tuner.training.values.as_values`."""
    if not shape.quantiles:
        return g.op("Reshape", numbers, axes(0, -1, shape.targets))
    n = len(shape.quantiles)
    numbers = g.op("Reshape", numbers, axes(0, -1, shape.targets, n))
    lowest = g.op("Slice", numbers, axes(0), axes(1), axes(3))
    if n == 1:
        return lowest
    steps = g.op("Softplus", g.op("Slice", numbers, axes(1), axes(n), axes(3)))
    higher = g.op("Add", lowest, g.op("CumSum", steps, np.array(3)))
    return g.op("Concat", lowest, higher, axis=3)


def _linear(g: Graph, layer: nn.Module, x: str) -> str:
    """Add what a linear layer does to the last axis."""
    assert isinstance(layer, nn.Linear)
    product = g.op("MatMul", x, layer.weight.T)
    # A layer may be without: torch's types say otherwise.
    bias: torch.Tensor | None = layer.bias
    return product if bias is None else g.op("Add", product, bias)
