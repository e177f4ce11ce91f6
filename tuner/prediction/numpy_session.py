"""Runs an exported model with numpy alone, for machines without onnxruntime.

It knows the operators that `tuner.training.onnx_model` writes, as the ONNX standard defines them
(opset 17): https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tuner.prediction.numpy_layers import LAYERS
from tuner.prediction.onnx_file import Graph, Node, Value, read_graph

__all__ = ["NumpySession"]

Array = np.ndarray

_MOST_STEPS = 10_000
"""Of a loop: an exported one takes a step for each of the horizon."""


class NumpySession:
    """What `onnxruntime.InferenceSession` is, as far as prediction uses it.

    Raises:
        ValueError: the file is no model, or has an operator that is not known.
    """

    def __init__(self, file: bytes) -> None:
        self._graph = read_graph(file)
        _check(self._graph)

    def get_inputs(self) -> list[Value]:
        """Return what it reads."""
        return self._graph.inputs

    def get_outputs(self) -> list[Value]:
        """Return what it says."""
        return self._graph.outputs

    def run(self, names: None, feed: Mapping[str, Array]) -> list[Array]:
        """Return all outputs."""
        values = _run(self._graph, {**self._graph.constants, **feed, "": None})
        return [values[output.name] for output in self._graph.outputs]


def _check(graph: Graph, *, inside: bool = False) -> None:
    for node in graph.nodes:
        if node.kind == "Loop" and not inside:
            body = node.attributes.get("body")
            if not isinstance(body, Graph):
                raise ValueError("has a Loop without a body")
            _check(body, inside=True)
        elif node.kind not in LAYERS and node.kind not in _OPERATORS:
            where = " in a Loop" if inside else ""
            raise ValueError(f"has the operator {node.kind}{where}, which --numpy does not know")


def _run(graph: Graph, values: dict[str, Any]) -> dict[str, Any]:
    for node in graph.nodes:
        read = [values[name] for name in node.inputs]
        if node.kind == "Loop":
            said: Sequence[Array] = _loop(node, read, values)
        elif node.kind in LAYERS:
            said = LAYERS[node.kind](node.attributes, *read)
        else:
            said = [_OPERATORS[node.kind](node.attributes, *read)]
        values.update(zip(node.outputs, said, strict=False))
    return values


def _loop(node: Node, read: list[Array], around: dict[str, Any]) -> list[Array]:
    """Repeat a body: its states, and what it says of every step."""
    body: Graph = node.attributes["body"]
    count, _, *states = read
    if int(count) > _MOST_STEPS:
        raise ValueError(f"a Loop takes {int(count)} steps, and at most {_MOST_STEPS} are known")
    each: list[list[Array]] = []
    for step in range(int(count)):
        given = [np.array(step, np.int64), np.array(True), *states]
        names = [value.name for value in body.inputs]
        inside = {**around, **body.constants, **dict(zip(names, given, strict=True))}
        found = _run(body, inside)
        _, *said = [found[output.name] for output in body.outputs]
        states = said[: len(states)]
        each.append(said[len(states) :])
    return [*states, *(np.stack(of) for of in zip(*each, strict=True))]


def _slice(_: Any, x: Array, begin: Array, end: Array, on: Any = None, step: Any = None) -> Array:
    on = range(len(begin)) if on is None else on
    step = np.ones(len(begin), np.int64) if step is None else step
    places = [slice(None)] * x.ndim
    for axis, b, e, s in zip(on, begin, end, step, strict=True):
        e = int(e)
        if s < 0 and e < -x.shape[axis]:
            places[axis] = slice(int(b), None, int(s))
        else:
            places[axis] = slice(int(b), e, int(s))
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


def _softmax(a: Mapping[str, Any], x: Array) -> Array:
    shares = np.exp(x - x.max(axis=a.get("axis", -1), keepdims=True))
    said: Array = np.divide(shares, shares.sum(axis=a.get("axis", -1), keepdims=True))
    return said


def _log_softmax(a: Mapping[str, Any], x: Array) -> Array:
    x = x - x.max(axis=a.get("axis", -1), keepdims=True)
    said: Array = np.subtract(x, np.log(np.exp(x).sum(axis=a.get("axis", -1), keepdims=True)))
    return said


def _conv(a: Mapping[str, Any], x: Array, weight: Array, bias: Array) -> Array:
    """Convolve (batch, channels, steps) with (out, channels, kernel)."""
    padded = np.pad(x, ((0, 0), (0, 0), tuple(a.get("pads", (0, 0)))))
    seen = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2], axis=2)
    seen = seen.transpose(0, 2, 1, 3).reshape(len(x), -1, weight[0].size)
    said: Array = seen @ weight.reshape(len(weight), -1).T + bias  # (batch, steps, out)
    return said.transpose(0, 2, 1)


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


def _mean(_: Any, *read: Array) -> Array:
    return np.asarray(sum(read) / np.float32(len(read)), read[0].dtype)


_TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64}

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
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "MatMul": lambda _, a, b: a @ b,
    "Max": lambda _, *read: np.maximum.reduce(list(np.broadcast_arrays(*read))),
    "Mean": _mean,
    "Less": lambda _, a, b: a < b,
    "Where": lambda _, real, a, b: np.asarray(np.where(real, a, b)),
    "Identity": lambda _, x: x,
    "Cast": lambda a, x: x.astype(_TYPES[a["to"]]),
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
