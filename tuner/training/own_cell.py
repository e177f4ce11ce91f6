"""Cells and models of one's own: an installed class as a recurrent layer, or as the whole model."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tuner.data import Shape
from tuner.errors import InputError, one_line
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.own_code import load_object
from tuner.training.errors import TrainingError
from tuner.training.padding import reverse

__all__ = ["OwnLayer", "OwnModel", "is_whole", "load_class", "outputs_of"]

_LAYER, _MODEL = ["inputs", "units"], ["shape"]


def load_class(reference: str) -> type[nn.Module]:
    """Import the class of a cell.

    Raises:
        TrainingError: it is not there, is no module of torch, or takes no arguments of either kind.
    """
    try:
        found = load_object(reference)
    except InputError as error:
        raise TrainingError(str(error)) from None
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        what = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise TrainingError(
            f"must be a class of torch.nn.Module, got {reference!r}, which is {what}; derive it "
            f"from torch.nn.Module"
        )
    taken = _taken(found)
    if taken[:2] != _LAYER and taken[:1] != _MODEL:
        got = ", ".join(taken) or "nothing"
        raise TrainingError(
            f"a layer is made of (inputs, units, ...), a whole model of (shape, ...), got "
            f"{reference!r}, which takes ({got}); name its arguments so"
        )
    return found


def is_whole(found: type[nn.Module]) -> bool:
    """Return whether a class is a whole model, not a recurrent layer."""
    return _taken(found)[:1] == _MODEL


def _taken(found: type[nn.Module]) -> list[str]:
    """Return the names of what a class is made of."""
    return list(inspect.signature(found).parameters)


def _made(found: type[nn.Module], what: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return found(**arguments)
    except Exception as error:  # whatever it does
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        problem = f"{type(error).__name__}: {one_line(error)}"
        raise TrainingError(f"{what} cannot be made of ({given}): {problem}") from error


def _called(
    module: nn.Module, what: str, x: Tensor, lengths: Tensor | None, coming: Tensor | None = None
) -> Tensor:
    """Return what a module puts out; it is given the lengths, and what is coming, if it takes them.

    Raises:
        TrainingError: it takes nothing of the rows to come, of which something is known.
    """
    takes = inspect.signature(module.forward).parameters
    if coming is not None and "coming" not in takes:
        raise TrainingError(
            f"{what} does not read what data.known_future says is known: its forward takes no "
            f"`coming`, (batch, horizon, known columns); add that, or remove data.known_future"
        )
    given = {"lengths": lengths, "coming": coming}
    said = module(x, **{name: value for name, value in given.items() if name in takes})
    if isinstance(said, tuple) and said:
        said = said[0]  # as torch's layers, whose state comes second
    if not isinstance(said, Tensor):
        raise TrainingError(f"{what} must put out a tensor, got {type(said).__name__}")
    return said


class OwnLayer(nn.Module):
    """A class of one's own as a recurrent layer, one for each direction.

    It is made of (inputs, units, ...) and maps (batch, steps, inputs) to (batch, steps, units); of
    sequences that end earlier it may put out anything where they pad. Its state is what it puts
    out at the last real step.
    """

    def __init__(
        self, parameters: Hyperparameters, inputs: int, units: int, *, bidirectional: bool
    ) -> None:
        super().__init__()
        self.what, self.units = parameters.cell, units
        found = load_class(parameters.cell)
        arguments = {"inputs": inputs, "units": units, **(parameters.model_extra or {})}
        made = [_made(found, self.what, arguments) for _ in range(1 + bidirectional)]
        self.ways = nn.ModuleList(made)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, tuple[Tensor]]:
        """Read sequences, (batch, steps, inputs), of which (batch,) steps are real.

        Returns:
            (batch, steps, directions * units), and the last of each direction, (directions,
            batch, units).
        """
        outputs, states = [], []
        for backwards, layer in enumerate(self.ways):
            read = reverse(x, lengths) if backwards else x
            said = _called(layer, self.what, read, lengths)
            expected = (*x.shape[:2], self.units)
            if tuple(said.shape) != expected:
                raise TrainingError(
                    f"{self.what} must put out (batch, steps, units), here {expected}, got "
                    f"{tuple(said.shape)}"
                )
            if lengths is None:
                last = said[:, -1]
            else:
                at = (lengths - 1).to(x.device).view(-1, 1, 1).expand(-1, 1, self.units)
                last = said.gather(1, at).squeeze(1)
            states.append(last)
            outputs.append(reverse(said, lengths) if backwards else said)
        together = torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]
        return together, (torch.stack(states),)


class OwnModel(nn.Module):
    """A class of one's own as the whole model, between what takes the level off and puts it on.

    It is made of (shape, ...), a `tuner.data.Shape`, and those of tuner's hyperparameters that it
    takes by name, and maps (batch, steps, features), or tokens, (batch, steps), to what
    `outputs_of` says.
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape, inputs: int) -> None:
        super().__init__()
        self.what, self.shape = parameters.cell, shape
        found, own = load_class(parameters.cell), parameters.model_extra or {}
        of_tuner = parameters.model_dump(exclude=set(own))
        columns = shape.target_columns
        if shape.trend or shape.modes:  # the parts of targets come first
            columns = tuple(range(shape.targets))
        read = dataclasses.replace(shape, features=inputs, modes=0, trend=0, target_columns=columns)
        arguments = {"shape": read, **own}
        arguments |= {name: of_tuner[name] for name in _taken(found) if name in of_tuner}
        self.module = _made(found, self.what, arguments)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, coming: Tensor | None = None
    ) -> Tensor:
        """Say what sequences come to, in the shape of `outputs_of`."""
        said = _called(self.module, self.what, x, lengths, coming)
        expected = outputs_of(self.shape, *x.shape[:2])
        if tuple(said.shape) != expected:
            raise TrainingError(
                f"{self.what} must put out {_in_words(self.shape)}, here {expected}, got "
                f"{tuple(said.shape)}"
            )
        return said


def outputs_of(shape: Shape, batch: int, steps: int) -> tuple[int, ...]:
    """Return the shape of what a model puts out."""
    if shape.each_step:
        return batch, steps, shape.classes or shape.targets
    if shape.classes:
        return batch, shape.classes
    quantiles = (len(shape.quantiles),) if shape.quantiles else ()
    return batch, shape.horizon, shape.targets, *quantiles


def _in_words(shape: Shape) -> str:
    what = "classes" if shape.classes else "targets"
    if shape.each_step:
        return f"(batch, steps, {what})"
    if shape.classes:
        return "(batch, classes)"
    return f"(batch, horizon, targets{', quantiles' if shape.quantiles else ''})"
