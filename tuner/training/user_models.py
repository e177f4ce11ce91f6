"""Recurrent layers and whole models from user code, and their inspection.

`tuner.experiment.cells` runs this module in a process of its own, as the class imports torch.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tuner.data import Shape
from tuner.errors import InputError, one_line
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training.device import TrainingError
from tuner.training.layers import reverse
from tuner.training.losses import user_loss
from tuner.user_code import load_object

_LAYER, _MODEL = ["inputs", "units"], ["shape"]  # first arguments
_STEPS, _BATCH = 5, 2  # of the inputs of an inspection


def load_class(reference: str) -> type[nn.Module]:
    """Import the class of a cell.

    Raises:
        TrainingError: the class does not exist, is no `nn.Module`, or takes neither (inputs,
            units, ...) nor (shape, ...).
    """
    try:
        found = load_object(reference)
    except InputError as error:
        raise TrainingError(str(error)) from None
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        kind = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        rule, remedy = "must be a class of torch.nn.Module", "derive it from torch.nn.Module"
        raise TrainingError(rule, got=f"{reference!r}, which is {kind}", remedy=remedy)
    taken = _arguments(found)
    if taken[:2] != _LAYER and taken[:1] != _MODEL:
        rule = "a layer is made of (inputs, units, ...), a whole model of (shape, ...)"
        got = f"{reference!r}, which takes ({', '.join(taken) or 'nothing'})"
        raise TrainingError(rule, got=got, remedy="name its arguments so")
    return found


def is_whole(found: type[nn.Module]) -> bool:
    """Return whether a class is a whole model, not a recurrent layer."""
    return _arguments(found)[:1] == _MODEL


def _arguments(found: type[nn.Module]) -> list[str]:
    return list(inspect.signature(found).parameters)


def _construct(found: type[nn.Module], name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return found(**arguments)
    except Exception as error:  # of the user's code
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        problem = f"{type(error).__name__}: {one_line(error)}"
        raise TrainingError(f"{name} cannot be made of ({given}): {problem}") from error


def _forward(
    module: nn.Module, name: str, x: Tensor, lengths: Tensor | None, coming: Tensor | None = None
) -> Tensor:
    """Call a module with the lengths and the known future values, as far as it takes them.

    Raises:
        TrainingError: it takes no future values, but some are known.
    """
    takes = inspect.signature(module.forward).parameters
    if coming is not None and "coming" not in takes:
        rule = f"{name} does not read the columns of data.known_future: its forward takes no "
        rule += "`coming`, (batch, horizon, known columns)"
        raise TrainingError(rule, remedy="add that, or remove data.known_future")
    given = {"lengths": lengths, "coming": coming}
    outputs = module(x, **{key: value for key, value in given.items() if key in takes})
    if isinstance(outputs, tuple) and outputs:
        outputs = outputs[0]  # as torch's layers, whose state comes second
    if not isinstance(outputs, Tensor):
        raise TrainingError(f"{name} must return a tensor", got=type(outputs).__name__)
    return outputs


def _check_outputs(name: str, outputs: Tensor, axes: str, expected: tuple[int, ...]) -> None:
    """Refuse outputs of another shape than `expected`, with axes of these names."""
    if (got := tuple(outputs.shape)) != expected:
        raise TrainingError(f"{name} must return ({axes}), here {expected}", got=got)


class UserLayer(nn.Module):
    """A user's class as a recurrent layer, one instance for each direction.

    Its constructor takes (inputs, units, ...). It maps (batch, steps, inputs) to (batch, steps,
    units); outputs at padded steps are ignored. Its state is the output at the last real step.
    """

    def __init__(
        self, parameters: Hyperparameters, inputs: int, units: int, *, bidirectional: bool
    ) -> None:
        super().__init__()
        self.name, self.units = parameters.cell, units
        found = load_class(parameters.cell)
        arguments = {"inputs": inputs, "units": units, **(parameters.model_extra or {})}
        self.ways = nn.ModuleList(
            _construct(found, self.name, arguments) for _ in range(1 + bidirectional)
        )

    def forward(
        self, x: Tensor, state: None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor]]:
        """Return the outputs and the last state of sequences, as `recurrent.read` does."""
        assert state is None, "it begins without a state"
        outputs, states = [], []
        for backwards, layer in enumerate(self.ways):
            read = reverse(x, lengths) if backwards else x
            y = _forward(layer, self.name, read, lengths)
            _check_outputs(self.name, y, "batch, steps, units", (*x.shape[:2], self.units))
            if lengths is None:
                states.append(y[:, -1])
            else:
                at = (lengths - 1).to(x.device).view(-1, 1, 1).expand(-1, 1, self.units)
                states.append(y.gather(1, at).squeeze(1))
            outputs.append(reverse(y, lengths) if backwards else y)
        together = torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]
        return together, (torch.stack(states),)


class UserModel(nn.Module):
    """A user's class as the whole model, inside the normalization of windows.

    Its constructor takes (shape, ...), a `tuner.data.Shape`, and by name those of tuner's
    hyperparameters that it needs. It maps (batch, steps, features), or tokens, (batch, steps), to
    the outputs of `Model`.
    """

    def __init__(self, parameters: Hyperparameters, shape: Shape, inputs: int) -> None:
        super().__init__()
        self.name, self.shape = parameters.cell, shape
        found, own = load_class(parameters.cell), parameters.model_extra or {}
        of_tuner = parameters.model_dump(exclude=set(own))
        columns = shape.target_columns
        if shape.trend or shape.modes:  # the parts of targets come first
            columns = tuple(range(shape.targets))
        read = dataclasses.replace(shape, features=inputs, modes=0, trend=0, target_columns=columns)
        arguments = {"shape": read, **own}
        arguments |= {name: of_tuner[name] for name in _arguments(found) if name in of_tuner}
        self.module = _construct(found, self.name, arguments)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, coming: Tensor | None = None
    ) -> Tensor:
        """Return predictions of sequences, see `Model.forward`."""
        outputs = _forward(self.module, self.name, x, lengths, coming)
        shape, (batch, steps) = self.shape, x.shape[:2]
        sizes = {"batch": batch}
        if shape.each_step:
            sizes["steps"] = steps
        elif not shape.classes:
            sizes["horizon"] = shape.horizon
        sizes |= {"classes": shape.classes} if shape.classes else {"targets": shape.targets}
        if shape.quantiles and not shape.classes and not shape.each_step:
            sizes["quantiles"] = len(shape.quantiles)
        _check_outputs(self.name, outputs, ", ".join(sizes), tuple(sizes.values()))
        return outputs


def inspect_class(reference: str, sample: dict[str, Any], ours: list[str]) -> dict[str, Any]:
    """Return the hyperparameters that a class declares, or the fields of its `problem`.

    Args:
        reference: `package.module:Class`.
        sample: kind, horizon, quantiles and number of targets; whether the steps are tokens, and
            whether columns are known ahead.
        ours: the names of tuner's own hyperparameters.
    """
    try:
        found = load_class(reference)
        whole, declared = is_whole(found), getattr(found, "hyperparameters", {})
        keys = _keys(reference, declared, ours)
        takes = _takes(found, reference, keys, ours, whole)
        _try(reference, {n: k["default"] for n, k in keys.items()}, sample, whole)
    except TrainingError as error:
        return _problem(error)
    except Exception as error:  # of a forward pass
        return _problem(TrainingError(f"{reference} cannot read: {type(error).__name__}: {error}"))
    return {"whole": whole, "takes": takes, "keys": keys}


def _problem(error: TrainingError) -> dict[str, Any]:
    return {"problem": {"rule": error.rule, "got": error.got, "remedy": error.remedy}}


def inspect_loss(loss: str, kind: str) -> dict[str, Any]:
    """Return the fields of the `problem` of a function as a loss of a kind of task, if any."""
    torch.manual_seed(0)
    classes = 3 if kind in ("classify", "label") else 0
    shape = Shape("classify" if classes else "forecast", 1, classes=classes)
    outputs = torch.randn((4, 3) if classes else (4, 2, 1), requires_grad=True)
    targets = torch.tensor([0, 1, 2, 1]) if classes else torch.randn(4, 2, 1)
    try:
        found = user_loss(loss, shape)(outputs, targets)
        if not found.requires_grad:
            raise TrainingError(f"{loss} has no gradient", remedy="calculate with torch alone")
    except TrainingError as error:
        return _problem(error)
    return {}


def _keys(reference: str, declared: Any, ours: list[str]) -> dict[str, dict[str, Any]]:
    """Return the keys that a class declares, each with a range and a default."""
    if not isinstance(declared, dict) or not all(
        isinstance(name, str) and isinstance(key, dict) for name, key in declared.items()
    ):
        rule = f"`hyperparameters` of {reference} must map names to ranges"
        example = "{'leak': {'type': 'float', 'low': 0.0, 'high': 0.9, 'default': 0.5}}"
        raise TrainingError(rule, got=repr(declared), remedy=f"write {example}, say")
    for name, key in declared.items():
        if name in ours:
            rule = f"{reference} declares {name!r}, which is tuner's own"
            raise TrainingError(rule, remedy="rename it")
        if "default" not in key:
            rule = f"{reference} declares {name!r} without a default"
            raise TrainingError(rule, got=repr(key), remedy="add 'default'")
    return json.loads(json.dumps(declared))  # type: ignore[no-any-return]


def _takes(
    found: type, reference: str, keys: dict[str, Any], ours: list[str], whole: bool
) -> list[str]:
    """Return which of tuner's hyperparameters a whole model takes, and check that all fits."""
    parameters = inspect.signature(found).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return []
    first = {"shape"} if whole else {"inputs", "units"}
    taken = [name for name in parameters if name not in first]
    if lacking := [name for name in keys if name not in taken]:
        rule = f"{reference} declares {lacking[0]!r}, and takes none"
        raise TrainingError(rule, remedy="add it to the arguments of its __init__")
    known = [*keys, *(ours if whole else [])]
    for name in taken:
        if name not in known and parameters[name].default is inspect.Parameter.empty:
            rule = f"{reference} takes {name!r}, and does not declare it"
            raise TrainingError(rule, remedy="add it to its `hyperparameters`")
    return [name for name in taken if name in ours and whole]


def _try(reference: str, own: dict[str, Any], sample: dict[str, Any], whole: bool) -> None:
    """Run the class on random inputs; it raises TrainingError if the outputs do not fit."""
    torch.manual_seed(0)
    parameters = Hyperparameters(cell=reference, hidden_size=4, **own)
    if not whole:
        for both in (False, True):
            UserLayer(parameters, 3, 4, bidirectional=both)(torch.randn(_BATCH, _STEPS, 3))
        return
    kind = sample.get("kind", "forecast")
    classes = 3 if kind in ("classify", "label") else 0
    features, vocabulary = (0, 9) if sample["tokens"] else (2 + sample["targets"], 0)
    shape = Shape(
        kind,
        features,
        vocabulary,
        horizon=sample.get("horizon", 1) if kind == "forecast" else 1,
        targets=sample["targets"],
        quantiles=tuple(sample.get("quantiles", ())),
        classes=classes,
        window=_STEPS,
        target_columns=tuple(range(sample["targets"])),
        known_columns=(features - 1,) if sample["known"] else (),
    )
    if vocabulary:
        x = torch.randint(2, vocabulary, (_BATCH, _STEPS))
    else:
        x = torch.randn(_BATCH, _STEPS, features)
    coming = torch.randn(_BATCH, shape.ahead, 1) if shape.ahead else None
    UserModel(parameters, shape, features)(x, coming=coming)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)  # the class may print: to stderr
        given = json.loads(sys.argv[1])
        json.dump(inspect_loss(**given) if "loss" in given else inspect_class(**given), stdout)
