"""The recurrent layers as operators of ONNX, for which runtimes have fast kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuner.training.cells import PeepholeLSTM
from tuner.training.graph import Graph, Operand

__all__ = ["add_layers", "axes"]

# Where each gate of an operator stands in torch's weights.
_GATES = {
    "LSTM": (0, 3, 1, 2),  # i, o, f, c of i, f, g, o
    "GRU": (1, 0, 2),  # z, r, h of r, z, n
    "RNN": (0,),
}
_PEEPHOLES = (0, 2, 1)  # i, o, f of i, f, o


def add_layers(
    g: Graph, layers: nn.Module, x: str, lengths: str = "", states: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Add what `tuner.training.recurrent.read` does, with time as the first axis.

    Args:
        g: the graph.
        layers: from `make_layers`.
        x: (steps, batch, inputs).
        lengths: (batch,), int32; "" where all steps are real.
        states: before the first step, each (batch, size), of one layer that reads one way; zeros
            by default.

    Returns:
        What the last layer puts out, (steps, batch, width), and its last states, each (batch,
        size): forwards and backwards side by side.
    """
    final: list[str] = []
    for i in range(layers.num_layers if isinstance(layers, nn.RNNBase) else 1):
        x, final = _add_layer(g, layers, i, x, lengths, states)
    return x, final


def _add_layer(
    g: Graph, layers: nn.Module, i: int, x: str, lengths: str, states: Sequence[str]
) -> tuple[str, list[str]]:
    weights = dict(layers.named_parameters())
    kind = layers.mode.partition("_")[0] if isinstance(layers, nn.RNNBase) else "LSTM"
    ways = [way for way in (f"l{i}", f"l{i}_reverse") if f"weight_ih_{way}" in weights]

    def gathered(name: str) -> Tensor:
        """Return a weight or bias of both ways as the operator orders it, (ways, rows, ...)."""
        return torch.stack([_reorder(weights[f"{name}_{way}"], _GATES[kind]) for way in ways])

    w, r = gathered("weight_ih"), gathered("weight_hh")
    units = w.shape[1] // len(_GATES[kind])
    b: Operand = ""
    if f"bias_ih_l{i}" in weights:
        b = torch.cat((gathered("bias_ih"), gathered("bias_hh")), dim=1)
    first = [g.op("Unsqueeze", state, axes(0)) for state in states]  # (1, batch, size)
    projection: Tensor | None = None
    if f"weight_hr_l{i}" in weights:
        # No operator projects. But of what a layer holds, m, only the projection h = P m is ever
        # read: it may hand on m itself, with U P in place of the weights U of h.
        projection = torch.stack([weights[f"weight_hr_{way}"] for way in ways])  # (ways, size, m)
        if first:  # the first h is no projection of anything, and is read like x
            x = g.op("Concat", x, first[0], axis=2)
            w, r, first[0] = torch.cat((w, r), dim=2), r.new_zeros(1, 4 * units, units), ""
        else:
            r = (r.double() @ projection.double()).float()

    inputs: list[Operand] = [w, r, b, lengths, *first]
    if isinstance(layers, PeepholeLSTM):
        p = [_reorder(way.flatten(), _PEEPHOLES) for way in weights["weight_peephole"]]
        inputs = [*inputs, *[""] * (6 - len(inputs)), torch.stack(p)]
    options: dict[str, Any] = {"linear_before_reset": 1} if kind == "GRU" else {}
    if isinstance(layers, nn.RNN):
        options["activations"] = [layers.nonlinearity.capitalize()] * len(ways)
    direction = "bidirectional" if len(ways) == 2 else "forward"
    n_states = 2 if kind == "LSTM" else 1
    y, *final = g.ops(
        1 + n_states, kind, x, *inputs, hidden_size=units, direction=direction, **options
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
