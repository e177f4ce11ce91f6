"""The model: recurrent layers with a head; ensembles and averaged weights of it."""

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
    """Reads numbers or tokens; puts out values, quantiles, or the logits of classes.

    Where something is said of every step, a linear head reads what the layers put out at each.
    Everything else reads one vector pooled from all steps: by a linear head, or, in a forecast
    with a decoder, as the hidden state with which the decoder begins.

    Before the layers the targets may be split into parts, and there may be a convolution, and then
    segments. Around all of it a forecast
    may have a normalization of each window, whose inverse is the last thing that is done, and,
    inside that, a linear path that is added; sequences of one length may have that path as well.
    Categories are read as embeddings beside the numbers, by all but the linear path.
    What is known of the rows to come goes to the linear path and to the decoder, step by step;
    without one a local head reads it.

    The parameters' first values come from torch's global generator; beside a linear path those
    of the last layer are 0.
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
        """The most numbers that a step is, read or in a layer."""
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
        """The linear layer whose numbers are values, quantiles or logits."""
        layer = self.head.head if isinstance(self.head, Decoder) else self.head
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def attends(self) -> bool:
        """Whether `attention` has weights to give."""
        return self.own is None and isinstance(self.pooling, Attention)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, prefix: Tensor | None = None
    ) -> Tensor:
        """Say what sequences come to.

        Args:
            x: (batch, steps, inputs), or tokens, (batch, steps); see `known_future.part`.
            lengths: (batch,), on the CPU: how many steps of each are real; all by default.
            prefix: (batch, said), tokens that were said of texts so far, the begin first.

        Returns:
            To forecast and regress (batch, horizon, targets), with quantiles (batch, horizon,
            targets, quantiles); to classify logits, (batch, classes). Of every step values,
            (batch, steps, targets), or logits, (batch, steps, classes), anything where x pads. To
            translate logits of the token after each of the prefix, (batch, said, classes).
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
        """Return what a decoder of texts begins with, each (batch, size)."""
        outputs, state, real = self._encode(x, lengths)
        assert self.pooling is not None
        return (self.pooling(outputs, state[0], real), *state[1:])

    def attention(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return how much each step weighs in attention pooling, (batch, steps); padding 0.

        The steps of a segment share its weight.
        """
        assert isinstance(self.pooling, Attention)
        embedded, _ = self._embed(x)
        x, _ = part(x, self.shape)
        steps = x.shape[1]
        x, _ = self._normalize(x)
        outputs, state, real = self._encode(x, lengths, embedded)
        weights = self.pooling.weigh(outputs, state[0], real)
        return weights if self.segments is None else self.segments.spread(weights, steps, lengths)

    def _normalize(self, x: Tensor) -> tuple[Tensor, Level | None]:
        """Return windows without their level, and the level; sequences as they are."""
        return (x, None) if self.normalization is None else self.normalization(x)

    def _split(self, x: Tensor) -> Tensor:
        """Return windows with the targets as parts, where they are split."""
        return x if self.decomposition is None else self.decomposition(x)

    def _embed(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return what categories become, in the window and in rows to come; None for none."""
        return (None, None) if self.categories is None else self.categories(x)

    def _encode(
        self, x: Tensor, lengths: Tensor | None, embedded: Tensor | None = None
    ) -> tuple[Tensor, State, Tensor | None]:
        """Return outputs and last state of the recurrent layers, and which steps are real.

        Where there are segments, these are the steps.
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
        """Return a copy of all that is trained or counted, as numpy arrays."""
        return {name: p.detach().cpu().numpy().copy() for name, p in self.state_dict().items()}

    def load_weights(self, weights: Weights) -> None:
        """Set everything to what `weights` returned."""
        self.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})


class Ensemble(nn.Module):
    """Models of one configuration; what it puts out is the mean of what they put out.

    Of values and quantiles it is the mean of the scaled outputs, so one graph gives it and what
    undoes the scaling need not know of it. Of classes it is the mean of the probabilities, put
    out as logarithms, which are logits too.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.shape = models[0].shape

    @property
    def linear_path(self) -> LinearPath | SequencePath | None:
        """That of the first model: all have one, or none has."""
        first = self.models[0]
        assert isinstance(first, Model)
        return first.linear_path

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, prefix: Tensor | None = None
    ) -> Tensor:
        """Say what sequences come to, as `Model.forward` does."""
        outputs = [model(x, lengths, prefix) for model in self.models]
        return mean_outputs(outputs, bool(self.shape.classes))


def mean_outputs(outputs: Sequence[Tensor], classes: bool) -> Tensor:
    """Return the mean of what several models put out.

    Args:
        outputs: of each; one alone is returned as it is.
        classes: whether they are logits, (..., classes).

    Returns:
        The same shape; of classes the logarithm of the mean probability.
    """
    if len(outputs) == 1:
        return outputs[0]
    together = torch.stack(list(outputs))
    if not classes:
        return together.mean(dim=0)
    logs = functional.log_softmax(together, dim=-1)
    return torch.logsumexp(logs, dim=0) - math.log(len(outputs))


_WARMUP = 3

"""The k-th step counts at least 3 / (3 + k): first weights are random, and soon forgotten."""


class WeightAverage:
    """A copy of a model whose weights follow those of the model, smoothed.

    After step k of an optimizer: average += r (weights - average), where r is the larger of
    1 / (1 + epochs * steps) and 3 / (3 + k). What noise the last steps leave in the weights cancels
    out in their mean (Polyak & Juditsky 1992, "Acceleration of Stochastic Approximation by
    Averaging").

    Args:
        model: is trained.
        epochs: over which the average goes, above 0: the mean age of what it consists of.
        steps: of the optimizer in an epoch.
    """

    def __init__(self, model: Model, *, epochs: float, steps: int) -> None:
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, nn.RNNBase):  # cuDNN wants its weights side by side
                module.flatten_parameters()
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        # Views on the numbers: what is fixed is the same in both.
        moving = [(a.detach(), w.detach()) for a, w in pairs if w.requires_grad]
        self._averages = [a for a, _ in moving]
        self._weights = [w for _, w in moving]
        kept = set(model.state_dict())  # but for what is not trained, and follows as it is
        others = zip(self.model.named_buffers(), model.buffers(), strict=True)
        self._buffers = [(a, b) for (name, a), b in others if name in kept]
        self._least, self._done = 1 / (1 + epochs * steps), 0

    def update(self) -> None:
        """Follow the model, once after each step."""
        self._done += 1
        rate = max(self._least, _WARMUP / (_WARMUP + self._done))
        torch._foreach_lerp_(self._averages, self._weights, rate)
        for average, buffer in self._buffers:
            average.copy_(buffer)
