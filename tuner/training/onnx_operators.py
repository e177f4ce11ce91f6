"""Operators of ONNX for the parts of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tuner.data import Shape
from tuner.experiment.hyperparameters import CELLS, Cell
from tuner.training.layers import (
    SPREAD,
    Categories,
    Convolution,
    Decomposition,
    LocalHead,
    Normalization,
    Segments,
    numeric_columns,
)
from tuner.training.linear_path import LinearPath, SequencePath

OPSET = 17
_IR_VERSION = 8  # of the file: it came with that opset; runtimes since 2022 read it
_PEEPHOLES = (0, 2, 1)  # i, o, f of i, f, o
_END = np.iinfo(np.int64).max

Operand = str | Tensor | np.ndarray
"""An input of an operator: a value by its name, or a constant; "" for one that is left out."""

Level = tuple[str, str]
"""Shift and spread of a batch, (batch, 1, targets) each; no spread is ""."""


class Graph:
    """Operators in the order in which they run.

    The body of a loop is a graph of its own that sees the values of the one around it; names
    differ among all of them, and the constants stand in the outermost.
    """

    def __init__(self, around: Graph | None = None) -> None:
        self._outermost: Graph = self if around is None else around._outermost
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []
        self._n_names = 0
        self.time = ""
        """Of the body of a loop: the number of the step, from 0, int64."""

    def op(self, kind: str, *inputs: Operand, **attributes: Any) -> str:
        """Add an operator of ONNX with one output, and return the output's name."""
        return self.ops(1, kind, *inputs, **attributes)[0]

    def ops(self, n_outputs: int, kind: str, *inputs: Operand, **attributes: Any) -> list[str]:
        """Add an operator, and return the names of its outputs."""
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        outputs = [self._name(kind.lower()) for _ in range(n_outputs)]
        self._nodes.append(helper.make_node(kind, names, outputs, outputs[0], **attributes))
        return outputs

    def constant(self, array: Tensor | np.ndarray) -> str:
        """Add a constant, and return its name."""
        if isinstance(array, Tensor):
            array = array.detach().cpu().numpy()
        name = self._name("constant")
        self._outermost._constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def loop(self, count: int, states: Sequence[str], step: Step) -> str:
        """Repeat a step; return its outputs, stacked on a first axis.

        Args:
            count: of the steps.
            states: of the first step.
            step: adds itself to a graph.
        """
        body = Graph(around=self)
        body.time, condition = self._name("time"), self._name("go_on")
        before = [self._name("state") for _ in states]
        after, output = step(body, before)
        ends = [body.op("Identity", value) for value in (condition, *after, output)]
        scalar = helper.make_tensor_value_info
        first = [scalar(body.time, TensorProto.INT64, []), scalar(condition, TensorProto.BOOL, [])]
        last = [scalar(ends[0], TensorProto.BOOL, []), *map(_floats, ends[1:])]
        name = self._name("body")
        body_proto = helper.make_graph(body._nodes, name, [*first, *map(_floats, before)], last)
        steps = np.array(count, np.int64)
        return self.ops(len(states) + 1, "Loop", steps, "", *states, body=body_proto)[-1]

    def to_model(
        self,
        inputs: Mapping[str, tuple[int, Sequence[str | int]]],
        name: str,
        output: str,
        shape: Sequence[str | int],
    ) -> onnx.ModelProto:
        """Return the model.

        Args:
            inputs: type and shape by name; an axis of any length has a name.
            name: of the output.
            output: the value, of floats.
            shape: of the output.
        """
        self._nodes.append(helper.make_node("Identity", [output], [name], name))
        given = [helper.make_tensor_value_info(key, *of) for key, of in inputs.items()]
        returned = [_floats(name, shape)]
        graph = helper.make_graph(self._nodes, "model", given, returned, self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)

    def _name(self, kind: str) -> str:
        self._outermost._n_names += 1
        return f"{kind}_{self._outermost._n_names}"


Step = Callable[[Graph, list[str]], tuple[Sequence[str], str]]
"""Adds one step of a loop to a graph: maps its states to the next states and the step's output."""


def _floats(name: str, shape: Sequence[str | int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def cell_of(module: nn.Module) -> Cell | None:
    """Return the cell of recurrent layers; None for any other module."""
    name = type(module).__name__
    return next((c for c in CELLS.values() if c.module.rpartition(":")[2] == name), None)


def add_layers(
    g: Graph, layers: nn.Module, x: str, lengths: str = "", states: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Add `tuner.training.recurrent.read`, with time as the first axis.

    Args:
        g: the graph.
        layers: from `make_layers`.
        x: (steps, batch, inputs).
        lengths: (batch,), int32; "" if all steps are real.
        states: before the first step, each (batch, size), of one unidirectional layer; zeros by
            default.

    Returns:
        The outputs of the last layer, (steps, batch, width), and its last states, each (batch,
        size), both directions side by side.
    """
    final: list[str] = []
    for i in range(layers.num_layers if isinstance(layers, nn.RNNBase) else 1):
        x, final = _add_layer(g, layers, i, x, lengths, states)
    return x, final


def _add_layer(
    g: Graph, layers: nn.Module, i: int, x: str, lengths: str, states: Sequence[str]
) -> tuple[str, list[str]]:
    weights = dict(layers.named_parameters())
    cell = cell_of(layers)
    assert cell is not None, "other modules are no recurrent layers"
    kind = cell.operator
    ways = [way for way in (f"l{i}", f"l{i}_reverse") if f"weight_ih_{way}" in weights]

    def gathered(name: str) -> Tensor:
        """Return a weight or bias of both ways as the operator orders it, (ways, rows, ...)."""
        return torch.stack([_reorder(weights[f"{name}_{way}"], cell.gates) for way in ways])

    w, r = gathered("weight_ih"), gathered("weight_hh")
    units = w.shape[1] // len(cell.gates)
    b: Operand = ""
    if f"bias_ih_l{i}" in weights:
        b = torch.cat((gathered("bias_ih"), gathered("bias_hh")), dim=1)
    first = [g.op("Unsqueeze", state, axes(0)) for state in states]  # (1, batch, size)
    projection: Tensor | None = None
    if f"weight_hr_l{i}" in weights:
        # No operator projects. But of a layer's state m only the projection h = P m is ever read:
        # the operator keeps m itself, with U P in place of the weights U of h.
        projection = torch.stack([weights[f"weight_hr_{way}"] for way in ways])  # (ways, size, m)
        if first:  # the first h is no projection, and is read like x
            x = g.op("Concat", x, first[0], axis=2)
            w, r, first[0] = torch.cat((w, r), dim=2), r.new_zeros(1, 4 * units, units), ""
        else:
            r = (r.double() @ projection.double()).float()

    inputs: list[Operand] = [w, r, b, lengths, *first]
    if "weight_peephole" in weights:
        p = [_reorder(way.flatten(), _PEEPHOLES) for way in weights["weight_peephole"]]
        inputs = [*inputs, *[""] * (6 - len(inputs)), torch.stack(p)]
    options: dict[str, Any] = {"linear_before_reset": 1} if kind == "GRU" else {}
    if isinstance(layers, nn.RNN):
        options["activations"] = [layers.nonlinearity.capitalize()] * len(ways)
    direction = "bidirectional" if len(ways) == 2 else "forward"
    y, *final = g.ops(
        1 + cell.n_states, kind, x, *inputs, hidden_size=units, direction=direction, **options
    )  # (steps, ways, batch, units), and each (ways, batch, units)
    if projection is not None:
        project = projection.transpose(1, 2)  # (ways, m, size)
        y, final[0] = g.op("MatMul", y, project), g.op("MatMul", final[0], project)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), axes(0, 0, -1))
    return y, [g.op("Reshape", g.op("Transpose", s, perm=[1, 0, 2]), axes(0, -1)) for s in final]


def axes(*numbers: int) -> np.ndarray:
    """Return the axes, or the shape, that an operator reads as a constant."""
    return np.array(numbers, np.int64)


def _reorder(weight: Tensor, order: Sequence[int]) -> Tensor:
    """Return the gates of (gates * units, ...) in another order."""
    gates = weight.detach().chunk(len(order))
    return torch.cat([gates[at] for at in order])


def add_linear(g: Graph, layer: nn.Module, x: str) -> str:
    """Add a linear layer over the last axis."""
    assert isinstance(layer, nn.Linear)
    product = g.op("MatMul", x, layer.weight.T)
    bias: Tensor | None = layer.bias  # torch's types have no None
    return product if bias is None else g.op("Add", product, bias)


def add_values(g: Graph, numbers: str, shape: Shape) -> str:
    """Add `tuner.training.layers.as_values`."""
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


def add_split(g: Graph, x: str, shape: Shape) -> tuple[str, str]:
    """Add `tuner.training.layers.split_future`; "" if no columns are known ahead."""
    if shape.categories:
        x = g.op("Mul", x, np.array(numeric_columns(shape), np.float32))
    if not shape.ahead:
        return x, ""
    window = g.op("Slice", x, axes(0), axes(-shape.ahead), axes(1))
    rows = g.op("Slice", x, axes(-shape.ahead), axes(_END), axes(1))
    return window, g.op("Gather", rows, np.array(shape.known_columns), axis=2)


def add_categories(g: Graph, categories: Categories, x: str) -> tuple[str, str]:
    """Add the embeddings of (batch, steps, inputs): of the window, and of future rows or ""."""
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
    """Add `tuner.training.layers.beside`; "" is no embedding."""
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
    """Add the inputs of a linear path from future rows, (batch, targets, inputs)."""
    known = g.op("Flatten", g.op("Transpose", coming, perm=[0, 2, 1]), axis=1)
    each = np.eye(targets, dtype=np.float32)[:, :, None]  # (targets, targets, 1)
    placed = g.op("Mul", each, g.op("Unsqueeze", known, axes(1, 2)))  # (batch, targets, targets, n)
    return g.op("Reshape", placed, axes(0, targets, -1))


def add_normalization(g: Graph, normalization: Normalization, x: str) -> tuple[str, Level]:
    """Add the normalization of (batch, window, features); return the result and the level."""
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


def add_denormalization(g: Graph, values: str, level: Level, shape: Shape) -> str:
    """Add the inverse of a normalization, of (batch, horizon, targets[, quantiles])."""
    shift, spread = level
    if shape.quantiles:
        shift = g.op("Unsqueeze", shift, axes(3))
        spread = g.op("Unsqueeze", spread, axes(3)) if spread else ""
    return g.op("Add", g.op("Mul", values, spread) if spread else values, shift)


def add_decomposition(g: Graph, decomposition: Decomposition, x: str) -> str:
    """Add the decomposition of the targets in (batch, window, inputs)."""
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
    """Add a linear path of (batch, window, features) and (batch, horizon, known columns) or ""."""
    if isinstance(path, SequencePath):
        y = add_linear(g, path.linear, g.op("Flatten", x, axis=1))
        return y if path.classes else g.op("Unsqueeze", y, axes(1))
    if path.reads_all:
        columns = g.op("Transpose", x, perm=[0, 2, 1])  # (batch, features, window)
        windows = g.op("Unsqueeze", g.op("Flatten", columns, axis=1), axes(1))
    else:
        own = g.op("Gather", x, np.array(path.columns), axis=2)
        windows = g.op("Transpose", own, perm=[0, 2, 1])  # (batch, targets, window)
    if path.n_coming:
        windows = g.op("Concat", windows, add_known_inputs(g, coming, path.targets), axis=2)
    return g.op("Transpose", add_linear(g, path.linear, windows), perm=[0, 2, 1])


def mask(g: Graph, x: str, real: str, value: float = 0.0) -> str:
    """Replace the padded steps of (batch, steps, width) by a value; `real` is "" for no padding."""
    return g.op("Where", real, x, np.array(value, np.float32)) if real else x


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
    """Add the segments of (batch, steps, inputs), zeros at padded steps; return their lengths too.

    The lengths are (batch,), int64; "" if all steps are real.
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
