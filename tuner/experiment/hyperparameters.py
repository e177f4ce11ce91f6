"""The trainer's hyperparameters: names, defaults and allowed ranges, known without torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from tuner.experiment.explain import reword
from tuner.experiment.model import Section

__all__ = ["Hyperparameters", "check_value"]


class Hyperparameters(Section):
    """One configuration of model and training. Every key can be fixed or searched."""

    cell: Literal["lstm"] = "lstm"
    """The recurrent cell."""
    hidden_size: Annotated[int, Field(ge=1, le=8192, strict=True)] = 32
    """Units of every recurrent layer (of each direction, where bidirectional)."""
    num_layers: Annotated[int, Field(ge=1, le=16, strict=True)] = 1
    """Stacked recurrent layers."""
    dropout: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    """Probability of dropping a unit between layers and before the head."""
    bidirectional: Annotated[bool, Field(strict=True)] = False
    """Whether the window is also read backwards."""
    batch_size: Annotated[int, Field(ge=1, le=1_048_576, strict=True)] = 32
    """Windows in one step of the optimizer."""
    learning_rate: Annotated[float, Field(gt=0, le=10, strict=True)] = 1e-3
    """Step size of Adam."""
    gradient_clip: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] = 1.0
    """Largest norm of the gradient; a longer one is scaled down to it."""


def check_value(name: str, value: Any) -> str | None:
    """Say what forbids `value` for the hyperparameter `name`; None if nothing does."""
    try:
        Hyperparameters.model_validate({name: value})
    except ValidationError as error:
        return reword(error.errors()[0]["msg"])
    return None
