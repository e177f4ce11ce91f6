"""Runs an exported model over windows or sequences, by onnxruntime or with numpy alone.

It knows the operators that `tuner.training.onnx_export` writes, as the ONNX standard defines them
(opset 17): https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import ModelError, one_line, show_path
from tuner.prediction.folder import Graph, Node, Value, read_graph
from tuner.prediction.pipeline import Pipeline

__all__ = ["BATCH", "LAYERS", "NumpySession", "Runner"]

Array = np.ndarray

_Step = Callable[[Array, tuple[Array, ...]], tuple[Array, ...]]

"""From W x + b of a step and the states before it, each (batch, ...), to those after it."""


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), x.dtype)  # without overflow


def _lstm(r: Array, b: Array, p: Array | None, _: int, __: str) -> _Step:
    units = r.shape[1]
    peep_i, peep_o, peep_f = np.zeros((3, units), r.dtype) if p is None else p.reshape(3, units)

    def step(x: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        h, c = states
        i, o, f, g = np.split(x + h @ r.T + b, 4, axis=1)
        c_next = _sigmoid(f + peep_f * c) * c + _sigmoid(i + peep_i * c) * np.tanh(g)
        return _sigmoid(o + peep_o * c_next) * np.tanh(c_next), c_next

    return step


def _gru(r: Array, b: Array, _: Array | None, reset_after: int, __: str) -> _Step:
    units = r.shape[1]

    def step(x: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        (h,) = states
        said = h @ r.T + b if reset_after else h @ r[: 2 * units].T + b[: 2 * units]
        z = _sigmoid(x[:, :units] + said[:, :units])
        reset = _sigmoid(x[:, units : 2 * units] + said[:, units : 2 * units])
        if reset_after:
            n = np.tanh(x[:, 2 * units :] + reset * said[:, 2 * units :])
        else:
            n = np.tanh(x[:, 2 * units :] + (reset * h) @ r[2 * units :].T + b[2 * units :])
        return (((1 - z) * n + z * h),)

    return step


def _rnn(r: Array, b: Array, _: Array | None, __: int, activation: str) -> _Step:
    def step(x: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        said = x + states[0] @ r.T + b
        return (np.maximum(said, 0) if activation == "Relu" else np.tanh(said),)

    return step


def _layer(
    make: Callable[[Array, Array, Array | None, int, str], _Step],
    n_states: int,
    attributes: Mapping[str, Any],
    x: Array,
    w: Array,
    r: Array,
    biases: Array | None = None,
    lengths: Array | None = None,
    *rest: Array | None,
) -> Sequence[Array]:
    """Read (steps, batch, inputs); return (steps, ways, batch, units) and the last states."""
    steps, batch, _ = x.shape
    units, ways = int(attributes["hidden_size"]), len(w)
    if biases is None:
        biases = np.zeros((ways, 2 * w.shape[1]), x.dtype)
    first = [*rest[:n_states], *[None] * (n_states - len(rest))]
    peepholes = rest[2] if n_states == 2 and len(rest) > 2 else None
    activations = attributes.get("activations") or ["Tanh"] * ways
    outputs = np.zeros((steps, ways, batch, units), x.dtype)
    finals = []
    for way in range(ways):
        of_input, of_state = np.split(biases[way], 2)
        reads = x @ w[way].T + of_input  # of all steps at once
        p = None if peepholes is None else peepholes[way]
        advance = make(
            r[way], of_state, p, attributes.get("linear_before_reset", 0), activations[way]
        )
        states = tuple(
            np.zeros((batch, units), x.dtype) if begin is None else begin[way] for begin in first
        )
        order = range(steps) if way == 0 else range(steps - 1, -1, -1)
        for at in order:
            new = advance(reads[at], states)
            if lengths is not None:  # what pads changes nothing
                real = (at < lengths)[:, None]
                new = tuple(np.where(real, n, s) for n, s in zip(new, states, strict=True))
                outputs[at, way] = np.where(real, new[0], 0)
            else:
                outputs[at, way] = new[0]
            states = new
        finals.append(states)
    return outputs, *(np.stack(of) for of in zip(*finals, strict=True))


LAYERS: dict[str, Callable[..., Sequence[Array]]] = {
    "LSTM": lambda *read: _layer(_lstm, 2, *read),
    "GRU": lambda *read: _layer(_gru, 1, *read),
    "RNN": lambda *read: _layer(_rnn, 1, *read),
}

"""From attributes and inputs to outputs, by the operator's name."""


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


BATCH = 512

"""Windows at once; more are slower, as they leave the processor's cache."""

_BATCH_NUMBERS = 2**24  # in a layer; of long or wide sequences fewer fit into memory

_EXTERNAL = b"location"  # what ONNX calls the path of a tensor that lies in another file

_Sizes = list[int | None]


class Runner:
    """A model in onnxruntime, which uses all cores; or in numpy, where that is all there is.

    Raises:
        ModelError: the file names other files, onnxruntime does not take it, or it is of another
            pipeline.
    """

    def __init__(self, file: bytes, path: Path, pipeline: Pipeline, *, numpy: bool = False) -> None:
        # A text is written as it is wherever it stands in the file, and no other text of an
        # exported graph is this one. onnxruntime would read whatever file the path leads to.
        if _EXTERNAL in file:
            rule = "must hold all its weights"
            got = "external data, which is in another file"
            raise ModelError(rule, where=show_path(path), got=got, remedy="export the model again")
        session = (_in_numpy if numpy else _in_onnxruntime)(file, path)
        self._path, self._width = path, pipeline.width
        self._horizon = pipeline.horizon
        read = {i.name: _fixed(i.shape) for i in session.get_inputs()}
        said = [_fixed(output.shape) for output in session.get_outputs()]
        expected, says = _sizes(pipeline)
        self.steps = _steps(read) if pipeline.task in ("regress", "classify") else None
        """How many every sequence must have; None where it may have any number."""
        known = pipeline.columns.known_future is not None
        traced = pipeline.window + (pipeline.horizon if known else 0)
        if pipeline.of_series and _steps(read) == traced:
            expected["inputs"][1] = traced  # of code of one's own, whose steps are traced
        if self.steps is not None and "inputs" in expected:
            expected["inputs"][1] = self.steps
        if (read, said) != (expected, says):
            rule = "does not read or say what pipeline.json says"
            raise ModelError(rule, where=show_path(path), remedy="export the model again")
        self._session, self._library = session, "numpy" if numpy else "onnxruntime"

    def windows(
        self,
        rows: np.ndarray,
        ends: np.ndarray,
        window: int,
        beside: Callable[[np.ndarray], np.ndarray] | None = None,
        known: Sequence[int] = (),
    ) -> np.ndarray:
        """Read the `window` rows before each end, and what is known of those after it.

        Args:
            rows: (rows, features), float32.
            ends: (samples,), the row after the last one that is read.
            window: how many are read.
            beside: maps windows, (batch, window, features), to what is read beside them.
            known: the columns that are known in the rows to come; of others the model gets 0 there.

        Returns:
            (samples, horizon, targets[, quantiles]), scaled.
        """
        ahead = self._horizon if known else 0
        unknown = sorted(set(range(rows.shape[1])) - set(known))
        views = np.lib.stride_tricks.sliding_window_view(rows, window + ahead, axis=0)
        views = views.swapaxes(1, 2)  # (rows - window - ahead + 1, window + ahead, features)
        size = self._batch(window + ahead)
        parts = []
        for i in range(0, len(ends), size):
            read = views[ends[i : i + size] - window]
            if ahead:
                read[:, window:, unknown] = 0
            if beside is not None:
                others = np.pad(beside(read[:, :window]), ((0, 0), (0, ahead), (0, 0)))
                read = np.concatenate((read, others), axis=2)
            parts.append(self._run(inputs=read))
        return np.concatenate(parts)

    def sequences(self, rows: np.ndarray, bounds: np.ndarray, *, each_step: bool) -> np.ndarray:
        """Read sequences, those of about the same length together.

        Args:
            rows: of all sequences: (rows, features), float32, or tokens, (rows,), int64.
            bounds: (sequences, 2), the rows [start, end) of each.
            each_step: whether the model says something of every step.

        Returns:
            What is said of each sequence, (sequences, ...), or of each row, (rows, ...).
        """
        lengths = np.diff(bounds)[:, 0]
        order = np.argsort(-lengths, kind="stable")
        name = "tokens" if rows.ndim == 1 else "inputs"
        found: np.ndarray | None = None
        begin = 0
        while begin < len(order):
            longest = lengths[order[begin]]
            batch = order[begin : begin + self._batch(int(longest))]
            begin += len(batch)
            step = np.arange(longest)
            real = step < lengths[batch][:, None]  # (batch, steps)
            at = np.where(real, bounds[batch, :1] + step, bounds[batch, :1])  # any row may pad
            outputs = self._run(**{name: rows[at], "lengths": lengths[batch].astype(np.int64)})
            if each_step:
                outputs, batch = outputs[real], at[real]
            if found is None:
                found = np.empty((len(rows if each_step else bounds), *outputs.shape[1:]))
            found[batch] = outputs
        assert found is not None, "a file has rows"
        return found

    def next_logits(self, tokens: np.ndarray, bounds: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        """Return the logits of what comes after what was said of texts, (n, tokens).

        Args:
            tokens: of all texts, (rows,), int64.
            bounds: (n, 2), the rows [start, end) of each.
            prefix: (n, said), what was said of each.
        """
        lengths = np.diff(bounds)[:, 0].astype(np.int64)
        step, found = np.arange(lengths.max()), []
        size = self._batch(max(int(lengths.max()), prefix.shape[1]))
        for i in range(0, len(bounds), size):
            own = slice(i, i + size)
            real = step < lengths[own][:, None]
            at = np.where(real, bounds[own, :1] + step, bounds[own, :1])  # any row may pad
            read = {"tokens": tokens[at], "lengths": lengths[own], "prefix": prefix[own]}
            found.append(self._run(**read)[:, -1])
        return np.concatenate(found)

    def _batch(self, steps: int) -> int:
        return max(1, min(BATCH, _BATCH_NUMBERS // (steps * self._width)))

    def _run(self, **feed: np.ndarray) -> np.ndarray:
        arrays = {name: np.ascontiguousarray(array) for name, array in feed.items()}
        try:
            found: list[Any] = self._session.run(None, arrays)
        except Exception as error:  # of classes that onnxruntime does not name
            rule = f"{self._library} cannot run it: {one_line(error)}"
            remedy = "export the model again"
            raise ModelError(rule, where=show_path(self._path), remedy=remedy) from None
        return np.asarray(found[0])


def _in_numpy(file: bytes, path: Path) -> Any:

    try:
        return NumpySession(file)
    except ValueError as error:
        rule = f"numpy cannot run it: {one_line(error)}"
        remedy = "leave out --numpy, or export it again"
        raise ModelError(rule, where=show_path(path), remedy=remedy) from None


def _in_onnxruntime(file: bytes, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        rule = "needs onnxruntime, which is not installed here"
        remedy = "install it, or write --numpy"
        raise ModelError(rule, where=show_path(path), remedy=remedy) from None

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    options.add_session_config_entry("session.load_model_format", "ONNX")  # by that rule
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes that onnxruntime does not name
        rule = f"onnxruntime cannot read it: {one_line(error)}"
        remedy = "install a newer onnxruntime"
        raise ModelError(rule, where=show_path(path), remedy=remedy) from None


def _fixed(shape: list[Any]) -> _Sizes:
    """Return the sizes of an array, None where they may be any."""
    return [n if isinstance(n, int) else None for n in shape]


def _steps(read: dict[str, _Sizes]) -> int | None:
    """Return how many steps the graph reads; None where it may be any number."""
    sizes = read.get("inputs", [])
    return sizes[1] if len(sizes) == 3 else None


def _sizes(pipeline: Pipeline) -> tuple[dict[str, _Sizes], list[_Sizes]]:
    """Return the sizes of a model's inputs, by name, and of its outputs, None where any."""
    read: dict[str, _Sizes] = {"tokens": [None, None]}
    if pipeline.inputs is not None:
        n_modes = pipeline.modes * len(pipeline.targets)
        read = {"inputs": [None, None, len(pipeline.inputs.offset) + n_modes]}
    if not pipeline.of_series:
        read["lengths"] = [None]
    if pipeline.target is not None:
        read["prefix"] = [None, None]
        return read, [[None, None, len(pipeline.target) + 2]]
    if pipeline.classes:
        steps: _Sizes = [None] if pipeline.each_step else []
        return read, [[None, *steps, len(pipeline.classes)]]
    if pipeline.each_step:
        return read, [[None, None, len(pipeline.targets)]]
    quantiles = [len(pipeline.quantiles)] if pipeline.quantiles else []
    return read, [[None, pipeline.horizon, len(pipeline.targets), *quantiles]]
