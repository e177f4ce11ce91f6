"""An experiment: read from YAML or a mapping, completed, checked, and written again."""

from __future__ import annotations

import copy
import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from tuner.errors import ExperimentError, SpaceError, show_path
from tuner.experiment.cells import DeclaredCell, cell_of, check_losses, named_code, with_cells
from tuner.experiment.data import PREPARED, Count, Data, Folds, Task
from tuner.experiment.hyperparameters import WIDTH, Hyperparameters, gather_widths
from tuner.experiment.messages import problems_of
from tuner.experiment.rules import check_rules
from tuner.experiment.schema import (
    Budget,
    ExperimentName,
    Finalists,
    MedianPruner,
    Objective,
    Pruner,
    Recorded,
    Resources,
    Strategy,
    Training,
)
from tuner.experiment.space import SearchSpace, prepared_with, space_size
from tuner.experiment.yaml_files import Override, apply_override, dump_yaml, read_mapping, text_of
from tuner.metrics import metrics_of
from tuner.strategies.base import Section
from tuner.strategies.optuna_strategies import TPEStrategy
from tuner.user_code import is_allowed

_MEASURED = {"classify": "classes", "label": "classes", "translate": "texts"}

_LOSS_KEYS = ("loss", "class_weights", "transform", "scale")
"""Keys that decide the quantity and the unit of a validation loss."""


class Experiment(Section):
    """One experiment: data, task, model, search space, strategy and budget."""

    name: ExperimentName
    data: Data
    task: Task = Task()
    hyperparameters: Hyperparameters = Hyperparameters()
    search_space: SearchSpace = Field(default_factory=dict)
    strategy: Strategy = TPEStrategy()
    budget: Budget = Budget()
    pruner: Pruner = MedianPruner()
    objective: Objective = Objective()
    training: Training = Training()
    resources: Resources = Resources()
    asynchronous: Annotated[bool, Field(strict=True)] = False
    """Whether trials start when a worker is free: busier workers, and no two searches alike."""
    finalists: Finalists = Finalists()
    seed: Annotated[Count, Field(ge=0, le=2**32 - 1)] = 0
    recorded: Recorded | None = None
    cells: list[DeclaredCell] = Field(default_factory=list)
    """Declarations of cells from user code; written by tuner."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, raw: Any) -> Any:
        """Add the metric of the task, a strategy for two objectives, and declared cells."""
        if not isinstance(raw, dict):
            return raw
        if raw.get("objective", {}) in ({}, None):
            task = raw.get("task")
            keys = task if isinstance(task, dict) else getattr(task, "__dict__", {})
            usual = "quantiles" if keys.get("quantiles") else "values"
            measured = _MEASURED.get(str(keys.get("kind")), usual)
            raw = raw | {"objective": {"metric": metrics_of(measured)[0]}}
        match raw:
            case {"objective": {"metrics": [_, *_]}} | {"objective": Objective(metrics=[_, *_])}:
                raw = {"strategy": {"name": "nsga2"}, "pruner": {"name": "none"}, **raw}
        return with_cells(raw if raw.get("recorded") is None else _completed(raw))

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
        return cls.model_validate(_completed(values))

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
        source, here = "experiment", Path.cwd()
        if not isinstance(values, Mapping):
            rule, got = "must be a mapping of keys to values", f"a {type(values).__name__}"
            remedy = "write {'name': 'sales', 'data': {...}}, say"
            raise ExperimentError(rule, where=source, got=got, remedy=remedy)
        raw = {str(key): copy.deepcopy(value) for key, value in values.items()}
        space_file = _inline_space(raw, here)
        _make_absolute(raw, here, source)
        return cls._checked(raw, source, [], space_file)

    def changed(self, values: Mapping[str, Any]) -> Self:
        """Return the experiment with other values.

        Args:
            values: by dotted key, such as `budget.epochs`.

        Returns:
            A new, checked experiment. A population that was not given follows the budget.

        Raises:
            ExperimentError: a value breaks a rule.
        """
        raw = self.to_submit()
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
            raise located(problems_of(error, cls, raw), source, overrides, space_file) from None
        try:
            check_losses(found)
        except ExperimentError as error:
            raise error.with_(where=source) from None
        return found

    @property
    def n_trials(self) -> int | None:
        """How many trials can be trained: the budget, or as many as the space has."""
        limits = (self.budget.trials, space_size(self.search_space))
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def n_folds(self) -> int:
        """How many times a trial is trained: once, or for every fold of rolling origins."""
        validation = self.data.split.validation
        return validation.folds if isinstance(validation, Folds) else 1

    @property
    def why_single(self) -> str | None:
        """Why no two trials can be trained together, as far as the data plays no role.

        None where some may be: see `tuner.batching.why_single` for one trial.
        """
        if self.asynchronous:
            return "asynchronous starts each when a worker is free"
        if not self.strategy.rhythm.generational:
            return f"{self.strategy.name} has no generations"
        if self.budget.trial_timeout is not None:
            return "budget.trial_timeout is of one trial"
        if self.objective.cost == "seconds":
            return "objective.metrics has the seconds of each"
        return None

    @property
    def losses_compare(self) -> bool:
        """Whether the validation losses of two configurations are one quantity.

        They are not if the loss, or a key that its unit depends on, has several values in the
        search, or another value than the untuned default.
        """
        searched = [name for name in _LOSS_KEYS if name in self.search_space]
        values = [{*self.search_space[name].bounds(), self.given(name)} for name in searched]
        return all(len(of_one) == 1 for of_one in values)

    @property
    def refits(self) -> bool:
        """Whether a winner is trained again on training and validation set together."""
        wanted = self.finalists.refit
        return self.task.of_series if wanted is None else wanted

    def start(self) -> dict[str, Any]:
        """Return the configuration of trial 0: given values and defaults that lie in the space.

        A hyperparameter whose default lies outside its domain is left to the strategy. A
        preparation begins as `data` has it.
        """
        values = {name: self.given(name) for name in self.search_space}
        return {n: v for n, v in values.items() if v in self.search_space[n]}

    def given(self, name: str) -> Any:
        """Return the value of a hyperparameter, or the text of a preparation, without a search."""
        if name in PREPARED:
            return text_of(getattr(self.data, name))
        if layer := WIDTH.fullmatch(name):
            widths = self.hyperparameters.widths
            return widths[min(int(layer[1]), len(widths)) - 1]
        if name not in Hyperparameters.model_fields:
            fixed = self.hyperparameters.model_extra or {}
            return fixed[name] if name in fixed else self.default_of(name)
        value = getattr(self.hyperparameters, name)
        return self.task.window if name == "window" and value is None else value

    def default_of(self, name: str) -> Any:
        """Return the default of a hyperparameter, declared by tuner or by a cell."""
        if (field := Hyperparameters.model_fields.get(name)) is not None:
            return field.default
        return next(cell.keys[name].default for cell in self.cells if name in cell.keys)

    def configuration(self, searched: dict[str, Any]) -> dict[str, Any]:
        """Return every hyperparameter: the fixed ones, and `searched` over them.

        Searched preparations of the data are left out: see `prepared_as`. Of the keys that cells
        from user code declare, it has those of its cell.
        """
        rest = {name: value for name, value in searched.items() if name not in PREPARED}
        whole = gather_widths(self.hyperparameters.model_dump(exclude_none=True) | rest)
        if not self.cells:
            return whole
        cell = cell_of(self.cells, whole["cell"])
        own = {} if cell is None else {name: key.default for name, key in cell.keys.items()}
        known = Hyperparameters.model_fields.keys() | own.keys()
        return own | {name: value for name, value in whole.items() if name in known}

    def preparation(self, searched: Mapping[str, Any]) -> dict[str, str]:
        """Return the text of every preparation that is searched: those in `searched`, and `data`'s.

        Args:
            searched: the parameters of a trial, or of the untuned default.
        """
        names = [name for name in PREPARED if name in self.search_space]
        return {name: searched.get(name, self.given(name)) for name in names}

    def prepared_as(self, searched: Mapping[str, Any]) -> Self:
        """Return the experiment with the preparations of a trial, which are no longer searched.

        Args:
            searched: the trial's parameters; others than preparations play no role.

        Raises:
            ValueError: a preparation is not what its key takes.
        """
        texts = {name: searched[name] for name in PREPARED if name in searched}
        rest = {name: d for name, d in self.search_space.items() if name not in PREPARED}
        data = prepared_with(self.data, texts)
        return self.model_copy(update={"data": data, "search_space": rest})

    @property
    def read_rows(self) -> list[Self]:
        """The experiment with every preparation that decides the first readable row of a series.

        `data`'s is the first; others are searched, or were in the search of an exported file.
        Every model is scored on the rows that all of them leave.
        """
        options: list[list[tuple[str, str]]] = []
        recorded = {} if self.recorded is None else self.recorded.preparations
        for name in ("transform", "lags"):
            domain = self.search_space.get(name)
            searched = domain.bounds() if domain else ()
            texts = dict.fromkeys([self.given(name), *searched, *recorded.get(name, ())])
            options.append([(name, text) for text in texts])
        return [self.prepared_as(dict(chosen)) for chosen in itertools.product(*options)]

    def to_dict(self) -> dict[str, Any]:
        """Return the experiment as a mapping.

        Returns:
            Nested mappings of JSON values that `from_dict` reads as this experiment, defaults
            included. A searched hyperparameter is under `hyperparameters` only if it was given
            there: the search starts from it.
        """
        record = self.model_dump(mode="json", exclude_none=True)
        record["data"]["split"] = self.data.split.to_dict()
        for key in self.task.unused_keys:
            record["task"].pop(key, None)
        if not self.cells:
            del record["cells"]
        searched = set(self.search_space)
        if any(map(WIDTH.fullmatch, searched)):
            searched |= {"hidden_size", "num_layers"}
        for block in ("hyperparameters", "data"):
            for name in searched - getattr(self, block).model_fields_set:
                record[block].pop(name, None)
        return record

    def to_submit(self) -> dict[str, Any]:
        """Return the mapping of `to_dict` without a population that follows the budget."""
        raw = self.to_dict()
        if "population" not in self.strategy.model_fields_set:
            raw["strategy"].pop("population", None)
        return raw

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


def located(
    problems: list[ExperimentError],
    source: str,
    overrides: Sequence[Override] = (),
    space_file: str | None = None,
) -> ExperimentError:
    """Return the first problem with its remedy and its origin, a file or an option."""
    first, *others = [_located_one(problem, source, overrides, space_file) for problem in problems]
    return first.with_(others=tuple(others))


def _located_one(
    problem: ExperimentError, source: str, overrides: Sequence[Override], space_file: str | None
) -> ExperimentError:
    key, origin = problem.key or "", None
    for override in overrides:
        inner, outer = sorted((f"{key}.", f"{override.key}."), key=len, reverse=True)
        origin = override.origin if inner.startswith(outer) else origin
    remedy = problem.remedy
    if remedy is None and problem.example is not None:
        written = f"{key.rpartition('.')[2]}: {problem.example}"
        if origin == "--set":
            written = f"--set {shlex.quote(f'{key}={problem.example}')}"
        elif origin is not None:
            written = f"{origin} {problem.example}"
        remedy = f"write `{written}`, say"
    if strategy := _strategy_meant(problem, overrides):
        remedy = f"write `--strategy {strategy}`, which takes that strategy's defaults"
    error_type, where = ExperimentError, origin or source
    if key == "search_space" or key.startswith("search_space."):
        error_type = SpaceError
        if space_file is not None and origin is None:
            where, key = space_file, key.partition(".")[2]
    return error_type(problem.rule, where=where, key=key, got=problem.got, remedy=remedy)


def _strategy_meant(problem: ExperimentError, overrides: Sequence[Override]) -> str | None:
    """Return the strategy that the user meant by a `--set` that cannot choose one."""
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
    """Make the paths of data files absolute; they are relative to a folder."""
    for key in ("data.path", "data.split.test_file"):
        block: Any = raw
        *parents, name = key.split(".")
        for parent in parents:
            block = block.get(parent) if isinstance(block, dict) else None
        if not isinstance(block, dict) or not isinstance(path := block.get(name), str) or not path:
            continue
        for sign, rule, remedy in (
            ("\0", "must be a path", "correct it"),
            ("://", "must be a file here", "download it first"),
        ):
            if sign in path:
                raise ExperimentError(rule, where=source, key=key, got=repr(path), remedy=remedy)
        block[name] = str((folder / path).resolve())


def _completed(record: Any) -> Any:
    """Return a recorded experiment with the values of keys that an older version lacked.

    Without `training.execution` each trial was trained by itself, and without `unknown_rate` no
    token was read as unknown. A new experiment has the defaults.
    """
    if not isinstance(record, dict) or not isinstance(data := record.get("data"), dict):
        return record
    if isinstance(training := record.get("training") or {}, dict):
        record = record | {"training": {"execution": "single"} | training}
    fixed, space = record.get("hyperparameters") or {}, record.get("search_space")
    searched = space if isinstance(space, dict) else {}
    embeds = any(data.get(key) for key in ("text", "tokens", "categories"))
    if not embeds or not isinstance(fixed, dict) or "unknown_rate" in {*fixed, *searched}:
        return record
    return record | {"hyperparameters": fixed | {"unknown_rate": 0.0}}
