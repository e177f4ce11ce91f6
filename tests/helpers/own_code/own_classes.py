"""Cells and models as somebody brings them, good ones and bad ones; metrics too."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

print("what a module says when it is imported is no answer")


class Leaky(nn.Module):
    """A leaky integrator: h_t = a h_{t-1} + (1 - a) g(W x_t)."""

    hyperparameters: ClassVar[dict[str, Any]] = {
        "leak": {"type": "float", "low": 0.0, "high": 0.99, "default": 0.5},
        "gate": {"type": "categorical", "choices": ["tanh", "relu"], "default": "tanh"},
    }

    def __init__(self, inputs: int, units: int, *, leak: float, gate: str) -> None:
        super().__init__()
        self.linear, self.leak, self.gate = nn.Linear(inputs, units), leak, getattr(torch, gate)

    def forward(self, x: Tensor) -> Tensor:
        h, steps = x.new_zeros(x.shape[0], self.linear.out_features), []
        for read in self.gate(self.linear(x)).unbind(1):
            h = self.leak * h + (1 - self.leak) * read
            steps.append(h)
        return torch.stack(steps, dim=1)


class Pair(nn.GRU):
    """A layer of torch's own, whose outputs come with a state."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, units, batch_first=True)


class Masked(nn.Module):
    """Reads the mean of the real steps, of which it has to be told."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        steps = x.shape[1]
        count = torch.full((x.shape[0],), steps) if lengths is None else lengths
        real = (torch.arange(steps) < count.unsqueeze(1)).unsqueeze(2)
        mean = (self.linear(x) * real).sum(dim=1, keepdim=True) / count.view(-1, 1, 1)
        return mean.expand(-1, steps, -1)


class Counting(nn.Module):
    """A whole model of forecasts, with weights that are counted and not trained."""

    hyperparameters: ClassVar[dict[str, Any]] = {
        "kernel": {"type": "int", "low": 1, "high": 5, "default": 3}
    }

    def __init__(self, shape: Any, *, hidden_size: int, kernel: int) -> None:
        super().__init__()
        self.ends = shape.horizon, shape.targets
        self.convolution = nn.Conv1d(shape.features, hidden_size, kernel, padding="same")
        self.norm = nn.BatchNorm1d(hidden_size)
        self.head = nn.Linear(hidden_size, shape.horizon * shape.targets)

    def forward(self, x: Tensor) -> Tensor:
        read = torch.relu(self.norm(self.convolution(x.transpose(1, 2))))
        return self.head(read.mean(dim=2)).view(x.shape[0], *self.ends)


class Planned(Counting):
    """Adds what is known of each step."""

    def __init__(self, shape: Any, *, hidden_size: int, kernel: int) -> None:
        super().__init__(shape, hidden_size=hidden_size, kernel=kernel)
        self.known = nn.Linear(len(shape.known_columns), shape.targets)

    def forward(self, x: Tensor, coming: Tensor) -> Tensor:
        return super().forward(x) + self.known(coming)


class Tied(nn.Module):
    """A whole model with a tied and a frozen weight, and one whose shape the first batch gives."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.ends = shape.horizon, shape.targets
        self.first, self.second = nn.LazyLinear(4), nn.Linear(4, 4)
        self.again = nn.Parameter(self.second.weight.data)  # the same memory, not the same object
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.head = nn.Linear(4, shape.horizon * shape.targets)

    def forward(self, x: Tensor) -> Tensor:
        read = torch.tanh(self.second(torch.tanh(self.first(x[:, -1])))) * self.frozen
        return self.head(torch.tanh(read @ self.again)).view(len(x), *self.ends)


class Classes(nn.Module):
    """A whole model of classes of tokens."""

    def __init__(self, shape: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(shape.vocabulary, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x).mean(dim=1)


class Unknown(torch.autograd.Function):
    """What ONNX has no name for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sinh()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class NoGraph(Leaky):
    """Works, and cannot be exported."""

    def forward(self, x: Tensor) -> Tensor:
        return Unknown.apply(super().forward(x))


class Wide(nn.Module):
    """Puts out a unit too many."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Flat(Counting):
    """Puts out no targets."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., 0]


class Outside(Leaky):
    """A default outside of its range."""

    hyperparameters: ClassVar[dict[str, Any]] = Leaky.hyperparameters | {
        "leak": {"type": "float", "low": 0.0, "high": 0.9, "default": 0.95}
    }


class Misnamed(Leaky):
    """A range of no kind."""

    hyperparameters: ClassVar[dict[str, Any]] = {
        "leak": {"type": "double", "low": 0.0, "high": 0.9, "default": 0.5}
    }

    def __init__(self, inputs: int, units: int, leak: float) -> None:
        super().__init__(inputs, units, leak=leak, gate="tanh")


class Taken(nn.Module):
    """Declares what is tuner's."""

    hyperparameters: ClassVar[dict[str, Any]] = {
        "dropout": {"type": "float", "low": 0.0, "high": 0.9, "default": 0.5}
    }

    def __init__(self, inputs: int, units: int, dropout: float) -> None:
        super().__init__()


class Undeclared(nn.Module):
    """Takes what it does not declare."""

    def __init__(self, inputs: int, units: int, secret: int) -> None:
        super().__init__()


class Strange(nn.Module):
    """Is made of neither kind of thing."""

    def __init__(self, width: int) -> None:
        super().__init__()


class NoModule:
    """No module of torch."""


def function() -> None:
    """No class."""


def late(truth: Any, forecast: Any) -> float:
    """A metric: what is forecast too low costs three times as much."""
    weights = 1 + 2 * (forecast < truth)
    return float((weights * abs(truth - forecast)).mean())


def hits(truth: Any, probabilities: Any) -> float:
    """A metric of classes."""
    return float((probabilities.argmax(axis=1) == truth).mean())


def array(truth: Any, forecast: Any) -> Any:
    """Comes to no number."""
    return truth - forecast


def writes(truth: Any, forecast: Any) -> float:
    """Spoils what the next epoch is measured by."""
    truth[:] = 0
    return 0.0


def fourth(truth: Tensor, forecast: Tensor) -> Tensor:
    """A loss."""
    return (truth - forecast).pow(4).mean()


def margin(classes: Tensor, logits: Tensor) -> Tensor:
    """A loss of classes."""
    return nn.functional.multi_margin_loss(logits, classes)


def flat(truth: Tensor, forecast: Tensor) -> Tensor:
    """No loss: nothing follows from the forecast."""
    return truth.square().mean()
