"""The model: recurrent layers read a sequence, a head says what it comes to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Weights
from tuner.training.decoder import Recursive
from tuner.training.padding import real_steps
from tuner.training.pooling import POOLINGS, Attention
from tuner.training.recurrent import Recurrent, State
from tuner.training.values import as_values, numbers_per_step

__all__ = ["Model"]


class Model(nn.Module):
    """Reads numbers or tokens; puts out values, quantiles, or the logits of classes.

    To label, a linear head reads what the layers put out at every step. Everything else reads
    one vector pooled from all steps: by a linear head, or, in a forecast with the recursive
    decoder, as the hidden state with which the decoder begins.

    The parameters' first values come from torch's global generator.
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        inputs = shape.features
        self.embedding = None
        if shape.vocabulary:
            inputs = parameters.embedding_size
            self.embedding = nn.Embedding(shape.vocabulary, inputs, padding_idx=0)
        self.recurrent = Recurrent(parameters, inputs)
        width = self.recurrent.width
        self.pooling = None if shape.task == "label" else POOLINGS[parameters.pooling](width)
        self.dropout = nn.Dropout(parameters.dropout)
        self.head: nn.Module
        if shape.task == "forecast" and parameters.decoder == "recursive":
            self.head = Recursive(parameters, shape, self.recurrent.state_sizes)
        else:
            self.head = nn.Linear(width, shape.classes or shape.horizon * numbers_per_step(shape))

    @property
    def attends(self) -> bool:
        """Whether `attention` has weights to give."""
        return isinstance(self.pooling, Attention)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Say what sequences come to.

        Args:
            x: (batch, steps, features), or tokens, (batch, steps).
            lengths: (batch,), on the CPU: how many steps of each are real; all by default.

        Returns:
            To forecast and regress (batch, horizon, targets), with quantiles (batch, horizon,
            targets, quantiles); to classify logits, (batch, classes); to label logits, (batch,
            steps, classes), anything where x pads.
        """
        outputs, state, real = self._encode(x, lengths)
        if self.pooling is None:
            labels: Tensor = self.head(self.dropout(outputs))
            return labels
        pooled = self.pooling(outputs, state[0], real)  # (batch, width)
        if isinstance(self.head, Recursive):
            forecast: Tensor = self.head((pooled, *state[1:]))
            return forecast
        numbers: Tensor = self.head(self.dropout(pooled))
        return numbers if self.shape.classes else as_values(numbers, self.shape)

    def attention(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return how much each step weighs in attention pooling, (batch, steps); padding 0."""
        assert isinstance(self.pooling, Attention)
        outputs, state, real = self._encode(x, lengths)
        return self.pooling.weigh(outputs, state[0], real)

    def _encode(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Return outputs and last state of the recurrent layers, and which steps are real."""
        if self.embedding is not None:
            x = self.embedding(x)
        outputs, state = self.recurrent(x, lengths)
        real = None if lengths is None else real_steps(lengths, x.shape[1], x.device)
        return outputs, state, real

    def weights(self) -> Weights:
        """Return a copy of the parameters as numpy arrays."""
        return {name: p.detach().cpu().numpy().copy() for name, p in self.named_parameters()}

    def load_weights(self, weights: Weights) -> None:
        """Set every parameter to what `weights` returned."""
        self.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
