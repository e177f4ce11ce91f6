"""Linear layers, and the values or quantiles that they say, as operators of ONNX."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from tuner.data import Shape
from tuner.training.graph import Graph
from tuner.training.onnx_layers import axes

__all__ = ["add_linear", "add_values"]


def add_linear(g: Graph, layer: nn.Module, x: str) -> str:
    """Add what a linear layer does to the last axis."""
    assert isinstance(layer, nn.Linear)
    product = g.op("MatMul", x, layer.weight.T)
    # A layer may be without: torch's types say otherwise.
    bias: Tensor | None = layer.bias
    return product if bias is None else g.op("Add", product, bias)


def add_values(g: Graph, numbers: str, shape: Shape) -> str:
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
