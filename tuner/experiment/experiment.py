"""An experiment: read from YAML or a mapping, completed, checked, and written again."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator

from tuner.errors import ExperimentError, SpaceError, show_path
from tuner.experiment.cells import check_losses, named_code, with_cells
from tuner.experiment.data import OF_FORECASTS
from tuner.experiment.fields import completed
from tuner.experiment.hyperparameters import WIDTH
from tuner.experiment.messages import explain
from tuner.experiment.rules import check_rules
from tuner.experiment.schema import Blocks, Objective
from tuner.experiment.yaml_files import Override, apply_override, dump_yaml, read_mapping
from tuner.metrics import metrics_of
from tuner.user_code import is_allowed

__all__ = ["Experiment"]

_MEASURED = {"classify": "classes", "label": "classes", "translate": "texts"}


class Experiment(Blocks):
    """One experiment: data, task, model, search space, strategy and budget."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, raw: Any) -> Any:
        """Add the metric of the task, a strategy for two objectives, and declared cells."""
        if not isinstance(raw, dict):
            return raw
        if raw.get("objective", {}) in ({}, None):
            task = raw.get("task")
            of_task = task if isinstance(task, dict) else getattr(task, "__dict__", {})
            usual = "quantiles" if of_task.get("quantiles") else "values"
            measured = _MEASURED.get(str(of_task.get("kind")), usual)
            raw = raw | {"objective": {"metric": metrics_of(measured)[0]}}
        match raw:
            case {"objective": {"metrics": [_, *_]}} | {"objective": Objective(metrics=[_, *_])}:
                raw = {"strategy": {"name": "nsga2"}, "pruner": {"name": "none"}, **raw}
        return with_cells(raw if raw.get("recorded") is None else completed(raw))

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_rules(self)
        if self.search_space:  # the model is frozen
            object.__setattr__(self, "strategy", self.strategy.paced(self.n_trials))
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[Override] = ()) -> Self:
        """Read and check an experiment file.

        Args:
            path: the YAML file; `data.path` and `search_space` in it are relative to it, and
                absolute in the result.
            overrides: values that replace the file's, in order.

        Raises:
            ExperimentError: the file or an override breaks a rule.
        """
        path, overrides = Path(path), list(overrides)
        raw = read_mapping(path, "experiment file")
        folder = path.absolute().parent
        space_file = None
        if any(o.key.startswith("search_space.") for o in overrides):
            space_file = _inline_space(raw, folder)
        for override in overrides:
            apply_override(raw, override)
        space_file = _inline_space(raw, folder) or space_file
        _make_absolute(raw, folder, str(path))
        trusted = is_allowed() or not ("recorded" in raw or "cells" in raw)
        raw.pop("cells", None)  # inspected again: the code may have changed
        return cls._checked(raw, str(path), overrides, space_file, trusted=trusted)

    @classmethod
    def of_record(cls, values: Mapping[str, Any]) -> Self:
        """Return the experiment in a journal, perhaps of an older version.

        Raises:
            ValueError: this version cannot read it.
        """
        return cls.model_validate(completed(values))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Check an experiment that is a mapping.

        Args:
            values: the keys of an experiment file, in nested mappings; paths are relative to the
                current folder. It is not changed.

        Returns:
            The experiment, with absolute paths.

        Raises:
            ExperimentError: a value breaks a rule.
        """
        if not isinstance(values, Mapping):
            rule, got = "must be a mapping of keys to values", f"a {type(values).__name__}"
            remedy = "write {'name': 'sales', 'data': {...}}, say"
            raise ExperimentError(rule, where="experiment", got=got, remedy=remedy)
        raw = {str(key): copy.deepcopy(value) for key, value in values.items()}
        space_file = _inline_space(raw, Path.cwd())
        _make_absolute(raw, Path.cwd(), "experiment")
        return cls._checked(raw, "experiment", [], space_file)

    def changed(self, values: Mapping[str, Any]) -> Self:
        """Return the experiment with other values.

        Args:
            values: by dotted key, such as `budget.epochs`.

        Returns:
            A new, checked experiment. A population that was not given follows the budget.

        Raises:
            ExperimentError: a value breaks a rule.
        """
        raw = self.to_dict()
        if "population" not in self.strategy.model_fields_set:
            raw["strategy"].pop("population", None)
        for key, value in values.items():
            apply_override(raw, Override(key, value, self.name))
        return self._checked(raw, self.name, [])

    @classmethod
    def _checked(
        cls,
        raw: dict[str, Any],
        source: str,
        overrides: list[Override],
        space_file: str | None = None,
        *,
        trusted: bool = True,
    ) -> Self:
        """Check a mapping to which the overrides were applied.

        Args:
            raw: the mapping.
            source: the name for errors that neither an override nor the space's file causes.
            overrides: the keys whose values options gave.
            space_file: the file of the search space.
            trusted: whether code in it may be imported.
        """
        if not trusted:
            _refuse_code(raw, source)  # validation imports cells
        try:
            found = cls.model_validate(raw)
            if not trusted:
                _refuse_code(found.model_dump(mode="json"), source)  # whatever the spelling
        except ValidationError as error:
            raise _located(explain(error, cls, raw), source, overrides, space_file) from None
        try:
            check_losses(found.hyperparameters, found.search_space, found.task.kind)
        except ExperimentError as error:
            raise error.with_(where=source) from None
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the experiment as a mapping.

        Returns:
            Nested mappings of JSON values that `from_dict` reads as this experiment, defaults
            included. A searched hyperparameter is under `hyperparameters` only if it was given
            there: the search starts from it.
        """
        record = self.model_dump(mode="json", exclude_none=True)
        record["data"]["split"] = self.data.split.to_dict()
        if self.task.kind != "forecast":
            for key in OF_FORECASTS:
                if not (key == "window" and self.task.of_coming_class):
                    record["task"].pop(key, None)
        searched = set(self.search_space)
        if any(map(WIDTH.fullmatch, searched)):
            searched |= {"hidden_size", "num_layers"}
        if not self.cells:
            del record["cells"]
        for name in searched - self.hyperparameters.model_fields_set:
            record["hyperparameters"].pop(name, None)
        for name in searched - self.data.model_fields_set:
            record["data"].pop(name, None)
        return record

    def to_yaml(self) -> str:
        """Return the experiment as an experiment file.

        Returns:
            YAML that `load` reads as this experiment, defaults included; see `to_dict`.
        """
        return dump_yaml(self.to_dict())


def _refuse_code(raw: dict[str, Any], source: str) -> None:
    """Refuse an exported file that names code to import."""
    if (named := named_code(raw)) is not None:
        rule, remedy = "an exported file imports no code", "add --allow-code if you trust it"
        raise ExperimentError(rule, where=source, key=named[0], got=repr(named[1]), remedy=remedy)


def _located(
    problems: list[ExperimentError],
    source: str,
    overrides: list[Override],
    space_file: str | None,
) -> ExperimentError:
    """Return the first problem with the file or option that it comes from, and a remedy."""
    first, key = problems[0], problems[0].key or ""
    origins = [
        o.origin
        for o in overrides
        if f"{key}.".startswith(f"{o.key}.") or f"{o.key}.".startswith(f"{key}.")
    ]
    origin = origins[-1] if origins else None
    remedy = first.remedy
    if remedy is None and first.example is not None:
        written = f"{key.rpartition('.')[2]}: {first.example}"
        if origin == "--set":
            written = f"--set {shlex.quote(f'{key}={first.example}')}"
        elif origin is not None:
            written = f"{origin} {first.example}"
        remedy = f"write `{written}`, say"
    if strategy := _strategy_meant(first, overrides):
        remedy = f"write `--strategy {strategy}`, which takes that strategy's defaults"
    error_type, where = ExperimentError, origin or source
    if key == "search_space" or key.startswith("search_space."):
        error_type = SpaceError
        if space_file is not None and origin is None:
            where, key = space_file, key.partition(".")[2]
    others = len(problems) - 1
    return error_type(first.rule, where=where, key=key, got=first.got, remedy=remedy, others=others)


def _strategy_meant(problem: ExperimentError, overrides: list[Override]) -> str | None:
    """Return the strategy that `--set` was to choose, where `--set` cannot choose it."""
    values, key = {o.key: o.value for o in overrides if o.origin == "--set"}, problem.key or ""
    if key == "strategy" and problem.example == f"{{name: {values.get('strategy')}}}":
        return str(values["strategy"])
    of_file = key.startswith("strategy.") and key not in values
    return str(values["strategy.name"]) if of_file and "strategy.name" in values else None


def _inline_space(raw: dict[str, Any], folder: Path) -> str | None:
    """Replace the name of a file by the search space in it; return that file's name, if any."""
    value = raw.get("search_space")
    if not isinstance(value, str):
        return None
    path = folder / value
    raw["search_space"] = read_mapping(path, "search space")
    return show_path(path)


def _make_absolute(raw: dict[str, Any], folder: Path, source: str) -> None:
    data = raw.get("data")
    split = data.get("split") if isinstance(data, dict) else None
    for block, name, key in (
        (data, "path", "data.path"),
        (split, "test_file", "data.split.test_file"),
    ):
        if not isinstance(block, dict) or not isinstance(path := block.get(name), str) or not path:
            continue
        rule = remedy = None
        if "\0" in path:
            rule, remedy = "must be a path", "correct it"
        elif "://" in path:
            rule, remedy = "must be a file here", "download it first"
        if rule is not None:
            raise ExperimentError(rule, where=source, key=key, got=repr(path), remedy=remedy)
        block[name] = str((folder / path).resolve())
