"""The model, its predictions, ensembles of models, and averages of weights."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.data import DataRef, PairsRef, Shape
from tuner.data.vocabulary import beam_search
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Outcome, OutcomeState, PredictJob, Weights
from tuner.training.device import give_memory_back, peak_memory_mb, pick_device, seeded
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
    real_steps,
    split_future,
    zero_padding,
)
from tuner.training.linear_path import LinearPath, SequencePath, make_path
from tuner.training.optimizers import joined
from tuner.training.recurrent import Decoder, InSegments, Recurrent, Recursive, State, Translator
from tuner.training.samples import Samples, open_samples, split
from tuner.training.user_models import UserModel, is_whole, load_class
from tuner.user_code import is_reference

_BATCH = 1024  # samples; not the job's batch_size, so that a score repeats bit for bit
_BATCH_NUMBERS = 2**24  # numbers in a layer: long or wide sequences make smaller batches
_BATCH_TEXTS = 256
WARMUP = 3  # the k-th step counts at least 3 / (3 + k), as the first weights are random


class Model(nn.Module):
    """Maps numbers or tokens to values, quantiles, or the logits of classes.

    Recurrent layers read the steps. If every step has an output, a linear head maps each step.
    Otherwise the steps are pooled to one vector, for a linear head or as the first hidden state of
    a decoder.

    Before the layers come, if configured, a decomposition of the targets, a convolution and
    segments. A forecast may have a normalization of each window, whose inverse is the last
    operation, and a linear path, added before the inverse; sequences of one length may also have
    a linear path. Categories become embeddings beside the numbers, except for the linear path.
    Known future values are inputs of the linear path and of the decoder or a local head.

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
            self.own = UserModel(parameters, inner, shape.inputs if shape.vocabulary else inputs)
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
        """The linear layer of the values, quantiles or logits."""
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
            x: (batch, steps, inputs), or tokens, (batch, steps); see `layers.split_future`.
            lengths: numbers of real steps, (batch,), on the CPU; all by default.
            prefix: tokens of translations so far, (batch, tokens), the begin token first.

        Returns:
            Forecasts and values: (batch, horizon, targets), quantiles (batch, horizon, targets,
            quantiles). Classes: logits, (batch, classes). Of every step values, (batch, steps,
            targets), or logits, (batch, steps, classes), undefined at padded steps. Translations:
            logits of the token after each of the prefix, (batch, tokens, classes).
        """
        embedded, known = self._embed(x)
        x, coming = split_future(x, self.shape)
        ahead = None if coming is None else beside(coming, known)
        x, level = self._normalize(x)
        y: Tensor
        if self.own is not None:
            y = self.own(beside(self._split(x), embedded), lengths, ahead)
            return y if level is None else level.denormalize(y)
        outputs, state, real = self._encode(x, lengths, embedded)
        if self.pooling is None:
            y = self.head(self.dropout(outputs))
            return y
        pooled = self.pooling(outputs, state[0], real)  # (batch, width)
        if isinstance(self.head, Translator):
            y = self.head((pooled, *state[1:]), prefix)
            return y
        if isinstance(self.head, Decoder):
            y = self.head((pooled, *state[1:]), ahead)
        else:
            pooled = self.dropout(pooled)
            y = self.head(pooled)
            if self.local is not None and ahead is not None:
                y = y + self.local(pooled, ahead)
            y = y if self.shape.classes else as_values(y, self.shape)
        if self.linear_path is not None:
            linear = self.linear_path(x, coming)  # (batch, horizon, targets), or logits
            y = y + (linear.unsqueeze(3) if self.shape.quantiles else linear)
        return y if level is None else level.denormalize(y)

    def state(self, x: Tensor, lengths: Tensor | None = None) -> State:
        """Return the first state of the translator, each (batch, size)."""
        outputs, state, real = self._encode(x, lengths)
        assert self.pooling is not None
        return (self.pooling(outputs, state[0], real), *state[1:])

    def attention(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights, (batch, steps), 0 for padding; segments share theirs."""
        assert isinstance(self.pooling, Attention)
        embedded, _ = self._embed(x)
        x, _ = split_future(x, self.shape)
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
        """Return outputs and last state of the recurrent layers, and a mask of real steps.

        With segments a step is a segment.
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
        """Set all parameters and buffers to those of `weights`."""
        self.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})


class Ensemble(nn.Module):
    """The mean of several models of one configuration, see `mean_outputs`."""

    def __init__(self, models: Sequence[Model]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.shape = models[0].shape

    @property
    def linear_path(self) -> LinearPath | SequencePath | None:
        """The path of the first model: all have one, or none."""
        first = self.models[0]
        assert isinstance(first, Model)
        return first.linear_path

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, prefix: Tensor | None = None
    ) -> Tensor:
        """Return the mean outputs; see `Model.forward`."""
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


def predict(job: PredictJob) -> Outcome:
    """Predict every sample of the evaluation part, in the data's units."""
    started = time.perf_counter()
    try:
        predictions, attention = _predict(job)
    finally:
        give_memory_back()
    return Outcome(
        OutcomeState.COMPLETE,
        seconds=time.perf_counter() - started,
        finished_at=time.time(),
        peak_memory_mb=peak_memory_mb(),
        predictions=predictions,
        attention=attention,
    )


def _predict(job: PredictJob) -> tuple[np.ndarray, np.ndarray | None]:
    parameters = Hyperparameters(**job.hyperparameters)
    device = pick_device(job.device)
    data = job.data.with_window(parameters.window)
    samples = open_samples(data, device)
    with seeded(0, device):  # the constructor draws weights
        model = Model(parameters, data.shape).to(device)
    scored = data.evaluate_samples()
    index = samples.index(scored)
    every = (job.weights, *job.others)
    if isinstance(data, PairsRef):
        models = [copy.deepcopy(model) for _ in every]
        for each, weights in zip(models, every, strict=True):
            each.load_weights(weights)
        return translate(models, samples, scored, parameters.beam), None
    outputs, attention = [], []
    for weights in every:
        model.load_weights(weights)
        outputs.append(model_outputs(model, samples, index))
        if model.attends:
            attention.append(_attention(model, samples, index))
    together = mean_outputs(outputs, bool(data.shape.classes))
    attended = np.mean(attention, axis=0) if attention else None
    return in_units(together, data, scored), attended


@torch.inference_mode()
def model_outputs(model: Model, samples: Samples, index: Tensor) -> Tensor:
    """Return the outputs of the model for samples, without dropout.

    These are scaled values, (samples, horizon, targets[, quantiles]), or logits, (samples,
    classes). Where every step has an output, the real steps of all samples are concatenated:
    (steps, 1, targets) or (steps, classes).
    """
    model.eval()
    parts = []
    for batch in _batches(model, samples, index):
        x, lengths = samples.inputs(batch)
        outputs = model(x, lengths)
        if model.shape.each_step:
            if lengths is None:
                outputs = outputs.flatten(0, 1)
            else:
                outputs = outputs[real_steps(lengths, x.shape[1], x.device)]
            outputs = outputs if model.shape.classes else outputs.unsqueeze(1)
        parts.append(outputs)
    return torch.cat(parts)


def in_units(outputs: Tensor, data: DataRef, samples: np.ndarray) -> np.ndarray:
    """Return `model_outputs` in the data's units, float64, or as probabilities."""
    if data.shape.classes:
        outputs = functional.softmax(outputs.double(), dim=-1)
    return data.to_units(outputs.cpu().numpy(), samples)


@torch.inference_mode()
def _attention(model: Model, samples: Samples, index: Tensor) -> np.ndarray:
    """Return the attention weights, (samples, steps); nan after a sample's last step."""
    model.eval()
    parts = []
    for batch in _batches(model, samples, index):
        x, lengths = samples.inputs(batch)
        weights = model.attention(x, lengths)  # (batch, steps)
        if lengths is not None:
            real = real_steps(lengths, x.shape[1], x.device)
            weights = weights.masked_fill(~real, torch.nan)
        parts.append(weights.cpu().numpy())
    steps = max(part.shape[1] for part in parts)
    return np.concatenate(
        [np.pad(p, ((0, 0), (0, steps - p.shape[1])), constant_values=np.nan) for p in parts]
    )


def _batches(model: Model, samples: Samples, index: Tensor) -> Iterator[Tensor]:
    numbers = samples.longest * max(16, model.widest)  # of one sample
    return split(index, max(1, min(_BATCH, _BATCH_NUMBERS // numbers)))


@torch.inference_mode()
def translate(
    models: Sequence[Model], samples: Samples, which: np.ndarray, width: int
) -> np.ndarray:
    """Return the most probable translation of each text, by beam search.

    Args:
        models: the probabilities are their mean.
        samples: the texts.
        which: of them, (n,).
        width: of the beam; 1 is greedy.

    Returns:
        (n, longest) tokens, padded with 0.
    """
    device, shape = next(models[0].parameters()).device, models[0].shape
    parts = []
    for begin in range(0, len(which), _BATCH_TEXTS):
        batch = which[begin : begin + _BATCH_TEXTS]
        x, lengths = samples.inputs(samples.index(batch))
        states = [model.eval().state(x, lengths) for model in models]

        def next_logits(
            of: np.ndarray, prefix: np.ndarray, states: list[State] = states
        ) -> np.ndarray:
            at, tokens = torch.from_numpy(of).to(device), torch.from_numpy(prefix).to(device)
            logits = [
                model.head(tuple(s[at] for s in state), tokens)[:, -1]
                for model, state in zip(models, states, strict=True)
            ]
            return mean_outputs(logits, classes=True).double().cpu().numpy()

        sizes = {"tokens": shape.classes, "longest": shape.horizon, "width": width}
        parts.append(beam_search(next_logits, len(batch), **sizes))
    return np.concatenate(parts)


class WeightAverage:
    """An exponential moving average of the weights of a model.

    After step k of the optimizer: average += r (weights - average), where r is the larger of
    1 / (1 + epochs * steps) and 3 / (3 + k). The noise of the last steps cancels out (Polyak &
    Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging").

    Args:
        model: in training.
        weights: those that the optimizer has, as `joined` returned them; the others stay as they
            are in both.
        epochs: the mean age of the averaged weights, above 0.
        steps: of the optimizer in an epoch.
    """

    def __init__(
        self, model: Model, weights: Sequence[Tensor], *, epochs: float, steps: int
    ) -> None:
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, nn.RNNBase):  # cuDNN needs contiguous weights
                module.flatten_parameters()
        self._averages = [average.detach() for average in joined(self.model)]
        self._weights = [weight.detach() for weight in weights]
        kept = set(model.state_dict())  # buffers are copied, not averaged
        others = zip(self.model.named_buffers(), model.buffers(), strict=True)
        self._buffers = [(a, b) for (name, a), b in others if name in kept]
        self._least = 1 / (1 + epochs * steps)
        self.done = 0
        """Steps of the optimizer."""

    def update(self) -> None:
        """Update the average; called after each step of the optimizer."""
        self.done += 1
        rate = max(self._least, WARMUP / (WARMUP + self.done))
        torch._foreach_lerp_(self._averages, self._weights, rate)
        for average, buffer in self._buffers:
            average.copy_(buffer)
