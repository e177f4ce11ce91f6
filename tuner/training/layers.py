"""Layers around the recurrent ones: padding, pooling, segments, embeddings, normalization."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.data import Shape
from tuner.training.device import TrainingError


def real_steps(lengths: Tensor, steps: int, device: torch.device) -> Tensor:
    """Return a mask of the real steps, (batch, steps), of sequences of the lengths (batch,)."""
    lengths = lengths.to(device, non_blocking=True)
    return torch.arange(steps, device=device) < lengths.unsqueeze(1)


def zero_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return (batch, steps, width) with zeros at padded steps."""
    if lengths is None:
        return x
    return x.masked_fill(~real_steps(lengths, x.shape[1], x.device).unsqueeze(2), 0.0)


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse the real steps of (batch, steps, width); padding stays at the end."""
    if lengths is None:
        return x.flip(1)
    step = torch.arange(x.shape[1], device=x.device)
    length = lengths.to(x.device, non_blocking=True).unsqueeze(1)
    order = torch.where(step < length, length - 1 - step, step)  # (batch, steps)
    return x.gather(1, order.unsqueeze(2).expand_as(x))


class Pooling(nn.Module):
    """Maps the steps of each sequence to one vector.

    Args:
        width: numbers of a step.
    """

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return one vector of each sequence, (batch, width).

        Args:
            outputs: (batch, steps, width), any values at padded steps.
            last: the last hidden state, (batch, width).
            real: a mask of the steps that are not padded, (batch, steps); None for all.
        """
        raise NotImplementedError


class Last(Pooling):
    """The last hidden state: forwards after the last real step, backwards after the first."""

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        return last


class Mean(Pooling):
    """The mean over the real steps."""

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        if real is None:
            return outputs.mean(dim=1)
        total = outputs.masked_fill(~real.unsqueeze(2), 0.0).sum(dim=1)
        return total / real.sum(dim=1, keepdim=True)


class Max(Pooling):
    """The maximum of every unit over the real steps."""

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        if real is not None:
            outputs = outputs.masked_fill(~real.unsqueeze(2), -torch.inf)
        return outputs.max(dim=1).values


class Attention(Pooling):
    """A weighted mean over the real steps, weighted by additive attention.

    Bahdanau, Cho & Bengio (2015), "Neural Machine Translation by Jointly Learning to Align and
    Translate", appendix A.1.2, with the last hidden state s as the query:

        e_t = v . tanh(W s + U h_t),  alpha = softmax(e),  pooled = sum_t alpha_t h_t
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.query = nn.Linear(width, width)  # W
        self.key = nn.Linear(width, width, bias=False)  # U
        self.energy = nn.Linear(width, 1, bias=False)  # v

    def weigh(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return the weights of the steps, (batch, steps), of the sum 1; 0 at padded steps."""
        hidden = torch.tanh(self.query(last).unsqueeze(1) + self.key(outputs))
        energies: Tensor = self.energy(hidden).squeeze(2)  # (batch, steps)
        if real is not None:
            energies = energies.masked_fill(~real, -torch.inf)
        return energies.softmax(dim=1)

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        if real is not None:  # padding may be infinite, and 0 times it must be 0
            outputs = outputs.masked_fill(~real.unsqueeze(2), 0.0)
        weights = self.weigh(outputs, last, real)  # (batch, steps)
        return torch.bmm(weights.unsqueeze(1), outputs).squeeze(1)


POOLINGS = {"last": Last, "mean": Mean, "max": Max, "attention": Attention}
"""Poolings by the value of the hyperparameter `pooling`."""


class Convolution(nn.Module):
    """A 1-D convolution with zero padding to the same length, and ReLU.

    It is a linear layer over the `kernel` steps around each step, (kernel - 1) // 2 of them
    before it. Unlike a library's convolution, which chooses among algorithms, it repeats bit for
    bit.
    """

    def __init__(self, inputs: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.before = (kernel - 1) // 2
        self.linear = nn.Linear(inputs * kernel, channels)  # of (inputs, kernel), flattened

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, steps, inputs), zeros at padded steps, to (batch, steps, channels)."""
        x = functional.pad(x, (0, 0, self.before, self.kernel - 1 - self.before))
        if torch.onnx.is_in_onnx_export():  # ONNX has no unfold
            steps = x.shape[1] - self.kernel + 1
            seen = torch.stack([x[:, i : steps + i] for i in range(self.kernel)], dim=3)
        else:
            seen = x.unfold(1, self.kernel, 1)  # (batch, steps, inputs, kernel)
        return functional.relu(self.linear(seen.flatten(2)))


class Segments(nn.Module):
    """Maps every `length` steps to one, by a linear layer and ReLU.

    Lin et al. (2023), "SegRNN: Segment Recurrent Neural Network for Long-Term Time Series
    Forecasting", section 4.2. A window that `length` does not divide gets its oldest row
    repeated in front; a sequence gets zeros behind its end.
    """

    def __init__(self, length: int, inputs: int, width: int, *, in_front: bool) -> None:
        super().__init__()
        self.length, self.in_front = length, in_front
        self.linear = nn.Linear(length * inputs, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, steps, inputs), zeros at padded steps, to (batch, segments, width)."""
        return functional.relu(self.linear(self.join(x)))

    def join(self, x: Tensor) -> Tensor:
        """Lay the steps of a segment side by side: (batch, segments, length * inputs)."""
        missing = -x.shape[1] % self.length
        if missing and self.in_front:
            x = torch.cat((x[:, :1].expand(-1, missing, -1), x), dim=1)
        elif missing:
            x = functional.pad(x, (0, 0, 0, missing))
        return x.reshape(x.shape[0], -1, self.linear.in_features)

    def count(self, lengths: Tensor) -> Tensor:
        """Return the number of segments of sequences of some lengths, (batch,)."""
        return (lengths + self.length - 1) // self.length

    def spread(self, weights: Tensor, steps: int, lengths: Tensor | None) -> Tensor:
        """Share each segment's weight equally among its real steps; padded steps get 0.

        Args:
            weights: (batch, segments).
            steps: of the sequences.
            lengths: numbers of real steps, (batch,); all by default.

        Returns:
            (batch, steps), with the same sum.
        """
        device = weights.device
        step = torch.arange(steps, device=device)
        segment = (step + (-steps % self.length if self.in_front else 0)) // self.length
        real = torch.ones(len(weights), steps, dtype=torch.bool, device=device)
        if lengths is not None:
            real = real_steps(lengths, steps, device)
        index = segment.expand_as(real)
        counts = torch.zeros_like(weights).scatter_add_(1, index, real.to(weights.dtype))
        return (weights / counts.clamp(min=1)).gather(1, index) * real


SPREAD = 1e-5
"""Added to a window's variance, as in RevIN, so that constant windows are not divided by 0."""


def columns_of_targets(shape: Shape, key: str) -> list[int]:
    """Return the input column of each target.

    Raises:
        TrainingError: a target is no input, but the hyperparameter `key` needs it.
    """
    columns = list(shape.target_columns)
    if len(columns) != shape.targets or -1 in columns:
        raise TrainingError("needs every target among the features", key=key)
    return columns


def pick(x: Tensor, columns: Sequence[int]) -> Tensor:
    """Return columns of (..., inputs): a view if they follow one another, otherwise a copy.

    A list as an index would first be copied to the device, for which a GPU would wait.
    """
    first, n = columns[0], len(columns)
    if list(columns) == list(range(first, first + n)):
        return x.narrow(-1, first, n)
    return torch.stack([x.select(-1, column) for column in columns], dim=-1)


@dataclass(frozen=True)
class Level:
    """Shift and spread of the windows of a batch, in scaled units."""

    shift: Tensor  # (batch, 1, targets)
    spread: Tensor | None  # (batch, 1, targets), above 0; None for 1

    def normalize(self, targets: Tensor) -> Tensor:
        """Normalize targets, (batch, horizon, targets)."""
        targets = targets - self.shift
        return targets if self.spread is None else targets / self.spread

    def denormalize(self, values: Tensor) -> Tensor:
        """Undo `normalize`, also of (batch, horizon, targets, quantiles)."""
        shift, spread = self.shift, self.spread
        if values.ndim == 4:
            shift = shift.unsqueeze(3)
            spread = None if spread is None else spread.unsqueeze(3)
        return (values if spread is None else values * spread) + shift


class Normalization(nn.Module):
    """Normalizes the columns of the targets and of their lags, each window by its own level.

    By kind, of the window's values x_1 ... x_L of a target:

    * last: x - x_L (NLinear of Zeng et al. 2023, "Are Transformers Effective for Time Series
      Forecasting?");
    * mean: x - E[x];
    * standard: (x - E[x]) / sqrt(Var[x] + 1e-5), the variance biased (Kim et al. 2022,
      "Reversible Instance Normalization", eq. 1 and 2 with gamma 1 and beta 0).

    `Level.denormalize` is the inverse (eq. 4 there). Other columns stay as they are; modes of a
    target, which swing around 0, are only divided by its spread.
    """

    def __init__(self, kind: str, shape: Shape) -> None:
        super().__init__()
        self.kind = kind
        self.columns = columns_of_targets(shape, "normalize")
        of, takes = [0] * shape.inputs, [0.0] * shape.inputs
        own = ((column, target) for target, column in enumerate(self.columns))
        for column, target in (*own, *shape.lag_columns):
            of[column], takes[column] = target, 1.0
        over = list(takes)
        for column in range(shape.features, shape.inputs):  # modes swing around 0
            of[column], over[column] = (column - shape.features) // shape.modes, 1.0
        # By columns: the target, whether its shift is subtracted, whether its spread divides.
        self.of = nn.Buffer(torch.tensor(of), persistent=False)
        self.takes = nn.Buffer(torch.tensor(takes), persistent=False)
        self.over = nn.Buffer(torch.tensor(over), persistent=False)
        self.only_targets = self.columns == list(range(shape.inputs))
        """Whether the columns are the targets, in their order."""

    def level(self, x: Tensor) -> Level:
        """Return the level of windows, (batch, window, features)."""
        own = pick(x, self.columns)  # (batch, window, targets)
        if self.kind == "last":
            return Level(own[:, -1:], None)
        mean = own.mean(dim=1, keepdim=True)
        if self.kind == "mean":
            return Level(mean, None)
        variance = (own - mean).square().mean(dim=1, keepdim=True)
        return Level(mean, (variance + SPREAD).sqrt())

    def forward(self, x: Tensor) -> tuple[Tensor, Level]:
        """Return normalized windows, and their level."""
        level = self.level(x)
        if self.only_targets:
            return level.normalize(x), level
        x = x - level.shift.index_select(2, self.of) * self.takes
        if level.spread is not None:
            x = x / (level.spread.index_select(2, self.of) * self.over + (1 - self.over))
        return x, level


class Decomposition(nn.Module):
    """Splits each target's window into parts.

    * A moving average is the trend, the rest the remainder (Wu et al. 2021, "Autoformer", eq. 1;
      Zeng et al. 2023, "Are Transformers Effective for Time Series Forecasting?", DLinear). The
      window is padded with its first and last row, once more with the first where the length is
      even.
    * Modes are the last columns of the input (`tuner.data.features`); they are subtracted.

    The outputs are the remainders of all targets, the other columns in their order, and the trends.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.columns = columns_of_targets(shape, "decompose")
        self.inputs, self.length, self.modes = shape.inputs, shape.trend, shape.modes
        self.behind = (self.length - 1) // 2 if self.length else 0
        """Rows of padding after the window."""
        self.before = self.length - 1 - self.behind if self.length else 0
        """Rows of padding before the window."""
        others = [i for i in range(shape.inputs) if i not in self.columns]
        self.others = nn.Buffer(torch.tensor(others, dtype=torch.long), persistent=False)
        self.width = shape.inputs + (len(self.columns) if self.length else 0)
        """Numbers of a step after the split."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, window, inputs) to (batch, window, width)."""
        own = pick(x, self.columns)  # (batch, window, targets)
        rest = x.index_select(2, self.others)
        if not self.length:
            first = self.inputs - self.modes * len(self.columns)
            modes = x[:, :, first:].reshape(*own.shape, self.modes)
            return torch.cat((own - modes.sum(dim=3), rest), dim=2)
        columns = own.transpose(1, 2)
        padded = functional.pad(columns, (self.before, self.behind), mode="replicate")
        trend = functional.avg_pool1d(padded, self.length, stride=1).transpose(1, 2)
        return torch.cat((own - trend, rest, trend), dim=2)


_UNKNOWN_CATEGORY = 0
_FIRST_SPREAD = 0.1  # standard deviation of first embeddings: they are close before training


class Categories(nn.Module):
    """An embedding of each categorical column, shared by the window and the known future rows.

    Entity embeddings of Guo and Berkhahn (2016), "Entity Embeddings of Categorical Variables". A
    vector has `embedding_size` numbers, or as many as there are categories, with the unknown one,
    if these are fewer.
    """

    def __init__(self, shape: Shape, size: int) -> None:
        super().__init__()
        self.ahead = shape.ahead
        self.columns = [column for column, _ in shape.categories]
        self.known = [at for at, c in enumerate(self.columns) if c in shape.known_columns]
        """Indices of the columns that are known in future rows."""
        widths = [min(size, n) for _, n in shape.categories]
        self.vectors = nn.ParameterList(
            nn.Parameter(_FIRST_SPREAD * torch.randn(n, width))
            for (_, n), width in zip(shape.categories, widths, strict=True)
        )
        """Embeddings of each column, (categories, width), the unknown one first."""
        self.width, self.known_width = sum(widths), sum(widths[at] for at in self.known)

    def embedded_shape(self, shape: Shape) -> Shape:
        """Return the shape of inputs with the embeddings behind the numbers."""
        begin = shape.features
        known = (*shape.known_columns, *range(begin, begin + self.known_width))
        return dataclasses.replace(shape, known_columns=known, categories=())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map inputs, (batch, steps, inputs), the future rows last, to embeddings.

        Returns:
            (batch, window, width), and (batch, horizon, known width) or None if none are known.
        """
        steps = x.shape[1] - self.ahead
        found = [
            functional.embedding(x[:, :, column].long(), vectors)
            for column, vectors in zip(self.columns, self.vectors, strict=True)
        ]
        window = torch.cat([of[:, :steps] for of in found], dim=2)
        if not self.known:
            return window, None
        return window, torch.cat([found[at][:, steps:] for at in self.known], dim=2)


def beside(x: Tensor, embedded: Tensor | None) -> Tensor:
    """Concatenate numbers and embeddings, each (batch, steps, numbers)."""
    return x if embedded is None else torch.cat((x, embedded.to(x.dtype)), dim=2)


def with_unknown_categories(
    x: Tensor, shape: Shape, rate: float, generator: torch.Generator
) -> Tensor:
    """Replace random categories of each sample by the unknown one, in all of its rows.

    With a single row, the rows beside it would still identify the series.

    Args:
        x: (batch, steps, inputs).
        shape: of the data.
        rate: the probability of each category, in [0, 1).
        generator: on the CPU.
    """
    sizes = [size for _, size in shape.categories]
    drawn = torch.rand(len(x), sum(sizes), generator=generator) < rate
    drawn = drawn.to(x.device, non_blocking=True)
    x = x.clone()
    for (column, _), unknown in zip(
        shape.categories, torch.split(drawn, sizes, dim=1), strict=True
    ):
        values = x[:, :, column]
        x[:, :, column] = values.masked_fill(unknown.gather(1, values.long()), _UNKNOWN_CATEGORY)
    return x


def split_future(x: Tensor, shape: Shape) -> tuple[Tensor, Tensor | None]:
    """Split inputs into the window and the known future values.

    Args:
        x: (batch, steps, features); with columns that are known ahead, the last `horizon` steps
            are future rows. Their other columns are not used.
        shape: of the data.

    Returns:
        (batch, steps, features), and (batch, horizon, known columns) or None if none are known.
        Categorical columns are 0.
    """
    if shape.categories:
        x = x * _numeric(shape, x.dtype, x.device)
    if not shape.ahead:
        return x, None
    return x[:, : -shape.ahead], pick(x[:, -shape.ahead :], shape.known_columns)


@functools.lru_cache(maxsize=16)
def _numeric(shape: Shape, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it also serves training
        return torch.tensor(numeric_columns(shape), dtype=dtype, device=device)


def numeric_columns(shape: Shape) -> list[float]:
    """Return 1 for each numerical input, 0 for a categorical one, (inputs,)."""
    columns = {column for column, _ in shape.categories}
    return [float(at not in columns) for at in range(shape.inputs)]


def numbers_per_step(shape: Shape) -> int:
    """Return the number of outputs of a head for a step of the horizon."""
    return shape.targets * max(1, len(shape.quantiles))


def as_values(numbers: Tensor, shape: Shape) -> Tensor:
    """Map (batch, steps * numbers_per_step) to (batch, steps, targets), or (..., quantiles).

    Quantiles cannot cross: the numbers are the lowest one and positive steps up from it.
    """
    if not shape.quantiles:
        return numbers.view(numbers.shape[0], -1, shape.targets)
    numbers = numbers.view(numbers.shape[0], -1, shape.targets, len(shape.quantiles))
    lowest, steps = numbers[..., :1], functional.softplus(numbers[..., 1:])
    return torch.cat((lowest, lowest + steps.cumsum(dim=-1)), dim=-1)


def middle(values: Tensor, shape: Shape) -> Tensor:
    """Return the values, or of quantiles the one nearest to the median."""
    return values[..., middle_at(shape)] if shape.quantiles else values


def middle_at(shape: Shape) -> int:
    """Return the index of the quantile that is nearest to the median."""
    return min(range(len(shape.quantiles)), key=lambda i: abs(shape.quantiles[i] - 0.5))


class LocalHead(nn.Module):
    """Forecasts each step of the horizon from its known future values, beside the head.

    The local network of Wen et al. (2017), "A Multi-Horizon Quantile Recurrent Forecaster",
    section 3.1: the same for all steps, with one hidden layer, here of ReLU. Its inputs are the
    pooled state and the known columns of the step; its outputs are added to the head's.
    """

    def __init__(self, width: int, shape: Shape) -> None:
        super().__init__()
        self.known = len(shape.known_columns)
        self.hidden = nn.Linear(width + self.known, width)
        self.out = nn.Linear(width, shape.classes or numbers_per_step(shape))

    def forward(self, pooled: Tensor, coming: Tensor) -> Tensor:
        """Map (batch, width) and (batch, horizon, known) to (batch, horizon * numbers)."""
        state = pooled.unsqueeze(1).expand(-1, coming.shape[1], -1)
        hidden = functional.relu(self.hidden(torch.cat((state, coming), dim=2)))
        numbers: Tensor = self.out(hidden)
        return numbers.flatten(1)
