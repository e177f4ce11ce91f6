"""The recurrent operators of ONNX in numpy: LSTM with peepholes, GRU and RNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["LAYERS"]

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
