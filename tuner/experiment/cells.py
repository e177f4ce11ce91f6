"""Cells from user code: their declarations, which a separate process inspects before a search."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, model_validator

from tuner.errors import ExperimentError, one_line
from tuner.experiment.hyperparameters import CELLS, Hyperparameters
from tuner.experiment.messages import first_problem, shown
from tuner.experiment.space import Domain, FloatDomain, IntDomain
from tuner.processes import start_command
from tuner.strategies.base import Section
from tuner.user_code import is_reference, reference_of

if TYPE_CHECKING:
    from tuner.experiment.experiment import Experiment

GROUP = "tuner.cells"
"""The group of entry points with which installed packages offer cells."""

_PROBE = "tuner.training.user_models"

_PROBE_S = 300  # time limit of an inspection


class Key(Section):
    """A hyperparameter that a class declares."""

    range: Domain
    """Its values, as in a search space."""
    default: bool | int | float | str
    """Its value where it is neither fixed nor searched."""

    @model_validator(mode="after")
    def _check(self) -> Key:
        if self.default not in self.range:
            rule = f"must lie in {self.in_words}"
            raise ExperimentError(rule, key="default", got=repr(self.default))
        return self

    @property
    def in_words(self) -> str:
        """The range in words."""
        if isinstance(self.range, IntDomain | FloatDomain):
            by = "" if self.range.step in (None, 1) else f" in steps of {self.range.step:g}"
            return f"{self.range.low:g} to {self.range.high:g}{by}"
        return f"one of {', '.join(map(str, self.range.choices))}"


class DeclaredCell(Section):
    """The declaration of a class in user code; kept in the experiment that names it."""

    name: str
    """As `package.module:Class`."""
    whole: bool = False
    """Whether it is a whole model, not a recurrent layer."""
    takes: list[str] = Field(default_factory=list)
    """Of a whole model: which of tuner's own hyperparameters it takes."""
    keys: dict[str, Key] = Field(default_factory=dict)
    """Its own hyperparameters."""


def cell_of(cells: list[DeclaredCell], name: Any) -> DeclaredCell | None:
    """Return the declaration of a cell from user code; None for tuner's own cells."""
    return next((cell for cell in cells if cell.name == name), None)


def named_code(raw: dict[str, Any]) -> tuple[str, str] | None:
    """Return the first key that names code to import, and the name; None if there is none."""
    raw = dict(raw)
    for _, key, _, value in _places(raw, "cell"):
        if (reference := _reference(value)) is not None:
            return key, reference
    found = [(key, value) for _, key, _, value in _places(raw, "loss")]
    if isinstance(objective := raw.get("objective"), dict):
        found += [("objective.metric", _last_word(objective.get("metric")))]
        several = objective.get("metrics")
        several = several if isinstance(several, list) else [several]
        found += [("objective.metrics", _last_word(metric)) for metric in several]
    return next(((key, value) for key, value in found if is_reference(value)), None)


def check_losses(experiment: Experiment) -> None:
    """Refuse a loss that is an installed function and does not work.

    Raises:
        ExperimentError: the function cannot be imported, or fails.
    """
    key, names = "hyperparameters.loss", [experiment.hyperparameters.loss]
    if domain := experiment.search_space.get("loss"):
        key, names = "search_space.loss.choices", list(domain.bounds())
    for name in filter(is_reference, names):
        try:
            _inspected(json.dumps({"loss": name, "kind": experiment.task.kind}), name)
        except ExperimentError as error:
            raise error.with_(key=key) from None


def with_cells(raw: Any) -> Any:
    """Return the mapping of an experiment with the declarations of the classes that it names.

    Names of entry points become those of their classes.

    Raises:
        ExperimentError: a class does not exist, or is no cell.
    """
    if not isinstance(raw, dict):
        return raw
    raw, named = dict(raw), dict[str, Any]()
    given = [dict(cell) for cell in raw.get("cells") or [] if isinstance(cell, DeclaredCell | dict)]
    known = {cell["name"]: cell for cell in given if "name" in cell}
    for block, key, at, value in list(_places(raw, "cell")):
        reference = _reference(value)
        if reference is None:
            continue
        if reference not in named:
            try:
                named[reference] = known.get(reference) or _declared(reference, _sample(raw))
            except ExperimentError as error:
                raise error.with_(key=key) from None
        block[at] = reference
    rest = {key: value for key, value in raw.items() if key != "cells"}
    return rest | ({"cells": list(named.values())} if named else {})


def _places(raw: dict[str, Any], name: str) -> Iterator[tuple[Any, str, Any, Any]]:
    """Yield every name of a cell or loss: its container, a copy in `raw`; key; index; name."""
    fixed = raw.get("hyperparameters")
    if isinstance(fixed, dict) and name in fixed:
        raw["hyperparameters"] = fixed = dict(fixed)
        yield fixed, f"hyperparameters.{name}", name, fixed[name]
    space = raw.get("search_space")
    domain = space.get(name) if isinstance(space, dict) else None
    choices = domain.get("choices") if isinstance(domain, dict) else None
    if isinstance(space, dict) and isinstance(domain, dict) and isinstance(choices, list):
        choices = list(choices)
        raw["search_space"] = space | {name: domain | {"choices": choices}}
        for at, choice in enumerate(choices):
            yield choices, f"search_space.{name}.choices", at, choice


def _last_word(metric: Any) -> Any:
    """Return the reference in a metric from user code: `minimize package.module:function`."""
    return metric.split()[-1] if isinstance(metric, str) and metric.split() else metric


def _reference(value: Any) -> str | None:
    """Return the class that a cell's name refers to; None for tuner's own cells."""
    if is_reference(value):
        return str(value)
    if not isinstance(value, str) or value in CELLS:
        return None
    return reference_of(value, GROUP)


def _sample(raw: dict[str, Any]) -> str:
    """Return, as JSON, the shape of the data on which a whole model is tried."""
    blocks = [raw.get("task"), raw.get("data")]
    task, data = (block if isinstance(block, dict) else {} for block in blocks)
    sample = {key: task[key] for key in ("kind", "horizon", "quantiles") if key in task}
    targets = data.get("target")
    sample["targets"] = len(targets) if isinstance(targets, list) else 1
    sample["tokens"] = any(data.get(key) for key in ("text", "tokens"))
    sample["known"] = data.get("known_future") is not None
    return json.dumps(sample, sort_keys=True, default=str)


@functools.cache
def _declared(reference: str, sample: str) -> DeclaredCell:
    """Return the declaration of a class, which a separate process has tried.

    Raises:
        ExperimentError: the class is no cell, or declares a hyperparameter wrongly.
    """
    ours = sorted(Hyperparameters.model_fields)
    argument = json.dumps({"reference": reference, "sample": json.loads(sample), "ours": ours})
    found = _inspected(argument, reference)
    keys = {}
    for name, declared in found["keys"].items():
        domain = {key: value for key, value in declared.items() if key != "default"}
        try:
            keys[name] = Key.model_validate({"range": domain, "default": declared["default"]})
        except ValidationError as error:
            broken = first_problem(error)
            rule = f"{reference} declares {name!r} wrongly: {broken.with_(got=None, remedy=None)}"
            remedy = "correct its `hyperparameters`"
            raise ExperimentError(rule, got=shown(declared), remedy=remedy) from None
    return DeclaredCell(name=reference, whole=found["whole"], takes=found["takes"], keys=keys)


@functools.cache
def _inspected(argument: str, reference: str) -> dict[str, Any]:
    """Return the report of a separate process that imports and tries the code.

    Raises:
        ExperimentError: the code cannot be imported, or does not work.
    """
    try:
        done = subprocess.run(
            start_command(_PROBE, argument),
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        rule = f"took longer than {_PROBE_S} s to be imported and tried"
        raise ExperimentError(rule, got=repr(reference), remedy="correct it") from None
    except ValueError:
        last = one_line((done.stderr.strip().splitlines() or ["no output"])[-1])
        rule, got = "ended the process that imported it", f"{reference!r}: {last}"
        raise ExperimentError(rule, got=got) from None
    if "problem" in found:
        raise ExperimentError(**found["problem"])
    return dict(found)
