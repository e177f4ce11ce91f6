"""A trained model as a graph of ONNX, part by part as in `tuner.training.model`."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto
from torch import nn

from tuner.training.decoder import Decoder, InSegments, Recursive
from tuner.training.ensemble import Ensemble
from tuner.training.graph import Graph
from tuner.training.linear_path import SequencePath
from tuner.training.model import Model
from tuner.training.onnx_known_future import (
    add_beside,
    add_categories,
    add_local_head,
    add_parts,
)
from tuner.training.onnx_layers import add_layers, axes
from tuner.training.onnx_reading import (
    add_convolution,
    add_decomposition,
    add_linear_path,
    add_normalization,
    add_segments,
    put_back,
    zero_padding,
)
from tuner.training.onnx_values import add_linear, add_values
from tuner.training.pooling import Attention, Last, Max, Mean
from tuner.training.translator import Translator
from tuner.training.values import middle_at

__all__ = ["to_onnx"]


def to_onnx(model: Model | Ensemble) -> onnx.ModelProto:
    """Return what `model` computes without dropout, for batches and sequences of any length.

    With a linear path over whole sequences they have the one length that the graph's input says.

    Inputs: `inputs`, (batch, steps, features), the last ones being rows to come where columns are
    known there, or `tokens`, (batch, steps), int64; and but for
    windows `lengths`, (batch,), int64, how many steps of each are real. The output, `outputs`,
    is that of `Model.forward`; of an ensemble, whose models read the same inputs, their mean.
    """
    g, shape = Graph(), model.shape
    inputs: dict[str, tuple[int, list[str | int]]] = {}
    if shape.vocabulary:
        inputs["tokens"] = (TensorProto.INT64, ["batch", "steps"])
    else:
        fixed = isinstance(model.linear_path, SequencePath)
        steps = shape.window if fixed else "steps"
        inputs["inputs"] = (TensorProto.FLOAT, ["batch", steps, shape.inputs])
    if not shape.of_series:
        inputs["lengths"] = (TensorProto.INT64, ["batch"])
    if shape.task == "translate":
        inputs["prefix"] = (TensorProto.INT64, ["batch", "said"])
    models = list(model.models) if isinstance(model, Ensemble) else [model]
    said = [_add(g, each) for each in models if isinstance(each, Model)]
    y = _mean(g, [y for y, _ in said], bool(shape.classes))
    return g.to_model(inputs, {"outputs": (y, said[0][1])})


def _mean(g: Graph, outputs: list[str], classes: bool) -> str:
    """Add `tuner.training.ensemble.mean_outputs`."""
    if len(outputs) == 1:
        return outputs[0]
    if not classes:
        return g.op("Mean", *outputs)
    logs = [g.op("LogSoftmax", y, axis=-1) for y in outputs]
    largest = g.op("Max", *logs)  # that the mean of what is left has a logarithm
    shares = [g.op("Exp", g.op("Sub", log, largest)) for log in logs]
    return g.op("Add", largest, g.op("Log", g.op("Mean", *shares)))


def _add(g: Graph, model: Model) -> tuple[str, list[str | int]]:
    """Add a model; return what it puts out, and its shape."""
    shape = model.shape
    embedded = known = ""
    if model.categories is not None:
        embedded, known = add_categories(g, model.categories, "inputs")
    x, coming = add_parts(g, "inputs", shape)
    ahead = add_beside(g, coming, known)
    if model.embedding is not None:
        x = g.op("Gather", model.embedding.weight, "tokens")
    lengths = real = ""
    if not shape.of_series:
        lengths, real = "lengths", _real_steps(g, x, "lengths")
    if model.normalization is not None:
        x, level = add_normalization(g, model.normalization, x)
    window = x
    if model.decomposition is not None:
        x = add_decomposition(g, model.decomposition, x)
    x = add_beside(g, x, embedded)
    if model.convolution is not None:
        x = add_convolution(g, model.convolution, zero_padding(g, x, real))
    if model.segments is not None:
        x, lengths = add_segments(g, model.segments, zero_padding(g, x, real), lengths)
        real = _real_steps(g, x, lengths) if lengths else ""
    counts = g.op("Cast", lengths, to=TensorProto.INT32) if lengths else ""
    x = g.op("Transpose", x, perm=[1, 0, 2])  # (steps, batch, features)
    for stack in model.recurrent.stacks:
        x, states = add_layers(g, stack, x, counts)
    x = g.op("Transpose", x, perm=[1, 0, 2])  # (batch, steps, width)

    if model.pooling is None:
        return add_linear(g, model.head, x), ["batch", "steps", shape.classes or shape.targets]
    pooled = _pool(g, model.pooling, x, states[0], real, lengths)
    if isinstance(model.head, Translator):
        return _say(g, model.head, [pooled, *states[1:]]), ["batch", "said", shape.classes]
    y, out = _head(g, model, [pooled, *states[1:]], ahead)
    if model.linear_path is not None:
        linear = add_linear_path(g, model.linear_path, window, coming)
        y = g.op("Add", y, g.op("Unsqueeze", linear, axes(3)) if shape.quantiles else linear)
    if model.normalization is not None:
        y = put_back(g, y, level, shape)
    return y, out


def _real_steps(g: Graph, x: str, lengths: str) -> str:
    """Add which of so many steps of (batch, steps, ...) are real, (batch, steps, 1)."""
    n_steps = g.op("Gather", g.op("Shape", x), np.array(1))
    step = g.op("Range", np.array(0), n_steps, np.array(1))  # (steps,)
    real = g.op("Less", step, g.op("Unsqueeze", lengths, axes(1)))
    return g.op("Unsqueeze", real, axes(2))


def _pool(g: Graph, pooling: nn.Module, outputs: str, last: str, real: str, lengths: str) -> str:
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
        count = g.op("Unsqueeze", g.op("Cast", lengths, to=TensorProto.FLOAT), axes(1))
        return g.op("Div", total, count)
    assert isinstance(pooling, Attention)
    query = g.op("Unsqueeze", add_linear(g, pooling.query, last), axes(1))
    hidden = g.op("Tanh", g.op("Add", query, add_linear(g, pooling.key, outputs)))
    energies = _or(g, real, add_linear(g, pooling.energy, hidden), -np.inf)  # (batch, steps, 1)
    weights = g.op("Transpose", g.op("Softmax", energies, axis=1), perm=[0, 2, 1])
    return g.op("Squeeze", g.op("MatMul", weights, outputs), axes(1))


def _or(g: Graph, real: str, x: str, otherwise: float) -> str:
    """Add what puts a number in place of steps that are not real."""
    return g.op("Where", real, x, np.array(otherwise, np.float32)) if real else x


def _head(g: Graph, model: Model, states: list[str], coming: str) -> tuple[str, list[str | int]]:
    """Add the head of a vector that was pooled; return what it puts out, and its shape."""
    head, shape = model.head, model.shape
    quantiles = [len(shape.quantiles)] if shape.quantiles else []
    out: list[str | int] = ["batch", shape.horizon, shape.targets, *quantiles]
    if isinstance(head, Decoder):
        states = [
            s if isinstance(bridge, nn.Identity) else add_linear(g, bridge, s)
            for bridge, s in zip(head.bridges, states, strict=True)
        ]
        if isinstance(head, InSegments):
            return _decode_pieces(g, head, states, coming), out
        assert isinstance(head, Recursive)
        return _decode_steps(g, head, states, coming), out
    numbers = add_linear(g, head, states[0])
    if model.local is not None:
        numbers = g.op("Add", numbers, add_local_head(g, model.local, states[0], coming))
    if shape.classes:
        return numbers, ["batch", shape.classes]
    return add_values(g, numbers, shape), out


def _say(g: Graph, head: Translator, states: list[str]) -> str:
    """Add what comes after each token that was said, (batch, said, tokens)."""
    states = [
        s if isinstance(bridge, nn.Identity) else add_linear(g, bridge, s)
        for bridge, s in zip(head.bridges, states, strict=True)
    ]
    x = g.op("Transpose", g.op("Gather", head.embedding.weight, "prefix"), perm=[1, 0, 2])
    x, _ = add_layers(g, head.layer, x, "", states)
    return add_linear(g, head.head, g.op("Transpose", x, perm=[1, 0, 2]))


def _decode_pieces(g: Graph, head: InSegments, states: list[str], coming: str) -> str:
    """Add one step of all pieces at once; return (batch, horizon, targets[, quantiles])."""
    pieces, units = head.begin.shape
    each = g.op("Unsqueeze", head.begin, axes(0))  # (1, pieces, units)
    batch = g.op("Slice", g.op("Shape", states[0]), axes(0), axes(1))  # (1,)
    x = g.op("Expand", each, g.op("Concat", batch, axes(pieces, units), axis=0))
    if head.known is not None:
        behind = pieces * head.steps - head.shape.horizon
        rows = g.op("Pad", coming, axes(0, 0, 0, 0, behind, 0), np.array(0, np.float32))
        rows = g.op("Reshape", rows, axes(0, pieces, head.known.in_features))
        x = g.op("Add", x, add_linear(g, head.known, rows))
    x = g.op("Reshape", x, axes(1, -1, units))  # (1, batch * pieces, units)
    repeated = []
    for state, size in zip(states, head.sizes, strict=True):
        to = g.op("Concat", batch, axes(pieces, size), axis=0)
        state = g.op("Expand", g.op("Unsqueeze", state, axes(1)), to)
        repeated.append(g.op("Reshape", state, axes(-1, size)))
    _, states = add_layers(g, head.layer, x, "", repeated)
    numbers = add_linear(g, head.head, states[0])  # (batch * pieces, steps * numbers)
    numbers = g.op("Reshape", numbers, axes(-1, pieces * head.head.out_features))
    values = add_values(g, numbers, head.shape)
    return g.op("Slice", values, axes(0), axes(head.shape.horizon), axes(1))


def _decode_steps(g: Graph, head: Recursive, states: list[str], coming: str) -> str:
    """Add a loop over the horizon; return (batch, horizon, targets[, quantiles])."""
    shape = head.shape
    batch = g.op("Slice", g.op("Shape", states[0]), axes(0), axes(1))  # (1,)
    size = g.op("Concat", batch, axes(shape.targets), axis=0)
    begin = g.op("Expand", head.begin, size)  # (batch, targets)

    def step(g: Graph, before: list[str]) -> tuple[list[str], str]:
        x, *states = before
        if coming:
            x = g.op("Concat", x, g.op("Gather", coming, g.time, axis=1), axis=1)
        _, states = add_layers(g, head.layer, g.op("Unsqueeze", x, axes(0)), "", states)
        values = add_values(g, add_linear(g, head.head, states[0]), shape)
        values = g.op("Squeeze", values, axes(1))  # (batch, targets[, quantiles])
        x = values
        if shape.quantiles:
            x = g.op("Gather", values, np.array(middle_at(shape)), axis=2)
        return [x, *states], values

    values = g.loop(shape.horizon, [begin, *states], step)  # (horizon, batch, targets[, quantiles])
    return g.op("Transpose", values, perm=[1, 0, 2, 3] if shape.quantiles else [1, 0, 2])
