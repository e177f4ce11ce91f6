"""The model, ensembles of it, and averages of its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Weights
from tuner.training.decoders import Decoder, InSegments, Recursive, Translator
from tuner.training.layers import (
    POOLINGS,
    Attention,
    Categories,
    Convolution,
    Decomposition,
    Level,
    LocalHead,
    Normalization,
    Segments,
    as_values,
    beside,
    numbers_per_step,
    part,
    real_steps,
    zero_padding,
)
from tuner.training.linear_path import LinearPath, SequencePath, make_path
from tuner.training.recurrent import Recurrent, State
from tuner.training.user_models import OwnModel, is_whole, load_class
from tuner.user_code import is_reference

__all__ = ["Ensemble", "Model", "WeightAverage", "mean_outputs"]


class Model(nn.Module):
    """Maps numbers or tokens to values, quantiles, or the logits of classes.

    Recurrent layers read the steps. If every step has an output, a linear head reads each step's.
    Else the steps are pooled to one vector, for a linear head or as the first hidden state of a
    decoder.

    Before the layers come, if configured, a decomposition of the targets, a convolution and
    segments. A forecast may have a normalization of each window, whose inverse is the last
    operation, and a linear path, added before the inverse; sequences of one length may also have
    a linear path. Categories become embeddings beside the numbers, but for the linear path. Known
    future values are inputs of the linear path and the decoder, without a decoder of a local head.

    Torch's global generator draws the first weights; beside a linear path those of the last layer
    are 0.
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kind = parameters.normalize
        self.normalization = None if kind == "none" else Normalization(kind, shape)
        self.linear_path = make_path(shape) if parameters.linear_path else None
        self.decomposition = Decomposition(shape) if shape.trend or shape.modes else None
        inputs = shape.inputs if self.decomposition is None else self.decomposition.width
        self.categories = None
        inner = shape
        if shape.categories:
            self.categories = Categories(shape, parameters.embedding_size)
            inner, inputs = self.categories.embedded_shape(shape), inputs + self.categories.width
        self.own = None
        if is_reference(parameters.cell) and is_whole(load_class(parameters.cell)):
            self.own = OwnModel(parameters, inner, shape.inputs if shape.vocabulary else inputs)
            self.widest = max(inputs, *parameters.widths)
            return
        self.embedding = None
        if shape.vocabulary:
            inputs = parameters.embedding_size
            self.embedding = nn.Embedding(shape.vocabulary, inputs, padding_idx=0)
        self.convolution = self.segments = None
        widest = inputs
        if channels := parameters.conv_channels:
            self.convolution = Convolution(inputs, channels, parameters.conv_kernel)
            widest, inputs = max(widest, channels), channels
        if (length := parameters.segment) > 1:
            in_front, width = shape.of_series, parameters.widths[0]
            self.segments = Segments(length, inputs, width, in_front=in_front)
            inputs = width
        self.recurrent = Recurrent(parameters, inputs)
        self.widest = max(widest, self.recurrent.widest)
        """The largest number of values of a step, in the input or a layer."""
        width = self.recurrent.width
        self.pooling = None if shape.each_step else POOLINGS[parameters.pooling](width)
        self.dropout = nn.Dropout(parameters.dropout)
        self.head: nn.Module
        self.local: LocalHead | None = None
        if shape.task == "translate":
            self.head = Translator(parameters, shape, self.recurrent.state_sizes)
        elif shape.task == "forecast" and parameters.decoder != "direct":
            decoder = Recursive if parameters.decoder == "recursive" else InSegments
            self.head = decoder(parameters, inner, self.recurrent.state_sizes)
        else:
            self.head = nn.Linear(width, shape.classes or shape.horizon * numbers_per_step(shape))
            if shape.ahead:
                self.local = LocalHead(width, inner)
        if self.linear_path is not None:
            begins_at_0 = [self.last_layer] + ([] if self.local is None else [self.local.out])
            for layer in begins_at_0:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    @property
    def last_layer(self) -> nn.Linear:
        """The linear layer that puts out values, quantiles or logits."""
        layer = self.head.head if isinstance(self.head, Decoder) else self.head
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def attends(self) -> bool:
        """Whether the pooling has attention weights."""
        return self.own is None and isinstance(self.pooling, Attention)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, prefix: Tensor | None = None
    ) -> Tensor:
        """Return the outputs for sequences.

        Args:
            x: (batch, steps, inputs), or tokens, (batch, steps); see `layers.part`.
            lengths: numbers of real steps, (batch,), on the CPU; all by default.
            prefix: of translations so far, (batch, said) tokens, the begin token first.

        Returns:
            Forecasts and values: (batch, horizon, targets), quantiles (batch, horizon, targets,
            quantiles). Classes: logits, (batch, classes). Of every step values, (batch, steps,
            targets), or logits, (batch, steps, classes), undefined at padded steps. Translations:
            logits of the token after each of the prefix, (batch, said, classes).
        """
        embedded, known = self._embed(x)
        x, coming = part(x, self.shape)
        ahead = None if coming is None else beside(coming, known)
        x, level = self._normalize(x)
        if self.own is not None:
            said: Tensor = self.own(beside(self._split(x), embedded), lengths, ahead)
            return said if level is None else level.put_back(said)
        outputs, state, real = self._encode(x, lengths, embedded)
        if self.pooling is None:
            of_steps: Tensor = self.head(self.dropout(outputs))
            return of_steps
        pooled = self.pooling(outputs, state[0], real)  # (batch, width)
        if isinstance(self.head, Translator):
            tokens: Tensor = self.head((pooled, *state[1:]), prefix)
            return tokens
        if isinstance(self.head, Decoder):
            said = self.head((pooled, *state[1:]), ahead)
        else:
            pooled = self.dropout(pooled)
            said = self.head(pooled)
            if self.local is not None and ahead is not None:
                said = said + self.local(pooled, ahead)
            said = said if self.shape.classes else as_values(said, self.shape)
        if self.linear_path is not None:
            linear = self.linear_path(x, coming)  # (batch, horizon, targets), or logits
            said = said + (linear.unsqueeze(3) if self.shape.quantiles else linear)
        return said if level is None else level.put_back(said)

    def state(self, x: Tensor, lengths: Tensor | None = None) -> State:
        """Return the state with which a translator begins, each (batch, size)."""
        outputs, state, real = self._encode(x, lengths)
        assert self.pooling is not None
        return (self.pooling(outputs, state[0], real), *state[1:])

    def attention(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights, (batch, steps), 0 for padding; segments share theirs."""
        assert isinstance(self.pooling, Attention)
        embedded, _ = self._embed(x)
        x, _ = part(x, self.shape)
        steps = x.shape[1]
        x, _ = self._normalize(x)
        outputs, state, real = self._encode(x, lengths, embedded)
        weights = self.pooling.weigh(outputs, state[0], real)
        return weights if self.segments is None else self.segments.spread(weights, steps, lengths)

    def _normalize(self, x: Tensor) -> tuple[Tensor, Level | None]:
        return (x, None) if self.normalization is None else self.normalization(x)

    def _split(self, x: Tensor) -> Tensor:
        return x if self.decomposition is None else self.decomposition(x)

    def _embed(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return (None, None) if self.categories is None else self.categories(x)

    def _encode(
        self, x: Tensor, lengths: Tensor | None, embedded: Tensor | None = None
    ) -> tuple[Tensor, State, Tensor | None]:
        """Return outputs and last state of the recurrent layers, and which steps are real.

        With segments these are the steps.
        """
        if self.embedding is not None:
            x = self.embedding(x)
        x = beside(self._split(x), embedded)
        if self.convolution is not None:
            x = self.convolution(zero_padding(x, lengths))
        if self.segments is not None:
            x = self.segments(zero_padding(x, lengths))
            lengths = None if lengths is None else self.segments.count(lengths)
        outputs, state = self.recurrent(x, lengths)
        real = None if lengths is None else real_steps(lengths, x.shape[1], x.device)
        return outputs, state, real

    def weights(self) -> Weights:
        """Return a copy of all parameters and buffers as numpy arrays."""
        return {name: p.detach().cpu().numpy().copy() for name, p in self.state_dict().items()}

    def load_weights(self, weights: Weights) -> None:
        """Set all parameters and buffers to what `weights` returned."""
        self.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})


class Ensemble(nn.Module):
    """The mean of several models of one configuration.

    It is the mean of scaled values and quantiles, or the logarithm of the mean probabilities, which
    are logits.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.shape = models[0].shape

    @property
    def linear_path(self) -> LinearPath | SequencePath | None:
        """The path of the first model: all have one, or none has."""
        first = self.models[0]
        assert isinstance(first, Model)
        return first.linear_path

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, prefix: Tensor | None = None
    ) -> Tensor:
        """Return the mean outputs, as `Model.forward` does."""
        outputs = [model(x, lengths, prefix) for model in self.models]
        return mean_outputs(outputs, bool(self.shape.classes))


def mean_outputs(outputs: Sequence[Tensor], classes: bool) -> Tensor:
    """Return the mean outputs of several models; of logits the log of the mean probability.

    Args:
        outputs: of each model, all of one shape; a single one is returned as it is.
        classes: whether they are logits, (..., classes).
    """
    if len(outputs) == 1:
        return outputs[0]
    together = torch.stack(list(outputs))
    if not classes:
        return together.mean(dim=0)
    logs = functional.log_softmax(together, dim=-1)
    return torch.logsumexp(logs, dim=0) - math.log(len(outputs))


_WARMUP = 3  # the k-th step counts at least 3 / (3 + k), as the first weights are random


class WeightAverage:
    """An exponential moving average of the weights of a model.

    After step k of the optimizer: average += r (weights - average), where r is the larger of
    1 / (1 + epochs * steps) and 3 / (3 + k). The noise of the last steps cancels out (Polyak &
    Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging").

    Args:
        model: in training.
        epochs: the mean age of the averaged weights, above 0.
        steps: of the optimizer in an epoch.
    """

    def __init__(self, model: Model, *, epochs: float, steps: int) -> None:
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, nn.RNNBase):  # cuDNN needs contiguous weights
                module.flatten_parameters()
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        # Views of the weights; frozen ones are the same in both.
        moving = [(a.detach(), w.detach()) for a, w in pairs if w.requires_grad]
        self._averages = [a for a, _ in moving]
        self._weights = [w for _, w in moving]
        kept = set(model.state_dict())  # buffers are copied, not averaged
        others = zip(self.model.named_buffers(), model.buffers(), strict=True)
        self._buffers = [(a, b) for (name, a), b in others if name in kept]
        self._least, self._done = 1 / (1 + epochs * steps), 0

    def update(self) -> None:
        """Update the average; called after each step of the optimizer."""
        self._done += 1
        rate = max(self._least, _WARMUP / (_WARMUP + self._done))
        torch._foreach_lerp_(self._averages, self._weights, rate)
        for average, buffer in self._buffers:
            average.copy_(buffer)
