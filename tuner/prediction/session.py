"""Runs exported models on windows, sequences or texts, with onnxruntime or numpy alone.

numpy has the operators that `tuner.training.onnx_export` writes, as in the ONNX standard (opset
17): https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import ModelError, one_line, show_path
from tuner.prediction.folder import Graph, Node, Value, read_graph
from tuner.prediction.pipeline import Pipeline

__all__ = ["BATCH", "LAYERS", "NumpySession", "Runner", "softmax"]

BATCH = 512  # windows at a time; more would leave the processor's cache

_BATCH_NUMBERS = 2**24  # numbers in a layer: long or wide sequences make smaller batches
_EXTERNAL = b"location"  # ONNX's key of the path of a tensor in another file
_MOST_STEPS = 10_000  # of a loop: an exported one takes a step for each of the horizon

_Sizes = list[int | None]
Array = np.ndarray


class Runner:
    """Runs a model with onnxruntime, which uses all cores, or with numpy.

    Raises:
        ModelError: the file names other files, cannot be read, or does not fit the pipeline.
    """

    def __init__(self, file: bytes, path: Path, pipeline: Pipeline, *, numpy: bool = False) -> None:
        # The key is in the file in plain text; no other text of an exported graph has this word.
        # onnxruntime would read any file at the path.
        if _EXTERNAL in file:
            got = "external data, which is in another file"
            raise _error(path, "must hold all its weights", got=got)
        session = (_in_numpy if numpy else _in_onnxruntime)(file, path)
        self._path, self._width, self._horizon = path, pipeline.width, pipeline.horizon
        read = {i.name: _fixed(i.shape) for i in session.get_inputs()}
        said = [_fixed(output.shape) for output in session.get_outputs()]
        expected, says = _sizes(pipeline)
        self.steps = _steps(read) if pipeline.task in ("regress", "classify") else None
        """Steps of every sequence; None for any number."""
        known = pipeline.columns.known_future is not None
        traced = pipeline.window + (pipeline.horizon if known else 0)
        if pipeline.of_series and _steps(read) == traced:
            expected["inputs"][1] = traced  # of a user's model, whose steps are traced
        if self.steps is not None and "inputs" in expected:
            expected["inputs"][1] = self.steps
        if (read, said) != (expected, says):
            raise _error(path, "does not have the inputs and outputs of pipeline.json")
        self._session, self._library = session, "numpy" if numpy else "onnxruntime"

    def windows(
        self,
        rows: np.ndarray,
        ends: np.ndarray,
        window: int,
        beside: Callable[[np.ndarray], np.ndarray] | None = None,
        known: Sequence[int] = (),
    ) -> np.ndarray:
        """Run the model on the `window` rows before each end, and known values after it.

        Args:
            rows: (rows, features), float32.
            ends: (samples,), the row after each window.
            window: rows of a window.
            beside: maps windows, (batch, window, features), to further inputs beside them.
            known: the columns that are known in future rows; the others are 0 there.

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
        """Run the model on sequences, in batches of similar lengths.

        Args:
            rows: of all sequences: (rows, features), float32, or tokens, (rows,), int64.
            bounds: (sequences, 2), the rows [start, end) of each.
            each_step: whether every step has an output.

        Returns:
            Outputs of each sequence, (sequences, ...), or of each row, (rows, ...).
        """
        lengths = np.diff(bounds)[:, 0]
        order = np.argsort(-lengths, kind="stable")
        name = "tokens" if rows.ndim == 1 else "inputs"
        found: np.ndarray | None = None
        begin = 0
        while begin < len(order):
            batch = order[begin : begin + self._batch(int(lengths[order[begin]]))]
            begin += len(batch)
            at, real = _padded(bounds[batch])
            outputs = self._run(**{name: rows[at], "lengths": lengths[batch].astype(np.int64)})
            if each_step:
                outputs, batch = outputs[real], at[real]
            if found is None:
                found = np.empty((len(rows if each_step else bounds), *outputs.shape[1:]))
            found[batch] = outputs
        assert found is not None, "a file has rows"
        return found

    def next_logits(self, tokens: np.ndarray, bounds: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        """Return the logits of the next token of translations, (n, tokens).

        Args:
            tokens: of all texts, (rows,), int64.
            bounds: (n, 2), the rows [start, end) of each.
            prefix: (n, said), the translations so far.
        """
        lengths = np.diff(bounds)[:, 0].astype(np.int64)
        at, _ = _padded(bounds)
        size, found = self._batch(max(at.shape[1], prefix.shape[1])), []
        for i in range(0, len(bounds), size):
            own = slice(i, i + size)
            read = {"tokens": tokens[at[own]], "lengths": lengths[own], "prefix": prefix[own]}
            found.append(self._run(**read)[:, -1])
        return np.concatenate(found)

    def _batch(self, steps: int) -> int:
        return max(1, min(BATCH, _BATCH_NUMBERS // (steps * self._width)))

    def _run(self, **feed: np.ndarray) -> np.ndarray:
        arrays = {name: np.ascontiguousarray(array) for name, array in feed.items()}
        try:
            found: list[Any] = self._session.run(None, arrays)
        except Exception as error:  # of classes that onnxruntime does not name
            raise _error(self._path, f"{self._library} cannot run it: {one_line(error)}") from None
        return np.asarray(found[0])


def _fixed(shape: list[Any]) -> _Sizes:
    """Return the sizes of an array, None for any size."""
    return [n if isinstance(n, int) else None for n in shape]


def _steps(read: dict[str, _Sizes]) -> int | None:
    """Return the number of steps of the graph's input; None for any."""
    sizes = read.get("inputs", [])
    return sizes[1] if len(sizes) == 3 else None


def _sizes(pipeline: Pipeline) -> tuple[dict[str, _Sizes], list[_Sizes]]:
    """Return the sizes of a model's inputs, by name, and of its outputs, None for any."""
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


def _padded(bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of sequences, padded with their first, and which are real, (n, steps)."""
    lengths = np.diff(bounds)
    step = np.arange(lengths.max())
    real = step < lengths
    return np.where(real, bounds[:, :1] + step, bounds[:, :1]), real


def _error(
    path: Path, rule: str, *, got: str | None = None, remedy: str = "export the model again"
) -> ModelError:
    return ModelError(rule, where=show_path(path), got=got, remedy=remedy)


def _in_numpy(file: bytes, path: Path) -> Any:
    try:
        return NumpySession(file)
    except ValueError as error:
        rule = f"numpy cannot run it: {one_line(error)}"
        raise _error(path, rule, remedy="leave out --numpy, or export it again") from None


def _in_onnxruntime(file: bytes, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        rule = "needs onnxruntime, which is not installed here"
        raise _error(path, rule, remedy="install it, or write --numpy") from None

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of classes that onnxruntime does not name
        rule = f"onnxruntime cannot read it: {one_line(error)}"
        raise _error(path, rule, remedy="install a newer onnxruntime") from None


class NumpySession:
    """The part of `onnxruntime.InferenceSession` that predictions use, in numpy.

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
        found = _run(body, inside)
        _, *said = [found[output.name] for output in body.outputs]
        states = said[: len(states)]
        each.append(said[len(states) :])
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
        said = h @ r.T + b if reset_after else h @ r[: 2 * units].T + b[: 2 * units]
        z = _sigmoid(x[:, :units] + said[:, :units])
        reset = _sigmoid(x[:, units : 2 * units] + said[:, units : 2 * units])
        if reset_after:
            n = np.tanh(x[:, 2 * units :] + reset * said[:, 2 * units :])
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


LAYERS: dict[str, Callable[..., Sequence[Array]]] = {
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
    "Softmax": lambda a, x: softmax(x, a.get("axis", -1)),
    "LogSoftmax": _log_softmax,
    "MatMul": lambda _, a, b: a @ b,
    "Max": lambda _, *read: np.maximum.reduce(list(np.broadcast_arrays(*read))),
    "Mean": lambda _, *x: np.asarray(sum(x) / np.float32(len(x)), x[0].dtype),
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
