"""The recurrent layers: one cell or a stack of them, reading padded sequences."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tuner.experiment.hyperparameters import Hyperparameters
from tuner.own_code import is_reference
from tuner.training.cells import PeepholeLSTM
from tuner.training.own_cell import OwnLayer

__all__ = ["Recurrent", "State", "make_layers", "read"]

State = tuple[Tensor, ...]
"""What a cell holds between two steps: its hidden state and, of an LSTM, its cell state."""


def make_layers(
    parameters: Hyperparameters, inputs: int, width: int, *, n_layers: int = 1, bidirectional: bool
) -> nn.Module:
    """Return recurrent layers of the parameters' cell, all of one width, for `read`."""
    if is_reference(parameters.cell):
        assert n_layers == 1, "a layer of one's own is a module of its own"
        return OwnLayer(parameters, inputs, width, bidirectional=bidirectional)
    if parameters.cell == "peephole":
        assert n_layers == 1, "a peephole layer is a module of its own"
        return PeepholeLSTM(inputs, width, bias=parameters.bias, bidirectional=bidirectional)
    options: dict[str, Any] = {
        "num_layers": n_layers,
        "bias": parameters.bias,
        # Torch drops between its layers, and warns where there is only one.
        "dropout": parameters.dropout if n_layers > 1 else 0.0,
        "bidirectional": bidirectional,
        "batch_first": True,
    }
    if parameters.cell == "lstm":
        return nn.LSTM(inputs, width, proj_size=parameters.proj_size, **options)
    if parameters.cell == "gru":
        return nn.GRU(inputs, width, **options)
    return nn.RNN(inputs, width, nonlinearity=parameters.nonlinearity, **options)


def read(
    layers: nn.Module, x: Tensor, state: State | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, State]:
    """Run layers over sequences.

    Args:
        layers: from `make_layers`.
        x: (batch, steps, inputs).
        state: before the first step, each (layers * directions, batch, size); zeros by default.
        lengths: (batch,), on the CPU: how many steps of each sequence are real; all by default.

    Returns:
        What the last layer puts out, (batch, steps, width), anything where x pads; and the
        states after the last real step, backwards after the first, shaped like `state`.
    """
    if isinstance(layers, OwnLayer):
        assert state is None, "it begins with no state"
        return layers(x, lengths)  # type: ignore[no-any-return]
    if isinstance(layers, PeepholeLSTM):
        outputs, final = layers(x, state, lengths)
        return outputs, final
    first = state[0] if state is not None and len(state) == 1 else state
    packed: Tensor | PackedSequence = x
    if lengths is not None:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    if layers.proj_size:
        with warnings.catch_warnings():  # torch warns that its fastest kernel cannot do that
            warnings.filterwarnings("ignore", message="LSTM with projections is not supported")
            outputs, final = layers(packed, first)
    else:
        outputs, final = layers(packed, first)
    if lengths is not None:
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
    return outputs, final if isinstance(final, tuple) else (final,)


class Recurrent(nn.Module):
    """All recurrent layers, one after another, with dropout between them.

    Layers of one width are one module of torch, which is faster than a module each.
    """

    def __init__(self, parameters: Hyperparameters, inputs: int) -> None:
        super().__init__()
        both = parameters.bidirectional
        self.directions = 2 if both else 1
        project = parameters.proj_size if parameters.cell == "lstm" else 0
        widths = parameters.widths
        self.widest = max(inputs, self.directions * max(widths))
        """The most numbers that a step is, read or in a layer."""
        stacked = parameters.cell in ("lstm", "gru", "rnn")
        if stacked and len(set(widths)) == 1:
            stacks = [(widths[0], len(widths))]
        else:
            stacks = [(width, 1) for width in widths]
        self.stacks = nn.ModuleList()
        for width, n_layers in stacks:
            stack = make_layers(parameters, inputs, width, n_layers=n_layers, bidirectional=both)
            self.stacks.append(stack)
            inputs = self.directions * (project or width)
        self.dropout = nn.Dropout(parameters.dropout)
        self.width = inputs
        """What comes out of a step."""
        self.state_sizes = [self.width]
        """What each part of the last layer's state holds."""
        if parameters.cell in ("lstm", "peephole"):
            self.state_sizes.append(self.directions * widths[-1])

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Read (batch, steps, inputs), of which (batch,) steps are real, all by default.

        Returns:
            What the last layer puts out, (batch, steps, width), anything where x pads; and its
            last state, each (batch, size): forwards after the last real step, backwards after
            the first, side by side.
        """
        state: State = ()
        for i, stack in enumerate(self.stacks):
            x, state = read(stack, x if i == 0 else self.dropout(x), lengths=lengths)
        # (layers * directions, batch, units) -> (batch, directions * units) of the last layer
        if self.directions == 1:
            return x, tuple(s[-1] for s in state)
        return x, tuple(torch.cat((s[-2], s[-1]), dim=1) for s in state)
