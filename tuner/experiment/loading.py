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
from tuner.experiment.messages import explain
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
    space, kind = experiment.search_space, experiment.task.kind
    try:
        check_losses(experiment.hyperparameters, space, kind)
    except ExperimentError as error:
        raise error.with_(where=source) from None


def _refuse_code(raw: dict[str, Any], source: str) -> None:
    """Refuse an exported file that names code to import."""
    if (named := named_code(raw)) is not None:
        raise ExperimentError(
            "an exported file imports no code",
            where=source,
            key=named[0],
            got=repr(named[1]),
            remedy="add --allow-code if you trust it",
        )


def experiment_of(cls: type[S], values: Mapping[str, Any]) -> S:
    """Check a mapping that a program made as a `cls`; paths are relative to the current folder.

    Raises:
        ExperimentError: naming key, rule, value and remedy.
    """
    source = "experiment"
    if not isinstance(values, Mapping):
        rule = "must be a mapping of keys to values"
        remedy = "write {'name': 'sales', 'data': {...}}, say"
        raise ExperimentError(rule, where=source, got=f"a {type(values).__name__}", remedy=remedy)
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
    except ValidationError as error:
        problems = explain(error, cls, raw)
    else:
        _check_losses(found, source)
        return found
    first, others = problems[0], len(problems) - 1
    key = first.key or ""
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
    remedy = first.remedy or _remedy(first, origins[-1] if origins else None)
    if strategy := _strategy_meant(first, overrides):
        remedy = f"write `--strategy {strategy}`, which takes that strategy's defaults"
    where = origins[-1] if origins else source
    raise error_type(first.rule, where=where, key=key, got=first.got, remedy=remedy, others=others)


def _remedy(problem: ExperimentError, option: str | None) -> str | None:
    """Return what to write instead: in the file, or as the option that gave the value."""
    if problem.example is None:
        return None
    key = problem.key or ""
    written = f"{key.rpartition('.')[2]}: {problem.example}"
    if option == "--set":
        written = f"--set {shlex.quote(f'{key}={problem.example}')}"
    elif option is not None:
        written = f"{option} {problem.example}"
    return f"write `{written}`, say"


def _strategy_meant(problem: ExperimentError, overrides: list[Override]) -> str | None:
    """Return the strategy that `--set` was to choose, where the problem is that it cannot."""
    values, key = {o.key: o.value for o in overrides if o.origin == "--set"}, problem.key or ""
    if key == "strategy" and problem.example == f"{{name: {values.get('strategy')}}}":
        return str(values["strategy"])
    of_file = key.startswith("strategy.") and key not in values
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
        rule = "must be a path"
        raise ExperimentError(rule, where=file, key=name, got=repr(path), remedy="correct it")
    if "://" in path:
        rule, remedy = "must be a file here", "download it first"
        raise ExperimentError(rule, where=file, key=name, got=repr(path), remedy=remedy)
    block[key] = str((folder / path).resolve())
