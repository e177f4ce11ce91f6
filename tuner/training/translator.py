"""The decoder of an encoder-decoder: what comes next, after what was said of a text so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from tuner.data import Shape
from tuner.data.decoding import beam_search
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training.decoder import Decoder
from tuner.training.recurrent import State, read
from tuner.training.samples import Samples

if TYPE_CHECKING:
    from tuner.training.model import Model

__all__ = ["Translator", "translate"]

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
    from tuner.training.ensemble import mean_outputs

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
