"""Decoders: of a horizon, and of texts token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.data import Shape
from tuner.data.vocabulary import beam_search
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training.layers import as_values, middle, numbers_per_step
from tuner.training.recurrent import State, make_layers, projection_of, read
from tuner.training.samples import Samples

if TYPE_CHECKING:
    from tuner.training.model import Model

__all__ = ["Decoder", "InSegments", "Recursive", "Translator", "translate"]


class Decoder(nn.Module):
    """A layer of the encoder's cell and last width, and a linear head that says what it holds.

    It begins with the encoder's state, brought to its size by a linear bridge where that differs:
    the encoder may read both ways, a decoder cannot.
    """

    def __init__(
        self,
        parameters: Hyperparameters,
        shape: Shape,
        state_sizes: list[int],
        *,
        inputs: int,
        steps: int,
    ) -> None:
        """Make the layers.

        Args:
            parameters: of the model.
            shape: of the data.
            state_sizes: what each part of the encoder's state holds.
            inputs: numbers that the layer reads in a step.
            steps: rows of the horizon that the head says at once.
        """
        super().__init__()
        self.shape, self.steps = shape, steps
        units = parameters.widths[-1]
        hidden = projection_of(parameters) or units
        self.sizes = (hidden, units)[: len(state_sizes)]
        """What each part of the layer's state holds."""
        self.layer = make_layers(parameters, inputs, units, bidirectional=False)
        self.bridges = nn.ModuleList(
            nn.Identity() if size == own else nn.Linear(size, own)
            for size, own in zip(state_sizes, self.sizes, strict=True)
        )
        self.dropout = nn.Dropout(parameters.dropout)
        self.head = nn.Linear(hidden, steps * numbers_per_step(shape))

    def first(self, state: State) -> State:
        """Bring the encoder's state, each (batch, size), to the layer's, each (batch, units)."""
        return tuple(bridge(s) for bridge, s in zip(self.bridges, state, strict=True))


class Recursive(Decoder):
    """Forecasts a step from its own forecast of the step before, training as in use.

    And from what is known of the step itself.
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape, state_sizes: list[int]) -> None:
        inputs = shape.targets + len(shape.known_columns)
        super().__init__(parameters, shape, state_sizes, inputs=inputs, steps=1)
        self.begin = nn.Parameter(torch.zeros(shape.targets))
        """What is read before the first step."""

    def forward(self, state: State, coming: Tensor | None = None) -> Tensor:
        """Map the state, each (batch, size), to (batch, horizon, targets[, quantiles]).

        Args:
            state: of the encoder.
            coming: what is known of the rows to come, (batch, horizon, known columns).
        """
        state = tuple(s.unsqueeze(0) for s in self.first(state))  # (1, batch, units)
        x = self.begin.expand(state[0].shape[1], 1, -1)  # (batch, 1, targets)
        steps = []
        for k in range(self.shape.horizon):
            if coming is not None:
                x = torch.cat((x, coming[:, k : k + 1]), dim=2)
            outputs, state = read(self.layer, x, state)
            values = as_values(self.head(self.dropout(outputs[:, 0])), self.shape)
            steps.append(values)  # (batch, 1, targets[, quantiles])
            x = middle(values, self.shape)
        return torch.cat(steps, dim=1)


class InSegments(Decoder):
    """Forecasts the horizon in pieces of `segment` rows, all at once, each by one step.

    The parallel decoding of Lin et al. (2023), "SegRNN", section 4.3: every piece begins with the
    encoder's state, and reads a learned embedding that says which piece it is. The last piece is
    cut where the horizon ends. What is known of a piece's rows is added to its embedding by a
    linear layer. Unlike there the decoder's weights are its own, as the encoder may have several
    layers and read both ways.
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape, state_sizes: list[int]) -> None:
        units, length = parameters.widths[-1], parameters.segment
        super().__init__(parameters, shape, state_sizes, inputs=units, steps=length)
        self.begin = nn.Parameter(torch.randn(-(-shape.horizon // length), units))
        """The embedding of each piece, (pieces, units)."""
        self.known: nn.Linear | None = None
        if shape.ahead:
            self.known = nn.Linear(length * len(shape.known_columns), units, bias=False)

    def forward(self, state: State, coming: Tensor | None = None) -> Tensor:
        """Map the state, each (batch, size), to (batch, horizon, targets[, quantiles]).

        Args:
            state: of the encoder.
            coming: what is known of the rows to come, (batch, horizon, known columns).
        """
        pieces, batch = len(self.begin), len(state[0])
        # (batch, units) -> (1, batch * pieces, units), the pieces of a sample side by side
        state = tuple(
            s.unsqueeze(1).expand(-1, pieces, -1).flatten(0, 1).unsqueeze(0)
            for s in self.first(state)
        )
        x = self.begin.expand(batch, -1, -1)  # (batch, pieces, units)
        if self.known is not None and coming is not None:
            behind = pieces * self.steps - coming.shape[1]  # of the last piece
            rows = functional.pad(coming, (0, 0, 0, behind))
            x = x + self.known(rows.reshape(batch, pieces, -1))
        x = x.reshape(batch * pieces, 1, -1)
        outputs, _ = read(self.layer, x, state)
        numbers = self.head(self.dropout(outputs[:, 0])).view(batch, -1)
        return as_values(numbers, self.shape)[:, : self.shape.horizon]


_BATCH = 256  # texts


class Translator(Decoder):
    """Reads tokens that were said, and puts out the logits of the next one after each.

    Trained with teacher forcing: what it reads is the truth (Sutskever et al. 2014, "Sequence to
    Sequence Learning with Neural Networks"). It begins with the encoder's state.
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape, state_sizes: list[int]) -> None:
        size = parameters.embedding_size
        super().__init__(parameters, shape, state_sizes, inputs=size, steps=1)
        self.embedding = nn.Embedding(shape.classes, size, padding_idx=0)
        self.head = nn.Linear(self.sizes[0], shape.classes)

    def forward(self, state: State, prefix: Tensor | None = None) -> Tensor:
        """Map the state, each (batch, size), and (batch, steps) tokens, the begin first, to logits.

        Returns:
            (batch, steps, tokens): of what comes after each.
        """
        assert prefix is not None, "there is always a begin"
        first = tuple(s.unsqueeze(0) for s in self.first(state))
        outputs, _ = read(self.layer, self.embedding(prefix), first)
        logits: Tensor = self.head(self.dropout(outputs))
        return logits


@torch.inference_mode()
def translate(
    models: Sequence[Model], samples: Samples, which: np.ndarray, width: int
) -> np.ndarray:
    """Say something of each text, by what all models think is the most probable.

    Args:
        models: whose mean probability counts.
        samples: the texts.
        which: of them, (n,).
        width: of the beam; 1 is greedy.

    Returns:
        (n, longest) tokens, padded with 0.
    """
    from tuner.training.model import mean_outputs

    device, shape = next(models[0].parameters()).device, models[0].shape
    parts = []
    for begin in range(0, len(which), _BATCH):
        batch = which[begin : begin + _BATCH]
        x, lengths = samples.inputs(samples.index(batch))
        states = [model.eval().state(x, lengths) for model in models]

        def next_logits(
            of: np.ndarray, prefix: np.ndarray, states: list[State] = states
        ) -> np.ndarray:
            at, said = torch.from_numpy(of).to(device), torch.from_numpy(prefix).to(device)
            logits = [
                model.head(tuple(s[at] for s in state), said)[:, -1]
                for model, state in zip(models, states, strict=True)
            ]
            return mean_outputs(logits, classes=True).double().cpu().numpy()

        parts.append(
            beam_search(
                next_logits,
                len(batch),
                tokens=shape.classes,
                longest=shape.horizon,
                width=width,
            )
        )
    return np.concatenate(parts)
