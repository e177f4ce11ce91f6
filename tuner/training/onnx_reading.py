"""What stands before the recurrent layers, and around them, as operators of ONNX."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tuner.data import Shape
from tuner.training.convolution import Convolution
from tuner.training.decomposition import Decomposition
from tuner.training.graph import Graph
from tuner.training.linear_path import LinearPath, SequencePath
from tuner.training.normalization import SPREAD, Normalization
from tuner.training.onnx_known_future import add_known_inputs
from tuner.training.onnx_layers import axes
from tuner.training.onnx_values import add_linear
from tuner.training.segments import Segments

__all__ = [
    "Level",
    "add_convolution",
    "add_decomposition",
    "add_linear_path",
    "add_normalization",
    "add_segments",
    "put_back",
    "zero_padding",
]

Level = tuple[str, str]
"""Shift and spread of a batch, (batch, 1, targets) each; no spread is ""."""


def add_normalization(g: Graph, normalization: Normalization, x: str) -> tuple[str, Level]:
    """Add what takes the level off (batch, window, features); return that and the level."""
    own = g.op("Gather", x, np.array(normalization.columns), axis=2)  # (batch, window, targets)
    spread = ""
    if normalization.kind == "last":
        shift = g.op("Gather", own, axes(-1), axis=1)
    else:
        shift = g.op("ReduceMean", own, axes=[1], keepdims=1)
    if normalization.kind == "standard":
        away = g.op("Sub", own, shift)
        variance = g.op("ReduceMean", g.op("Mul", away, away), axes=[1], keepdims=1)
        spread = g.op("Sqrt", g.op("Add", variance, np.array(SPREAD, np.float32)))
    takes = normalization.takes
    off = g.op("Mul", g.op("Gather", shift, normalization.of, axis=2), takes)
    x = g.op("Sub", x, off)
    if spread:
        divides = normalization.over
        over = g.op("Mul", g.op("Gather", spread, normalization.of, axis=2), divides)
        x = g.op("Div", x, g.op("Add", over, 1 - divides))
    return x, (shift, spread)


def put_back(g: Graph, values: str, level: Level, shape: Shape) -> str:
    """Add what puts a level back on (batch, horizon, targets[, quantiles])."""
    shift, spread = level
    if shape.quantiles:
        shift = g.op("Unsqueeze", shift, axes(3))
        spread = g.op("Unsqueeze", spread, axes(3)) if spread else ""
    return g.op("Add", g.op("Mul", values, spread) if spread else values, shift)


def add_decomposition(g: Graph, decomposition: Decomposition, x: str) -> str:
    """Add what splits the targets' columns of (batch, window, inputs)."""
    others = np.array([i for i in range(decomposition.inputs) if i not in decomposition.columns])
    own = g.op("Gather", x, np.array(decomposition.columns), axis=2)  # (batch, window, targets)
    if decomposition.length:
        ends = axes(0, decomposition.before, 0, 0, decomposition.behind, 0)
        padded = g.op("Transpose", g.op("Pad", own, ends, mode="edge"), perm=[0, 2, 1])
        parts = g.op("AveragePool", padded, kernel_shape=[decomposition.length])
        parts = g.op("Transpose", parts, perm=[0, 2, 1])
        rest = g.op("Sub", own, parts)
    else:
        first = decomposition.inputs - decomposition.modes * len(decomposition.columns)
        rest, parts = own, ""
        for mode in range(decomposition.modes):
            at = np.arange(first + mode, decomposition.inputs, decomposition.modes)
            rest = g.op("Sub", rest, g.op("Gather", x, at, axis=2))
    kept = [g.op("Gather", x, others, axis=2)] if len(others) else []
    return g.op("Concat", rest, *kept, *([parts] if parts else []), axis=2)


def add_linear_path(g: Graph, path: LinearPath | SequencePath, x: str, coming: str) -> str:
    """Add a linear path from (batch, window, features) to (batch, horizon, targets), or logits.

    Args:
        g: the graph.
        path: of the model.
        x: the window.
        coming: (batch, horizon, known columns); "" where nothing is known of the rows to come.
    """
    if isinstance(path, SequencePath):
        said = add_linear(g, path.linear, g.op("Flatten", x, axis=1))
        return said if path.classes else g.op("Unsqueeze", said, axes(1))
    if path.reads_all:
        columns = g.op("Transpose", x, perm=[0, 2, 1])  # (batch, features, window)
        windows = g.op("Unsqueeze", g.op("Flatten", columns, axis=1), axes(1))
    else:
        own = g.op("Gather", x, np.array(path.columns), axis=2)
        windows = g.op("Transpose", own, perm=[0, 2, 1])  # (batch, targets, window)
    if path.n_coming:
        windows = g.op("Concat", windows, add_known_inputs(g, coming, path.targets), axis=2)
    return g.op("Transpose", add_linear(g, path.linear, windows), perm=[0, 2, 1])


def zero_padding(g: Graph, x: str, real: str) -> str:
    """Add what puts zeros in the steps of (batch, steps, width) that are not real.

    Whoever runs the model pads with whatever is at hand.
    """
    return g.op("Where", real, x, np.array(0, np.float32)) if real else x


def add_convolution(g: Graph, convolution: Convolution, x: str) -> str:
    """Add a convolution of (batch, steps, inputs), as one operator."""
    kernel = convolution.kernel
    weight: Tensor = convolution.linear.weight
    x = g.op("Transpose", x, perm=[0, 2, 1])
    y = g.op(
        "Conv",
        x,
        weight.view(len(weight), -1, kernel),
        convolution.linear.bias,
        kernel_shape=[kernel],
        pads=[convolution.before, kernel - 1 - convolution.before],
    )  # (batch, channels, steps)
    return g.op("Transpose", g.op("Relu", y), perm=[0, 2, 1])


def add_segments(g: Graph, segments: Segments, x: str, lengths: str) -> tuple[str, str]:
    """Add the segments of (batch, steps, inputs), and in how many of them so many steps are.

    Args:
        g: the graph.
        segments: of the model.
        x: with zeros where it pads.
        lengths: (batch,), int64; "" where all steps are real.
    """
    length = np.array(segments.length)
    n_steps = g.op("Gather", g.op("Shape", x), np.array(1))
    missing = g.op("Mod", g.op("Neg", n_steps), length)
    if segments.in_front:
        steps = g.op("Range", g.op("Neg", missing), n_steps, np.array(1))
        x = g.op("Gather", x, g.op("Max", steps, np.array(0)), axis=1)
    else:
        behind = g.op("Unsqueeze", missing, axes(0))
        pads = g.op("Concat", axes(0, 0, 0, 0), behind, axes(0), axis=0)
        x = g.op("Pad", x, pads, np.array(0, np.float32))
    x = g.op("Reshape", x, axes(0, -1, segments.linear.in_features))
    if lengths:
        lengths = g.op("Div", g.op("Add", lengths, length - 1), length)
    return g.op("Relu", add_linear(g, segments.linear, x)), lengths
