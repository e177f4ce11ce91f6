"""The recurrent cells: what every part of the program knows of each, without torch.

A new cell is an entry here, and a module of one layer in `tuner/training/recurrent.py` that reads
as `PeepholeLSTM` does, where torch has none.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CELLS", "Cell"]


@dataclass(frozen=True)
class Cell:
    """A recurrent cell."""

    title: str  # in sentences
    module: str  # `package.module:Class` of its layers
    operator: str  # of ONNX
    gates: tuple[int, ...]
    """Where each gate of the operator stands in the module's weights."""
    n_states: int = 1  # 2 with a cell state beside the hidden state
    stacks: bool = True  # whether one module holds several layers
    projects: bool = False  # whether it takes proj_size
    nonlinear: bool = False  # whether it takes nonlinearity


CELLS = {
    "lstm": Cell(
        "LSTM", "torch.nn:LSTM", "LSTM", (0, 3, 1, 2), n_states=2, projects=True
    ),  # i, o, f, c of i, f, g, o
    "gru": Cell("GRU", "torch.nn:GRU", "GRU", (1, 0, 2)),  # z, r, h of r, z, n
    "rnn": Cell("RNN", "torch.nn:RNN", "RNN", (0,), nonlinear=True),
    "peephole": Cell(
        "peephole LSTM",
        "tuner.training.recurrent:PeepholeLSTM",
        "LSTM",
        (0, 3, 1, 2),
        n_states=2,
        stacks=False,
    ),
}
"""Tuner's own cells by their names in an experiment."""
