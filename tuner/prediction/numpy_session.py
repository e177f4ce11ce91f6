"""Runs exported graphs with numpy alone, in place of onnxruntime.

A model file holds protocol buffers, whose messages are fields of a number, a kind and a value:
https://protobuf.dev/programming-guides/encoding and
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. The operators are those of
`tuner.training.onnx_export`, as in the ONNX standard (opset 17): https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

_MOST_STEPS = 10_000  # of a loop: an exported one takes a step for each of the horizon

Array = np.ndarray

_DTYPES: dict[int, type] = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}


@dataclass(frozen=True)
class Node:
    """One operator."""

    kind: str
    inputs: list[str]  # "" for one that is left out
    outputs: list[str]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Value:
    """An input or output of the graph; any size is None."""

    name: str
    shape: list[int | None]


@dataclass(frozen=True)
class Graph:
    """Operators in the order in which they run."""

    nodes: list[Node]
    constants: dict[str, np.ndarray]
    inputs: list[Value]
    outputs: list[Value]


def read_graph(file: bytes) -> Graph:
    """Return the graph of a model.

    Raises:
        ValueError: the file is no model, or has a part that no exported model has.
    """
    try:
        for graph in _fields(memoryview(file))[7]:
            return _graph(graph)
    except (IndexError, struct.error, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"is damaged: {error}") from None
    except RecursionError:
        raise ValueError("is damaged: its graphs are nested too deeply") from None
    raise ValueError("holds no graph")


def _fields(message: memoryview) -> dict[int, list[Any]]:
    """Return the values of the fields of a message, by number, in their order."""
    fields, at = defaultdict[int, list[Any]](list), 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            number, at = _varint(message, at)
            fields[key >> 3].append(number)
            continue
        if kind == 2:
            size, at = _varint(message, at)
            if not 0 <= size <= len(message) - at:
                raise ValueError("is cut off")
            value: Any = message[at : at + size]
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            (value,) = struct.unpack("<d" if kind == 1 else "<f", message[at : at + size])
        else:
            raise ValueError(f"holds a field of kind {kind}")
        fields[key >> 3].append(value)
        at += size
    return fields


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            number &= (1 << 64) - 1
            return (number - (1 << 64) if number >= 1 << 63 else number), at
        if shift > 63:
            raise ValueError("holds a number of more than 64 bits")


def _numbers(values: list[Any]) -> list[int]:
    """Return the whole numbers of a repeated field, single or packed."""
    found = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(number)
    return found


def _bytes(value: Any) -> bytes:
    """Return the bytes of a field; `bytes` of a number would be so many zeros."""
    if not isinstance(value, memoryview):
        raise TypeError(f"has the number {value} where bytes belong")
    return bytes(value)


def _text(value: Any) -> str:
    return _bytes(value).decode()


def _last_text(values: list[Any]) -> str:
    return _text(values[-1]) if values else ""


def _graph(message: memoryview) -> Graph:
    fields = _fields(message)
    inputs, outputs = ([_value(value) for value in fields[number]] for number in (11, 12))
    return Graph(list(map(_node, fields[1])), dict(map(_tensor, fields[5])), inputs, outputs)


def _node(message: memoryview) -> Node:
    fields = _fields(message)
    inputs, outputs = (list(map(_text, fields[number])) for number in (1, 2))
    return Node(_last_text(fields[4]), inputs, outputs, dict(map(_attribute, fields[5])))


def _attribute(message: memoryview) -> tuple[str, Any]:
    """Return the name and the value: a number, text, tensor or graph, or a list."""
    fields = _fields(message)
    single = [*fields[2], *fields[3], *map(_text, fields[4])]
    single += [*(_tensor(value)[1] for value in fields[5]), *map(_graph, fields[6])]
    several = [*_numbers(fields[8]), *map(_text, fields[9])]
    return _last_text(fields[1]), single[-1] if single else several


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    fields = _fields(message)
    raw = _bytes(fields[9][-1]) if fields[9] else b""
    kind = fields[2][-1] if fields[2] else 0
    if kind not in _DTYPES:
        raise ValueError(f"holds a tensor of type {kind}")
    array = np.frombuffer(raw, np.dtype(_DTYPES[kind]).newbyteorder("<"))
    return _last_text(fields[8]), array.reshape(_numbers(fields[1]))


def _value(message: memoryview) -> Value:
    """Read ValueInfoProto: the name, and the sizes in type.tensor_type.shape.dim."""
    fields = _fields(message)
    sizes = list[int | None]()
    for of_type in fields[2]:
        for tensors in _fields(of_type).values():
            for tensor in tensors:
                for shape in _fields(tensor)[2]:
                    sizes = [next(iter(_fields(d)[1][-1:]), None) for d in _fields(shape)[1]]
    return Value(_last_text(fields[1]), sizes)


class NumpySession:
    """The methods of `onnxruntime.InferenceSession` that predictions use, in numpy.

    Raises:
        ValueError: the file is no model, or has an unknown operator.
    """

    def __init__(self, file: bytes) -> None:
        self._graph = read_graph(file)
        _check(self._graph)

    def get_inputs(self) -> list[Value]:
        """Return names and shapes of the inputs."""
        return self._graph.inputs

    def get_outputs(self) -> list[Value]:
        """Return names and shapes of the outputs."""
        return self._graph.outputs

    def run(self, names: None, feed: Mapping[str, Array]) -> list[Array]:
        """Return all outputs for the inputs by name; `names` is for onnxruntime's interface."""
        values = _run(self._graph, {**self._graph.constants, **feed, "": None})
        return [values[output.name] for output in self._graph.outputs]


def _check(graph: Graph, *, inside: bool = False) -> None:
    for node in graph.nodes:
        if node.kind == "Loop" and not inside:
            body = node.attributes.get("body")
            if not isinstance(body, Graph):
                raise ValueError("has a Loop without a body")
            _check(body, inside=True)
        elif node.kind not in _LAYERS and node.kind not in _OPERATORS:
            where = " in a Loop" if inside else ""
            raise ValueError(f"has the operator {node.kind}{where}, which --numpy does not know")


def _run(graph: Graph, values: dict[str, Any]) -> dict[str, Any]:
    for node in graph.nodes:
        read = [values[name] for name in node.inputs]
        if node.kind == "Loop":
            found: Sequence[Array] = _loop(node, read, values)
        elif node.kind in _LAYERS:
            found = _LAYERS[node.kind](node.attributes, *read)
        else:
            found = [_OPERATORS[node.kind](node.attributes, *read)]
        values.update(zip(node.outputs, found, strict=False))
    return values


def _loop(node: Node, read: list[Array], around: dict[str, Any]) -> list[Array]:
    """Return the last states of a loop, and its outputs of all steps, stacked."""
    body: Graph = node.attributes["body"]
    count, _, *states = read
    if int(count) > _MOST_STEPS:
        raise ValueError(f"a Loop takes {int(count)} steps, and at most {_MOST_STEPS} are known")
    each: list[list[Array]] = []
    for step in range(int(count)):
        given = [np.array(step, np.int64), np.array(True), *states]
        names = [value.name for value in body.inputs]
        inside = {**around, **body.constants, **dict(zip(names, given, strict=True))}
        after = _run(body, inside)
        _, *found = [after[output.name] for output in body.outputs]
        states = found[: len(states)]
        each.append(found[len(states) :])
    return [*states, *(np.stack(of) for of in zip(*each, strict=True))]


_Step = Callable[[Array, tuple[Array, ...]], tuple[Array, ...]]
"""Maps W x + b of a step and the states before it, each (batch, ...), to the next states."""


@dataclass(frozen=True)
class _Cell:
    """The weights of one direction of a recurrent layer."""

    r: Array  # (gates * units, units), of the state
    b: Array  # (gates * units,), beside r
    peepholes: Array | None  # (3 * units,)
    reset_after: bool  # whether a GRU's reset gate comes after the product with r
    activation: str  # of an RNN


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), x.dtype)  # without overflow


def _lstm(cell: _Cell) -> _Step:
    r, b, units = cell.r, cell.b, cell.r.shape[1]
    p = np.zeros(3 * units, r.dtype) if cell.peepholes is None else cell.peepholes
    peep_i, peep_o, peep_f = p.reshape(3, units)

    def step(x: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        h, c = states
        i, o, f, g = np.split(x + h @ r.T + b, 4, axis=1)
        c_next = _sigmoid(f + peep_f * c) * c + _sigmoid(i + peep_i * c) * np.tanh(g)
        return _sigmoid(o + peep_o * c_next) * np.tanh(c_next), c_next

    return step


def _gru(cell: _Cell) -> _Step:
    r, b, units, reset_after = cell.r, cell.b, cell.r.shape[1], cell.reset_after

    def step(x: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        (h,) = states
        y = h @ r.T + b if reset_after else h @ r[: 2 * units].T + b[: 2 * units]
        z = _sigmoid(x[:, :units] + y[:, :units])
        reset = _sigmoid(x[:, units : 2 * units] + y[:, units : 2 * units])
        if reset_after:
            n = np.tanh(x[:, 2 * units :] + reset * y[:, 2 * units :])
        else:
            n = np.tanh(x[:, 2 * units :] + (reset * h) @ r[2 * units :].T + b[2 * units :])
        return (((1 - z) * n + z * h),)

    return step


def _rnn(cell: _Cell) -> _Step:
    def step(x: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        total = x + states[0] @ cell.r.T + cell.b
        return (np.maximum(total, 0) if cell.activation == "Relu" else np.tanh(total),)

    return step


def _layer(
    make: Callable[[_Cell], _Step], n_states: int, attributes: Mapping[str, Any], *read: Any
) -> Sequence[Array]:
    """Map (steps, batch, inputs) to (steps, ways, batch, units) and the last states.

    Args:
        make: the cell.
        n_states: of the cell.
        attributes: of the operator.
        *read: its inputs: x, W, R, and if present biases, lengths, first states and peepholes.
    """
    inputs: list[Any] = [*read, *[None] * (8 - len(read))]
    (x, w, r, biases, lengths), rest = inputs[:5], inputs[5:]
    first, peepholes = rest[:n_states], rest[2] if n_states == 2 else None
    steps, batch, _ = x.shape
    units, ways = int(attributes["hidden_size"]), len(w)
    if biases is None:
        biases = np.zeros((ways, 2 * w.shape[1]), x.dtype)
    activations = attributes.get("activations") or ["Tanh"] * ways
    outputs = np.zeros((steps, ways, batch, units), x.dtype)
    finals = []
    for way in range(ways):
        of_input, of_state = np.split(biases[way], 2)
        reads = x @ w[way].T + of_input  # of all steps at once
        p = None if peepholes is None else peepholes[way]
        reset_after = bool(attributes.get("linear_before_reset", 0))
        advance = make(_Cell(r[way], of_state, p, reset_after, activations[way]))
        states = tuple(
            np.zeros((batch, units), x.dtype) if begin is None else begin[way] for begin in first
        )
        order = range(steps) if way == 0 else range(steps - 1, -1, -1)
        for at in order:
            new = advance(reads[at], states)
            if lengths is not None:  # padded steps keep the states
                real = (at < lengths)[:, None]
                new = tuple(np.where(real, n, s) for n, s in zip(new, states, strict=True))
                outputs[at, way] = np.where(real, new[0], 0)
            else:
                outputs[at, way] = new[0]
            states = new
        finals.append(states)
    return outputs, *(np.stack(of) for of in zip(*finals, strict=True))


_LAYERS: dict[str, Callable[..., Sequence[Array]]] = {
    "LSTM": partial(_layer, _lstm, 2),
    "GRU": partial(_layer, _gru, 1),
    "RNN": partial(_layer, _rnn, 1),
}
"""Functions from attributes and inputs to outputs, by the operator's name."""


def _slice(_: Any, x: Array, begin: Array, end: Array, on: Any = None, step: Any = None) -> Array:
    on = range(len(begin)) if on is None else on
    step = np.ones(len(begin), np.int64) if step is None else step
    places = [slice(None)] * x.ndim
    for axis, b, e, s in zip(on, begin, end, step, strict=True):
        until = None if s < 0 and e < -x.shape[axis] else int(e)
        places[axis] = slice(int(b), until, int(s))
    return x[tuple(places)]


def _pad(a: Mapping[str, Any], x: Array, pads: Array, value: Any = None, on: Any = None) -> Array:
    before, after = np.split(pads, 2)
    widths = [(0, 0)] * x.ndim
    for axis, b, e in zip(range(x.ndim) if on is None else on, before, after, strict=True):
        widths[axis] = (int(b), int(e))
    if a.get("mode", "constant") == "edge":
        return np.pad(x, widths, mode="edge")
    return np.pad(x, widths, constant_values=0 if value is None else np.asarray(value).item())


def _reshape(_: Any, x: Array, sizes: Array) -> Array:
    return x.reshape([x.shape[i] if n == 0 else int(n) for i, n in enumerate(sizes)])


def _flatten(a: Mapping[str, Any], x: Array) -> Array:
    axis = a.get("axis", 1) % (x.ndim + 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _unsqueeze(_: Any, x: Array, on: Array) -> Array:
    n = x.ndim + len(on)
    return np.expand_dims(x, tuple(int(axis) % n for axis in on))


def softmax(x: Array, axis: int = -1) -> Array:
    """Return the probabilities of logits, of the same shape."""
    shares = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(shares / shares.sum(axis=axis, keepdims=True))


def _log_softmax(a: Mapping[str, Any], x: Array) -> Array:
    axis = a.get("axis", -1)
    x = x - x.max(axis=axis, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=axis, keepdims=True)))


def _conv(a: Mapping[str, Any], x: Array, weight: Array, bias: Array) -> Array:
    """Convolve (batch, channels, steps) with (out, channels, kernel)."""
    padded = np.pad(x, ((0, 0), (0, 0), tuple(a.get("pads", (0, 0)))))
    seen = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2], axis=2)
    seen = seen.transpose(0, 2, 1, 3).reshape(len(x), -1, weight[0].size)
    outputs: Array = seen @ weight.reshape(len(weight), -1).T + bias  # (batch, steps, out)
    return outputs.transpose(0, 2, 1)


def _average_pool(a: Mapping[str, Any], x: Array) -> Array:
    """Average over (batch, channels, steps)."""
    (size,), (before, after) = a["kernel_shape"], a.get("pads", (0, 0))
    padded = np.pad(x, ((0, 0), (0, 0), (before, after)))
    views = np.lib.stride_tricks.sliding_window_view(padded, size, axis=2)
    counts: Any = size
    if not a.get("count_include_pad", 0):
        ones = np.pad(np.ones(x.shape[2], x.dtype), (before, after))
        counts = np.lib.stride_tricks.sliding_window_view(ones, size).sum(axis=-1)
    (stride,) = a.get("strides", (1,))
    pooled: Array = (views.sum(axis=-1) / counts)[:, :, ::stride]
    return pooled.astype(x.dtype)


def _reduce(with_: Callable[..., Any]) -> Callable[..., Array]:
    def reduce(a: Mapping[str, Any], x: Array, on: Any = None) -> Array:
        axes = a.get("axes") if on is None else on
        axis = None if axes is None else tuple(int(i) for i in axes)
        return np.asarray(with_(x, axis=axis, keepdims=bool(a.get("keepdims", 1))), x.dtype)

    return reduce


_OPERATORS: dict[str, Callable[..., Array]] = {
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": lambda _, a, b: a // b if a.dtype.kind == "i" else a / b,
    "Mod": lambda _, a, b: np.mod(a, b),
    "Neg": lambda _, x: -x,
    "Exp": lambda _, x: np.exp(x),
    "Log": lambda _, x: np.log(x),
    "Sqrt": lambda _, x: np.sqrt(x),
    "Tanh": lambda _, x: np.tanh(x),
    "Relu": lambda _, x: np.maximum(x, 0),
    "Softplus": lambda _, x: np.logaddexp(x, 0).astype(x.dtype),
    "Softmax": lambda a, x: softmax(x, a.get("axis", -1)),
    "LogSoftmax": _log_softmax,
    "MatMul": lambda _, a, b: a @ b,
    "Max": lambda _, *read: np.maximum.reduce(list(np.broadcast_arrays(*read))),
    "Mean": lambda _, *x: np.asarray(sum(x) / np.float32(len(x)), x[0].dtype),
    "Less": lambda _, a, b: a < b,
    "Where": lambda _, real, a, b: np.asarray(np.where(real, a, b)),
    "Identity": lambda _, x: x,
    "Cast": lambda a, x: x.astype(_DTYPES[a["to"]]),
    "Shape": lambda _, x: np.array(x.shape, np.int64),
    "Range": lambda _, begin, end, step: np.arange(int(begin), int(end), int(step)),
    "Gather": lambda a, x, at: np.take(x, at, axis=a.get("axis", 0)),
    "Slice": _slice,
    "Pad": _pad,
    "Concat": lambda a, *read: np.concatenate(read, axis=a["axis"]),
    "Expand": lambda _, x, sizes: x * np.ones([int(n) for n in sizes], x.dtype),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": lambda _, x, on: np.squeeze(x, tuple(int(axis) for axis in on)),
    "Unsqueeze": _unsqueeze,
    "Transpose": lambda a, x: np.transpose(x, a["perm"]),
    "Conv": _conv,
    "CumSum": lambda _, x, axis: np.cumsum(x, axis=int(np.asarray(axis).item())).astype(x.dtype),
    "AveragePool": _average_pool,
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceSum": _reduce(np.sum),
}
