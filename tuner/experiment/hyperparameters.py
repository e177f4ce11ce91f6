"""The recurrent cells, and the trainer's hyperparameters: names, defaults and allowed ranges.

All of this is known without torch. A new cell is an entry in `CELLS`, and a module of one layer in
`tuner/training/recurrent.py` that reads as `PeepholeLSTM` does, where torch has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    Tag,
    ValidationError,
    model_validator,
)

from tuner.errors import ExperimentError, one_line
from tuner.strategies.base import Section, broken_rule, optional
from tuner.user_code import is_reference, is_user_code, parse_user_code


@dataclass(frozen=True)
class Cell:
    """A recurrent cell."""

    title: str  # in sentences
    module: str  # `package.module:Class` of its layers
    operator: str = ""  # of ONNX; without one, torch traces the graph
    gates: tuple[int, ...] = ()
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

WIDTH = re.compile(r"hidden_size_([1-9]\d?)")
"""The name under which the width of one layer is searched: hidden_size_1 is the first layer's."""

WHOLE_NUMBERS = frozenset((
    "hidden_size", "num_layers", "proj_size", "embedding_size", "beam", "window", "batch_size",
    "segment", "conv_channels", "conv_kernel",
))  # fmt: skip
"""Hyperparameters that are whole numbers, as the widths of layers are."""

_MOST_LAYERS = 16

if TYPE_CHECKING:
    _CellName = str
else:
    _CellName = Literal[tuple(CELLS)]


def _check_reference(value: str) -> str:
    if not is_reference(value):
        rule = "must be a cell, or package.module:Class"
        raise ExperimentError(rule, got=repr(value), remedy="write lstm, say")
    return value


CellName = Annotated[
    Annotated[_CellName, Tag("(cell)")]
    | Annotated[str, BeforeValidator(_check_reference), Tag("(class)")],
    Discriminator(lambda v: "(class)" if isinstance(v, str) and ":" in v else "(cell)"),
]


Loss = Annotated[
    Annotated[Literal["auto", "mse", "mae", "huber", "quantile", "cross_entropy"], Tag("(loss)")]
    | Annotated[str, BeforeValidator(lambda text: parse_user_code(one_line(text))), Tag("(own)")],
    Discriminator(lambda v: "(own)" if is_user_code(v) else "(loss)"),
]

Units = Annotated[int, Field(ge=1, le=8192, strict=True)]


class Hyperparameters(Section):
    """One configuration of model and training. Every key can be fixed or searched.

    Other keys are declared by a cell from user code (`tuner.experiment.cells`).
    """

    model_config = ConfigDict(extra="allow")

    cell: CellName = "lstm"
    """The recurrent cell, or an installed class; peephole's gates also see the cell state."""
    nonlinearity: Literal["tanh", "relu"] = "tanh"
    """Activation of the cell rnn."""
    hidden_size: Units | Annotated[list[Units], Field(min_length=1, max_length=_MOST_LAYERS)] = (
        Field(32, examples=[32])
    )
    """Units of every recurrent layer (of each direction), or a list: of each layer its own."""
    num_layers: Annotated[int, Field(ge=1, le=_MOST_LAYERS, strict=True)] = 1
    """Stacked recurrent layers; the length of hidden_size where that is a list."""
    dropout: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    """Probability of dropping a unit between layers and before the head."""
    bidirectional: Annotated[bool, Field(strict=True)] = False
    """Whether the sequence is also read backwards."""
    bias: Annotated[bool, Field(strict=True)] = True
    """Whether the recurrent layers have biases."""
    proj_size: Annotated[int, Field(ge=0, le=8191, strict=True)] = 0
    """Units that an LSTM's hidden state is projected to, fewer than hidden_size; 0 for none."""
    pooling: Literal["last", "mean", "max", "attention"] = "last"
    """How the outputs of the last layer become one vector; unused where every step is predicted."""
    decoder: Literal["direct", "recursive", "segments"] = "direct"
    """The horizon at once, or from a second recurrent layer: step by step, or all segments."""
    normalize: Literal["none", "last", "mean", "standard"] = "none"
    """What is subtracted from each window and added back: last value, mean, or mean and spread."""
    linear_path: Annotated[bool, Field(strict=True)] = False
    """Whether the layers learn the residuals of a linear model of windows or whole sequences."""
    segment: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 1
    """Rows or steps that are read as one, through a linear layer."""
    conv_channels: Annotated[int, Field(ge=0, le=8192, strict=True)] = 0
    """Channels of a convolution over the steps, before they are read; 0 for none."""
    conv_kernel: Annotated[int, Field(ge=1, le=255, strict=True)] = 3
    """Steps that the convolution sees at once."""
    embedding_size: Units = 32
    """Length of a token's vector."""
    unknown_rate: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.01
    """Share of the training tokens that are read as unknown, drawn anew in every batch."""
    beam: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    """Width of the beam search for a text; 1 is greedy decoding."""
    window: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = optional(24)
    """Past rows that a forecast sees; task.window by default."""
    batch_size: Annotated[int, Field(ge=1, le=1_048_576, strict=True)] = 32
    """Windows or sequences in one step of the optimizer."""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """How the weights follow the gradient; sgd has a momentum of 0.9."""
    learning_rate: Annotated[float, Field(gt=0, le=10, strict=True)] = 1e-3
    """Step size of the optimizer."""
    weight_decay: Annotated[float, Field(ge=0, le=10, strict=True)] = 0.0
    """Pull of the weights towards 0."""
    schedule: Literal["none", "cosine", "plateau"] = "none"
    """Learning rate: constant, cosine to 0 over the epochs, or halved on a plateau."""
    gradient_clip: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] = 1.0
    """Largest norm of the gradient; a longer one is scaled down to it."""
    weight_averaging: Annotated[float, Field(ge=0, le=1000, strict=True)] = 0.0
    """Span in epochs of the weights' exponential moving average, which is kept; 0 for none."""
    loss: Loss = "auto"
    """What training minimizes; auto: mse, with quantiles quantile, with classes cross_entropy."""
    class_weights: Literal["none", "balanced"] = "none"
    """Whether rare classes weigh more in the loss, inversely to how often they are trained on."""

    @model_validator(mode="before")
    @classmethod
    def _count_layers(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(widths := values.get("hidden_size"), list):
            n_layers = values.get("num_layers", len(widths))
            if n_layers != len(widths):
                rule = f"must be the number of widths in hidden_size ({len(widths)})"
                raise ExperimentError(rule, key="num_layers", got=n_layers, remedy="leave it out")
            return values | {"num_layers": n_layers}
        return values

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_others(cls, values: Any, check: ModelWrapValidatorHandler[Any]) -> Any:
        """Allow unknown keys where the cell is user code."""
        known = cls.model_fields
        if not isinstance(values, dict) or is_reference(values.get("cell")):
            return check(values)
        if values.keys() <= known.keys():
            return check(values)
        lines: list[Any] = []
        try:
            check({name: value for name, value in values.items() if name in known})
        except ValidationError as error:
            lines += error.errors(include_url=False)
        lines += [
            {"type": "extra_forbidden", "loc": (name,), "input": value}
            for name, value in values.items()
            if name not in known
        ]
        raise ValidationError.from_exception_data(cls.__name__, lines)

    @property
    def widths(self) -> list[int]:
        """The units of every recurrent layer, the first one first."""
        if isinstance(self.hidden_size, list):
            return list(self.hidden_size)
        return [self.hidden_size] * self.num_layers


def gather_widths(values: dict[str, Any]) -> dict[str, Any]:
    """Return hyperparameters with hidden_size_1, hidden_size_2, ... as one list, hidden_size."""
    widths = {int(m[1]): v for name, v in values.items() if (m := WIDTH.fullmatch(name))}
    if not widths:
        return values
    rest = {name: v for name, v in values.items() if not WIDTH.fullmatch(name)}
    return rest | {"hidden_size": [widths[i] for i in sorted(widths)], "num_layers": len(widths)}


def check_value(name: str, value: Any) -> str | None:
    """Return the rule that `value` breaks as the hyperparameter `name`; None for none."""
    try:
        Hyperparameters.model_validate({"hidden_size" if WIDTH.fullmatch(name) else name: value})
    except ValidationError as error:
        return broken_rule(error.errors()[0])
    return None
