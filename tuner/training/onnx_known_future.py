"""What is known of the rows to come, as operators of ONNX."""

from __future__ import annotations

import numpy as np

from tuner.data import Shape
from tuner.training.graph import Graph
from tuner.training.known_future import LocalHead
from tuner.training.onnx_layers import axes
from tuner.training.onnx_values import add_linear

__all__ = ["add_known_inputs", "add_local_head", "add_parts"]

_END = np.iinfo(np.int64).max


def add_parts(g: Graph, x: str, shape: Shape) -> tuple[str, str]:
    """Add `tuner.training.known_future.part`; what is known is "" where nothing is."""
    if not shape.ahead:
        return x, ""
    window = g.op("Slice", x, axes(0), axes(-shape.ahead), axes(1))
    rows = g.op("Slice", x, axes(-shape.ahead), axes(_END), axes(1))
    return window, g.op("Gather", rows, np.array(shape.known_columns), axis=2)


def add_local_head(g: Graph, head: LocalHead, pooled: str, coming: str) -> str:
    """Add a local head of (batch, width) and (batch, horizon, known)."""
    steps = g.op("Slice", g.op("Shape", coming), axes(1), axes(2))  # (1,)
    batch = g.op("Slice", g.op("Shape", coming), axes(0), axes(1))
    width = head.hidden.in_features - head.known
    each = g.op("Concat", batch, steps, axes(width), axis=0)
    state = g.op("Expand", g.op("Unsqueeze", pooled, axes(1)), each)
    hidden = g.op("Relu", add_linear(g, head.hidden, g.op("Concat", state, coming, axis=2)))
    return g.op("Flatten", add_linear(g, head.out, hidden), axis=1)


def add_known_inputs(g: Graph, coming: str, targets: int) -> str:
    """Add what a linear path reads of the rows to come, (batch, targets, inputs)."""
    known = g.op("Flatten", g.op("Transpose", coming, perm=[0, 2, 1]), axis=1)
    each = np.eye(targets, dtype=np.float32)[:, :, None]  # (targets, targets, 1)
    placed = g.op("Mul", each, g.op("Unsqueeze", known, axes(1, 2)))  # (batch, targets, targets, n)
    return g.op("Reshape", placed, axes(0, targets, -1))
