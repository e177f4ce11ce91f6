"""From an experiment file and the command line's overrides to a checked experiment."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tuner.errors import ExperimentError, SpaceError, show_path
from tuner.experiment.cells import check_losses, named_code
from tuner.experiment.messages import Problem, explain
from tuner.experiment.yaml_files import Override, apply_override, read_mapping
from tuner.section import Section
from tuner.user_code import is_allowed

__all__ = ["check_experiment", "experiment_of", "load_experiment"]

S = TypeVar("S", bound=Section)


def load_experiment(cls: type[S], path: Path, overrides: list[Override]) -> S:
    """Read `path`, lay `overrides` over it and check the result as a `cls`.

    Relative paths are relative to the file's folder, and absolute in what is returned.

    Raises:
        ExperimentError: naming file (or option), key, rule, value and remedy.
    """
    raw = read_mapping(path, "experiment file")
    folder = path.absolute().parent
    space_file: str | None = None
    if any(o.key.startswith("search_space.") for o in overrides):
        space_file = _inline_space(raw, folder)
    for override in overrides:
        apply_override(raw, override)
    space_file = _inline_space(raw, folder) or space_file
    _make_absolute(raw, folder, str(path))
    trusted = is_allowed() or not ("recorded" in raw or "cells" in raw)
    raw.pop("cells", None)  # asked anew: the file may be older
    return check_experiment(cls, raw, str(path), overrides, space_file, trusted=trusted)


def _check_losses(experiment: Any, source: str) -> None:
    """Refuse a loss that is an installed function and does not work."""
    problem = check_losses(
        experiment.hyperparameters, experiment.search_space, experiment.task.kind
    )
    if problem is not None:
        raise ExperimentError(f"{source}: {problem[0]}: {problem[1]}")


def _refuse_code(raw: dict[str, Any], source: str) -> None:
    """Refuse an exported file that names code to import."""
    if (named := named_code(raw)) is not None:
        raise ExperimentError(
            f"{source}: {named[0]}: an exported file imports no code, got {named[1]!r}; add "
            f"--allow-code if you trust it"
        )


def experiment_of(cls: type[S], values: Mapping[str, Any]) -> S:
    """Check a mapping that a program made as a `cls`; paths are relative to the current folder.

    Raises:
        ExperimentError: naming key, rule, value and remedy.
    """
    source = "experiment"
    if not isinstance(values, Mapping):
        text = f"must be a mapping of keys to values, got a {type(values).__name__}"
        raise ExperimentError(f"{source}: {text}; write {{'name': 'sales', 'data': {{...}}}}, say")
    raw = {str(key): copy.deepcopy(value) for key, value in values.items()}
    space_file = _inline_space(raw, Path.cwd())
    _make_absolute(raw, Path.cwd(), source)
    return check_experiment(cls, raw, source, [], space_file)


def check_experiment(
    cls: type[S],
    raw: dict[str, Any],
    source: str,
    overrides: list[Override],
    space_file: str | None = None,
    *,
    trusted: bool = True,
) -> S:
    """Check a mapping as a `cls`.

    Args:
        cls: what it is read as.
        raw: the mapping, with the overrides laid over it.
        source: what an error names, where an override or the space's file is not to blame.
        overrides: which keys had their values from an option.
        space_file: where the search space was read.
        trusted: whether code that it names may be imported.

    Raises:
        ExperimentError: naming source (or option), key, rule, value and remedy.
    """
    if not trusted:
        _refuse_code(raw, source)  # as reading it imports cells
    try:
        found = cls.model_validate(raw)
        if not trusted:
            _refuse_code(found.model_dump(mode="json"), source)  # however it was written
        _check_losses(found, source)
        return found
    except ValidationError as error:
        problems = explain(error, cls, raw)
    key = problems[0].key
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    error_type = ExperimentError
    origins = [
        o.origin
        for o in overrides
        if f"{key}.".startswith(f"{o.key}.") or f"{o.key}.".startswith(f"{key}.")
    ]
    if key == "search_space" or key.startswith("search_space."):
        error_type = SpaceError
        if space_file is not None and not origins:
            source, key = space_file, key.partition(".")[2]
    source = origins[-1] if origins else source
    text = problems[0].text + _remedy(problems[0], origins[-1] if origins else None)
    if strategy := _strategy_meant(problems[0], overrides):
        remedy = f"write `--strategy {strategy}`, which takes that strategy's defaults"
        text = f"{text.partition(';')[0]}; {remedy}"
    raise error_type(f"{source}: {key}: {text}{more}" if key else f"{source}: {text}{more}")


def _remedy(problem: Problem, option: str | None) -> str:
    """Say what to write instead: in the file, or as the option that gave the value."""
    if problem.example is None:
        return ""
    written = f"{problem.key.rpartition('.')[2]}: {problem.example}"
    if option == "--set":
        written = f"--set {shlex.quote(f'{problem.key}={problem.example}')}"
    elif option is not None:
        written = f"{option} {problem.example}"
    return f"; write `{written}`, say"


def _strategy_meant(problem: Problem, overrides: list[Override]) -> str | None:
    """Return the strategy that `--set` was to choose, where the problem is that it cannot."""
    values = {o.key: o.value for o in overrides if o.origin == "--set"}
    if problem.key == "strategy" and problem.example == f"{{name: {values.get('strategy')}}}":
        return str(values["strategy"])
    of_file = problem.key.startswith("strategy.") and problem.key not in values
    return str(values["strategy.name"]) if of_file and "strategy.name" in values else None


def _inline_space(raw: dict[str, Any], folder: Path) -> str | None:
    """Put the search space of another file in place; return that file's name, if there is one."""
    value = raw.get("search_space")
    if not isinstance(value, str):
        return None
    path = folder / value
    raw["search_space"] = read_mapping(path, "search space")
    return show_path(path)


def _make_absolute(raw: dict[str, Any], folder: Path, file: str) -> None:
    data = raw.get("data")
    if not isinstance(data, dict):
        return
    _make_path_absolute(data, "path", "data.path", folder, file)
    if isinstance(split := data.get("split"), dict):
        _make_path_absolute(split, "test_file", "data.split.test_file", folder, file)


def _make_path_absolute(
    block: dict[str, Any], key: str, name: str, folder: Path, file: str
) -> None:
    path = block.get(key)
    if not isinstance(path, str) or not path:
        return
    if "\0" in path:
        raise ExperimentError(f"{file}: {name}: must be a path, got {path!r}; correct it")
    if "://" in path:
        text = f"{name}: must be a file here, got {path!r}; download it first"
        raise ExperimentError(f"{file}: {text}")
    block[key] = str((folder / path).resolve())
