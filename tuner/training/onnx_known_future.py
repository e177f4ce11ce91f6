"""What is known of the rows to come, as operators of ONNX."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tuner.data import Shape
from tuner.training.categories import Categories
from tuner.training.graph import Graph
from tuner.training.known_future import LocalHead, numbers_alone
from tuner.training.onnx_layers import axes
from tuner.training.onnx_values import add_linear

__all__ = ["add_beside", "add_categories", "add_known_inputs", "add_local_head", "add_parts"]

_END = np.iinfo(np.int64).max


def add_parts(g: Graph, x: str, shape: Shape) -> tuple[str, str]:
    """Add `tuner.training.known_future.part`; what is known is "" where nothing is."""
    if shape.categories:
        x = g.op("Mul", x, np.array(numbers_alone(shape), np.float32))
    if not shape.ahead:
        return x, ""
    window = g.op("Slice", x, axes(0), axes(-shape.ahead), axes(1))
    rows = g.op("Slice", x, axes(-shape.ahead), axes(_END), axes(1))
    return window, g.op("Gather", rows, np.array(shape.known_columns), axis=2)


def add_categories(g: Graph, categories: Categories, x: str) -> tuple[str, str]:
    """Add the embeddings of (batch, steps, inputs): of the window, and of rows to come or ""."""
    found = []
    for column, vectors in zip(categories.columns, categories.vectors, strict=True):
        numbers = g.op("Cast", g.op("Gather", x, np.array(column), axis=2), to=TensorProto.INT64)
        found.append(g.op("Gather", vectors, numbers))
    if not categories.ahead:
        return g.op("Concat", *found, axis=2), ""
    before, behind = axes(-categories.ahead), axes(_END)
    windows = [g.op("Slice", of, axes(0), before, axes(1)) for of in found]
    rows = [g.op("Slice", found[at], before, behind, axes(1)) for at in categories.known]
    return g.op("Concat", *windows, axis=2), g.op("Concat", *rows, axis=2) if rows else ""


def add_beside(g: Graph, x: str, embedded: str) -> str:
    """Add what puts embeddings behind numbers; "" is none."""
    return g.op("Concat", x, embedded, axis=2) if embedded else x


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
