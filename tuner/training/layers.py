"""Layers around the recurrent ones: padding, pooling, segments, embeddings, normalization."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.data import Shape
from tuner.training.device import TrainingError

__all__ = [
    "POOLINGS",
    "SPREAD",
    "Attention",
    "Categories",
    "Convolution",
    "Decomposition",
    "Last",
    "Level",
    "LocalHead",
    "Max",
    "Mean",
    "Normalization",
    "Segments",
    "as_values",
    "beside",
    "columns_of_targets",
    "middle",
    "middle_at",
    "numbers_alone",
    "numbers_per_step",
    "part",
    "real_steps",
    "reverse",
    "with_unknown_categories",
    "zero_padding",
]


def real_steps(lengths: Tensor, steps: int, device: torch.device) -> Tensor:
    """Return which steps are real, (batch, steps), of sequences with so many steps, (batch,)."""
    return torch.arange(steps, device=device) < lengths.to(device).unsqueeze(1)


def zero_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return (batch, steps, width) with zeros where it pads."""
    if lengths is None:
        return x
    return x.masked_fill(~real_steps(lengths, x.shape[1], x.device).unsqueeze(2), 0.0)


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Turn the real steps of (batch, steps, width) around; padding stays at the end."""
    if lengths is None:
        return x.flip(1)
    step = torch.arange(x.shape[1], device=x.device)
    length = lengths.to(x.device).unsqueeze(1)
    order = torch.where(step < length, length - 1 - step, step)  # (batch, steps)
    return x.gather(1, order.unsqueeze(2).expand_as(x))


class Last(nn.Module):
    """What the layer holds at the end: forwards after the last real step, backwards the first."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return one vector a sequence, (batch, width); the signature of every pooling.

        Args:
            outputs: (batch, steps, width), anything where a step pads.
            last: the hidden state at the end, (batch, width).
            real: which steps do not pad, (batch, steps); None where all are real.
        """
        return last


class Mean(nn.Module):
    """The mean over the real steps."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return one vector a sequence, (batch, width); see `Last`."""
        if real is None:
            return outputs.mean(dim=1)
        total = outputs.masked_fill(~real.unsqueeze(2), 0.0).sum(dim=1)
        return total / real.sum(dim=1, keepdim=True)


class Max(nn.Module):
    """The largest over the real steps, of every unit its own."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return one vector a sequence, (batch, width); see `Last`."""
        if real is not None:
            outputs = outputs.masked_fill(~real.unsqueeze(2), -torch.inf)
        return outputs.max(dim=1).values


class Attention(nn.Module):
    """A weighted mean over the real steps, weighted by additive attention.

    Bahdanau, Cho & Bengio (2015), "Neural Machine Translation by Jointly Learning to Align and
    Translate", appendix A.1.2, with the hidden state at the end, s, as what asks:

        e_t = v . tanh(W s + U h_t),  alpha = softmax(e),  pooled = sum_t alpha_t h_t
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)  # W
        self.key = nn.Linear(width, width, bias=False)  # U
        self.energy = nn.Linear(width, 1, bias=False)  # v

    def weigh(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return the weight of every step, (batch, steps): they sum to 1, padding has 0."""
        hidden = torch.tanh(self.query(last).unsqueeze(1) + self.key(outputs))
        energies: Tensor = self.energy(hidden).squeeze(2)  # (batch, steps)
        if real is not None:
            energies = energies.masked_fill(~real, -torch.inf)
        return energies.softmax(dim=1)

    def forward(self, outputs: Tensor, last: Tensor, real: Tensor | None) -> Tensor:
        """Return one vector a sequence, (batch, width); see `Last`."""
        if real is not None:  # 0 times what pads must be 0
            outputs = outputs.masked_fill(~real.unsqueeze(2), 0.0)
        weights = self.weigh(outputs, last, real)  # (batch, steps)
        return torch.bmm(weights.unsqueeze(1), outputs).squeeze(1)


POOLINGS: dict[str, type[nn.Module]] = {
    "last": Last,
    "mean": Mean,
    "max": Max,
    "attention": Attention,
}

"""By the name in the hyperparameter `pooling`; each is made from its width."""


class Convolution(nn.Module):
    """A 1-D convolution and ReLU; as many steps come out as go in, zeros stand around them.

    It is a linear layer over the `kernel` steps around each step, (kernel - 1) // 2 of them
    before it: no library chooses another algorithm for it, and so it repeats bit for bit.
    """

    def __init__(self, inputs: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.before = (kernel - 1) // 2
        self.linear = nn.Linear(inputs * kernel, channels)  # of (inputs, kernel), flattened

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, steps, inputs), zeros where it pads, to (batch, steps, channels)."""
        x = functional.pad(x, (0, 0, self.before, self.kernel - 1 - self.before))
        if torch.onnx.is_in_onnx_export():  # which has no such view
            steps = x.shape[1] - self.kernel + 1
            seen = torch.stack([x[:, i : steps + i] for i in range(self.kernel)], dim=3)
        else:
            seen = x.unfold(1, self.kernel, 1)  # (batch, steps, inputs, kernel)
        return functional.relu(self.linear(seen.flatten(2)))


class Segments(nn.Module):
    """Reads `length` steps as one, through a linear layer and ReLU.

    Lin et al. (2023), "SegRNN: Segment Recurrent Neural Network for Long-Term Time Series
    Forecasting", section 4.2. A window that `length` does not divide gets its oldest row
    repeated in front; a sequence gets zeros behind its end.
    """

    def __init__(self, length: int, inputs: int, width: int, *, in_front: bool) -> None:
        super().__init__()
        self.length, self.in_front = length, in_front
        self.linear = nn.Linear(length * inputs, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, steps, inputs), zeros where it pads, to (batch, segments, width)."""
        missing = -x.shape[1] % self.length
        if missing and self.in_front:
            x = torch.cat((x[:, :1].expand(-1, missing, -1), x), dim=1)
        elif missing:
            x = functional.pad(x, (0, 0, 0, missing))
        return functional.relu(self.linear(x.reshape(x.shape[0], -1, self.linear.in_features)))

    def count(self, lengths: Tensor) -> Tensor:
        """Return in how many segments so many steps are."""
        return (lengths + self.length - 1) // self.length

    def spread(self, weights: Tensor, steps: int, lengths: Tensor | None) -> Tensor:
        """Give each segment's weight to its steps in equal shares; steps that pad get 0.

        Args:
            weights: (batch, segments).
            steps: how many steps were read.
            lengths: (batch,), how many of them are real; all by default.

        Returns:
            (batch, steps); it adds up to what the weights do.
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


def numbers_per_step(shape: Shape) -> int:
    """Return how many numbers say what a step of the horizon comes to."""
    return shape.targets * max(1, len(shape.quantiles))


def as_values(numbers: Tensor, shape: Shape) -> Tensor:
    """Map (batch, steps * numbers_per_step) to (batch, steps, targets), or (..., quantiles).

    Quantiles cannot cross: the lowest is put out, and every other one as a positive step up.
    """
    if not shape.quantiles:
        return numbers.view(numbers.shape[0], -1, shape.targets)
    numbers = numbers.view(numbers.shape[0], -1, shape.targets, len(shape.quantiles))
    lowest, steps = numbers[..., :1], functional.softplus(numbers[..., 1:])
    return torch.cat((lowest, lowest + steps.cumsum(dim=-1)), dim=-1)


def middle(values: Tensor, shape: Shape) -> Tensor:
    """Return the one value of each target, of quantiles the one nearest to the median."""
    return values[..., middle_at(shape)] if shape.quantiles else values


def middle_at(shape: Shape) -> int:
    """Return the place of the quantile that is nearest to the median."""
    return min(range(len(shape.quantiles)), key=lambda i: abs(shape.quantiles[i] - 0.5))


SPREAD = 1e-5

"""Added to a window's variance, as RevIN does: a window that does not move is not blown up."""


def columns_of_targets(shape: Shape, key: str) -> list[int]:
    """Return the input column of each target.

    Raises:
        TrainingError: a target is not read, which the hyperparameter `key` needs.
    """
    columns = list(shape.target_columns)
    if len(columns) != shape.targets or -1 in columns:
        raise TrainingError(f"{key}: needs every target among the features")
    return columns


@dataclass(frozen=True)
class Level:
    """What was taken off the windows of a batch, in scaled units."""

    shift: Tensor  # (batch, 1, targets)
    spread: Tensor | None  # (batch, 1, targets), above 0; None where nothing is divided

    def take_off(self, targets: Tensor) -> Tensor:
        """Bring (batch, horizon, targets) to the level of the windows."""
        targets = targets - self.shift
        return targets if self.spread is None else targets / self.spread

    def put_back(self, values: Tensor) -> Tensor:
        """Undo `take_off`, also of (batch, horizon, targets, quantiles)."""
        shift, spread = self.shift, self.spread
        if values.ndim == 4:
            shift = shift.unsqueeze(3)
            spread = None if spread is None else spread.unsqueeze(3)
        return (values if spread is None else values * spread) + shift


class Normalization(nn.Module):
    """Takes the level of the targets off a window, from their columns and those of their lags.

    By kind, of the window's values x_1 ... x_L of a target:

    * last: x - x_L (NLinear of Zeng et al. 2023, "Are Transformers Effective for Time Series
      Forecasting?");
    * mean: x - E[x];
    * standard: (x - E[x]) / sqrt(Var[x] + 1e-5), the variance biased (Kim et al. 2022,
      "Reversible Instance Normalization", eq. 1 and 2 with gamma 1 and beta 0).

    `Level.put_back` is the inverse (eq. 4 there). Other columns keep their level; modes of a
    target, which have none, are divided by its spread.
    """

    def __init__(self, kind: str, shape: Shape) -> None:
        super().__init__()
        self.kind = kind
        self.columns = columns_of_targets(shape, "normalize")
        of = [0] * shape.inputs  # whose level a column has
        takes = [0.0] * shape.inputs
        for target, column in enumerate(self.columns):
            of[column], takes[column] = target, 1.0
        for column, target in shape.lag_columns:
            of[column], takes[column] = target, 1.0
        over = list(takes)
        for column in range(shape.features, shape.inputs):  # modes swing around 0
            of[column], over[column] = (column - shape.features) // shape.modes, 1.0
        self.of: Tensor
        self.takes: Tensor
        self.over: Tensor
        self.register_buffer("of", torch.tensor(of), persistent=False)
        self.register_buffer("takes", torch.tensor(takes), persistent=False)
        self.register_buffer("over", torch.tensor(over), persistent=False)

    def level(self, x: Tensor) -> Level:
        """Return the level of windows, (batch, window, features)."""
        own = x[:, :, self.columns]  # (batch, window, targets)
        if self.kind == "last":
            return Level(own[:, -1:], None)
        mean = own.mean(dim=1, keepdim=True)
        if self.kind == "mean":
            return Level(mean, None)
        variance = (own - mean).square().mean(dim=1, keepdim=True)
        return Level(mean, (variance + SPREAD).sqrt())

    def forward(self, x: Tensor) -> tuple[Tensor, Level]:
        """Return windows without their level, and the level."""
        level = self.level(x)
        x = x - level.shift[:, :, self.of] * self.takes
        if level.spread is not None:
            x = x / (level.spread[:, :, self.of] * self.over + (1 - self.over))
        return x, level


class Decomposition(nn.Module):
    """Puts the parts of each target's window side by side.

    * A moving average is the trend, and what it leaves the remainder (Wu et al. 2021,
      "Autoformer", eq. 1; Zeng et al. 2023, "Are Transformers Effective for Time Series
      Forecasting?", DLinear). The first and last row of the window are repeated around it, the
      first one once more where the length is even: no other row plays a role.
    * Modes stand in the last columns already (`tuner.data.features`); what they leave is the
      last part.

    Out come the remainders of all targets, the other columns in their order, and the trends.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.columns = columns_of_targets(shape, "decompose")
        self.inputs, self.length, self.modes = shape.inputs, shape.trend, shape.modes
        self.behind = (self.length - 1) // 2 if self.length else 0
        """Rows that are repeated behind the window."""
        self.before = self.length - 1 - self.behind if self.length else 0
        """Rows that are repeated before it."""
        others = [i for i in range(shape.inputs) if i not in self.columns]
        self.others: Tensor
        self.register_buffer("others", torch.tensor(others, dtype=torch.long), persistent=False)
        self.width = shape.inputs + (len(self.columns) if self.length else 0)
        """What comes out of a step."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, window, inputs) to (batch, window, width)."""
        own = x[:, :, self.columns]  # (batch, window, targets)
        rest = x.index_select(2, self.others)
        if not self.length:
            first = self.inputs - self.modes * len(self.columns)
            modes = x[:, :, first:].reshape(*own.shape, self.modes)
            return torch.cat((own - modes.sum(dim=3), rest), dim=2)
        columns = own.transpose(1, 2)
        padded = functional.pad(columns, (self.before, self.behind), mode="replicate")
        trend = functional.avg_pool1d(padded, self.length, stride=1).transpose(1, 2)
        return torch.cat((own - trend, rest, trend), dim=2)


_UNKNOWN = 0

_SPREAD = 0.1

"""Standard deviation of first values: categories are little apart before they are learned."""


class Categories(nn.Module):
    """An embedding of each column of categories, the same one in the window and in rows to come.

    Entity embeddings of Guo and Berkhahn (2016), "Entity Embeddings of Categorical Variables". A
    vector has `embedding_size` numbers, and no more than the column has categories, the unknown
    one among them.
    """

    def __init__(self, shape: Shape, size: int) -> None:
        super().__init__()
        self.ahead = shape.ahead
        self.columns = [column for column, _ in shape.categories]
        self.known = [at for at, c in enumerate(self.columns) if c in shape.known_columns]
        """Which of these columns are known in the rows to come."""
        widths = [min(size, n) for _, n in shape.categories]
        self.vectors = nn.ParameterList(
            nn.Parameter(_SPREAD * torch.randn(n, width))
            for (_, n), width in zip(shape.categories, widths, strict=True)
        )
        """Of each column those of its categories, (categories, width), the unknown one first."""
        self.width, self.known_width = sum(widths), sum(widths[at] for at in self.known)

    def embedded_shape(self, shape: Shape) -> Shape:
        """Return the shape of what is read where embeddings stand beside the numbers."""
        begin = shape.features
        known = (*shape.known_columns, *range(begin, begin + self.known_width))
        return dataclasses.replace(shape, known_columns=known, categories=())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map what is read, (batch, steps, inputs), rows to come behind the window, to embeddings.

        Returns:
            (batch, window, width), and (batch, horizon, known width); None where none is known.
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
    """Put embeddings behind numbers, each (batch, steps, numbers)."""
    return x if embedded is None else torch.cat((x, embedded.to(x.dtype)), dim=2)


def with_unknown_categories(
    x: Tensor, shape: Shape, rate: float, generator: torch.Generator
) -> Tensor:
    """Return what is read where some categories are unknown.

    Of each sample a category is drawn to be unknown with a probability of `rate`, and then is so in
    all of its rows, as if the training part did not hold it. A value alone would tell little: the
    rows beside it would still say which series it is of.

    Args:
        x: (batch, steps, inputs).
        shape: of the data.
        rate: from 0 to below 1.
        generator: draws, on the CPU.
    """
    sizes = [size for _, size in shape.categories]
    drawn = torch.rand(len(x), sum(sizes), generator=generator).to(x.device) < rate
    x = x.clone()
    for (column, _), unknown in zip(
        shape.categories, torch.split(drawn, sizes, dim=1), strict=True
    ):
        values = x[:, :, column]
        x[:, :, column] = values.masked_fill(unknown.gather(1, values.long()), _UNKNOWN)
    return x


def part(x: Tensor, shape: Shape) -> tuple[Tensor, Tensor | None]:
    """Part what is read into the window and what is known of the rows to come.

    Args:
        x: (batch, steps, features); of a forecast with columns that are known ahead the last
            `horizon` steps are rows to come. Other columns of these are never looked at.
        shape: of the data.

    Returns:
        (batch, steps, features), and (batch, horizon, known columns); None where nothing is known.
        The numbers of categories say nothing by their size: they are 0.
    """
    if shape.categories:
        x = x * torch.tensor(numbers_alone(shape), dtype=x.dtype, device=x.device)
    if not shape.ahead:
        return x, None
    return x[:, : -shape.ahead], x[:, -shape.ahead :, list(shape.known_columns)]


def numbers_alone(shape: Shape) -> list[float]:
    """Return 1 for each input that is a number, 0 for a category, (inputs,)."""
    columns = {column for column, _ in shape.categories}
    return [float(at not in columns) for at in range(shape.inputs)]


class LocalHead(nn.Module):
    """Says what each step of the horizon comes to from what is known of it, beside a head.

    The local network of Wen et al. (2017), "A Multi-Horizon Quantile Recurrent Forecaster",
    section 3.1: one for all steps, with one hidden layer, here of ReLU. It reads what the
    recurrent layers came to and the known columns of its step; what it puts out is added to what
    the head says.
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
