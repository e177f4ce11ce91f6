"""The experiment file as pydantic models: every key, its default and its range."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tuner.errors import ExperimentError, nearest
from tuner.experiment.cells import Cell, cell_of
from tuner.experiment.data import Count, Data, Folds, Split, Task
from tuner.experiment.fields import (
    EXPERIMENT_BYTES,
    MetricName,
    mended,
    normalized,
    why_refused,
)
from tuner.experiment.hyperparameters import WIDTH, Hyperparameters, gather_widths
from tuner.experiment.messages import shown
from tuner.experiment.space import PREPARED, SearchSpace, prepared_with, space_size, text_of
from tuner.experiment.strategy import MedianPruner, Pruner, Strategy
from tuner.metrics import COSTS, METRICS
from tuner.strategies.base import Section, optional
from tuner.strategies.model_based import TPEStrategy

__all__ = [
    "Blocks",
    "Budget",
    "Data",
    "Finalists",
    "Folds",
    "Objective",
    "Recorded",
    "Resources",
    "Split",
    "Task",
    "Training",
]


def _parse_duration(value: Any) -> Any:
    """Seconds, or a text such as 90s, 10m, 1.5h, 1h30m."""
    if not isinstance(value, str):
        return value
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", value)
    if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*([smhd])|\s+", "", value):
        raise ExperimentError("must be a time", remedy="write 90s, 10m or 1h30m, say")
    return sum(float(n) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for n, unit in parts)


Duration = Annotated[
    float,
    BeforeValidator(_parse_duration),
    Field(gt=0, strict=True, allow_inf_nan=False),
]


class Budget(Section):
    """How much may be spent."""

    trials: Annotated[Count, Field(ge=1, le=1_000_000)] | None = Field(40, examples=[40])
    """Configurations trained, however they end; null where something else ends the search."""
    epochs: Annotated[Count, Field(ge=1, le=1_000_000)] = 100
    """Most epochs of one trial."""
    patience: Annotated[Count, Field(ge=1)] = 15
    """Epochs without a better metric after which a trial stops."""
    stagnation: Annotated[Count, Field(ge=1)] | None = optional(5)
    """Generations or batches without a better score after which the search ends."""
    timeout: Duration | None = optional("10m")
    """Seconds (or 10m, 1h30m) after which no further trial starts; over all resumed runs."""
    trial_timeout: Duration | None = optional("5m")
    """Seconds (or 5m) after which a trial that still trains is ended, as failed."""
    retries: Annotated[Count, Field(ge=0, le=1000)] = 2
    """How often a trial that the machine lost (its worker was killed, say) is trained again."""


class Resources(Section):
    """Resources that a trial takes while it trains."""

    cpus: Annotated[float, Field(gt=0, le=1024, strict=True, allow_inf_nan=False)] = 1
    """Cores that are set aside for it; it trains with one thread whatever this is."""
    gpus: Annotated[float, Field(ge=0, le=64, strict=True, allow_inf_nan=False)] = 0
    """GPUs, or the part of one: with 0.25 four trials share a GPU."""

    @model_validator(mode="after")
    def _whole_above_one(self) -> Resources:
        if self.gpus > 1 and not self.gpus.is_integer():
            rule = "must be a part of one GPU or a whole number of them"
            remedy = f"write {math.ceil(self.gpus)}"
            raise ExperimentError(rule, key="gpus", got=f"{self.gpus:g}", remedy=remedy)
        return self


class Objective(Section):
    """The objective on the validation part; the direction follows from it."""

    metric: MetricName = "rmse"
    """Of the validation part; by default rmse, with task.quantiles pinball, of classes accuracy."""
    metrics: list[str] | None = optional(["rmse", "weights"])
    """Two objectives: a metric, and what a model costs: weights, seconds or latency."""

    @model_validator(mode="before")
    @classmethod
    def _first(cls, raw: Any) -> Any:
        match raw:
            case {"metrics": [str() as first, *_]} if "metric" not in raw and first in METRICS:
                return {**raw, "metric": first}
        return raw

    @model_validator(mode="after")
    def _check_metrics(self) -> Objective:
        if self.metrics is None:
            return self
        got = f"[{', '.join(self.metrics)}]"
        for name in self.metrics:
            if name not in METRICS and name not in COSTS:
                known = nearest(name, [*METRICS, *COSTS])
                rule = f"unknown metric {name!r}"
                raise ExperimentError(rule, key="metrics", got=got, remedy=known)
        costs = [name for name in self.metrics if name in COSTS]
        scores = [name for name in self.metrics if name in METRICS]
        if [len(scores), len(costs)] != [1, 1] or self.metrics[0] in COSTS:
            rule = f"must be a metric and then a cost ({', '.join(COSTS)})"
            remedy = f"write [{(scores or ['rmse'])[0]}, {(costs or ['weights'])[0]}]"
            raise ExperimentError(rule, key="metrics", got=got, remedy=remedy)
        if self.metric != self.metrics[0]:
            rule = f"must be the first of metrics, {self.metrics[0]}"
            raise ExperimentError(rule, key="metric", got=repr(self.metric), remedy="leave it out")
        return self

    @property
    def cost(self) -> str | None:
        """The second objective, of which less is better; None where there is but one."""
        return self.metrics[1] if self.metrics else None

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """Which way each objective is better."""
        return [self.direction] if self.cost is None else [self.direction, "minimize"]

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether the smaller or the larger score is better."""
        return "maximize" if METRICS[self.metric].maximize else "minimize"


class Training(Section):
    """Where models are trained, and how exactly."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The processor or the GPU; auto takes the GPU where there is one."""
    mixed_precision: Annotated[bool, Field(strict=True)] = False
    """Whether a GPU may calculate with 16 bits where that does little harm."""


class Finalists(Section):
    """The best configurations, retrained on fresh seeds before one is called the winner."""

    top: Annotated[Count, Field(ge=0, le=1000)] = 3
    """Configurations; 0 leaves the step out."""
    repeats: Annotated[Count, Field(ge=1, le=1000)] = 3
    """Fresh seeds for each."""
    baseline: Annotated[bool, Field(strict=True)] = True
    """Whether the untuned default is trained as often, and wins where none is better."""
    refit: Annotated[bool, Field(strict=True)] | None = optional(True)
    """Whether the winner is trained again on training and validation part; forecasts by default."""


class Recorded(Section):
    """An exported file's record of its search."""

    study: str
    seed: Annotated[Count, Field(ge=0, le=2**32 - 1)]
    """The training seed that gives `score`."""
    score: Annotated[float, Field(allow_inf_nan=False)]
    """The validation score that `tuner train` reproduces."""
    metric: str
    epochs: Annotated[Count, Field(ge=1, le=1_000_000)] | None = optional(20)
    """After how many epochs that training was best; `tuner train --all-data` trains as many."""
    refit_epochs: Annotated[Count, Field(ge=1, le=1_000_000)] | None = optional(23)
    """Of the winner trained again on training and validation part: such a model is written then."""
    search: float | None = None
    """What the configuration scored in the search, where it was retrained afterwards."""
    seeds: list[Count] = Field(default_factory=list)
    """Of every retraining, the first of which is `seed`."""
    scores: list[float] = Field(default_factory=list)
    """Of every retraining."""
    mean: float | None = None
    """Over the retrainings."""
    std: float | None = None
    test: float | None = None
    refit: float | None = None
    """Mean test score of the models trained again on training and validation part."""
    preparations: dict[str, list[str]] = Field(default_factory=dict)
    """What the search could do with the data: all models are scored on the rows that it leaves."""
    data_sha256: str
    rows: Count
    device: str | None = None
    """What `score` was calculated on."""
    versions: dict[str, str]
    command: str


def _check_name(name: str) -> str:
    """Return a name as files and MLflow have it; raise ValueError where they cannot."""
    name = normalized(name)
    if why := why_refused(name, EXPERIMENT_BYTES):
        instead = mended(name, EXPERIMENT_BYTES) or "sales"
        plain = re.fullmatch(r"[A-Za-z]\w*", instead, re.ASCII)
        example = instead if plain else json.dumps(instead, ensure_ascii=False)
        raise ExperimentError(why, got=shown(name), example=example)
    return name


_OF_THE_LOSS = ("loss", "class_weights", "transform", "scale")
"""Keys that decide the quantity and the unit of a validation loss."""


class Blocks(Section):
    """The keys of an experiment, and its configurations. `Experiment` checks them together."""

    name: Annotated[str, AfterValidator(_check_name), Field(examples=["sales"])]
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
    cells: list[Cell] = Field(default_factory=list)
    """Declarations of cells from user code; written by tuner."""

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
    def losses_compare(self) -> bool:
        """Whether the validation losses of two configurations are one quantity.

        They are not where the loss, or what its units depend on, has several values in the search,
        or one that the untuned default has not.
        """
        searched = [name for name in _OF_THE_LOSS if name in self.search_space]
        values = [{*self.search_space[name].bounds(), self.given(name)} for name in searched]
        return all(len(of_one) == 1 for of_one in values)

    @property
    def refits(self) -> bool:
        """Whether a winner is trained again on training and validation part together."""
        wanted = self.finalists.refit
        return self.task.of_series if wanted is None else wanted

    def start(self) -> dict[str, Any]:
        """Return the configuration of trial 0: what is given or the default, where in the space.

        A hyperparameter whose default lies outside its domain is left to the strategy. A
        preparation begins as `data` has it.
        """
        values = {name: self.given(name) for name in self.search_space}
        return {n: v for n, v in values.items() if v in self.search_space[n]}

    def given(self, name: str) -> Any:
        """Return what a hyperparameter, or the text of a preparation, is without a search."""
        if name in PREPARED:
            return text_of(getattr(self.data, name))
        if layer := WIDTH.fullmatch(name):
            widths = self.hyperparameters.widths
            return widths[min(int(layer[1]), len(widths)) - 1]
        if name not in Hyperparameters.model_fields:
            fixed = self.hyperparameters.model_extra or {}
            return fixed.get(name, self.default_of(name))
        value = getattr(self.hyperparameters, name)
        return self.task.window if name == "window" and value is None else value

    def default_of(self, name: str) -> Any:
        """Return the default of a hyperparameter, declared by tuner or by a cell."""
        if (field := Hyperparameters.model_fields.get(name)) is not None:
            return field.default
        return next(cell.keys[name].default for cell in self.cells if name in cell.keys)

    def configuration(self, searched: dict[str, Any]) -> dict[str, Any]:
        """Return every hyperparameter: the fixed ones, and `searched` over them.

        A searched preparation of the data is none: see `prepared_as`. Of keys that cells of one's
        own declare it has those of its cell.
        """
        rest = {name: value for name, value in searched.items() if name not in PREPARED}
        whole = gather_widths(self.hyperparameters.model_dump(exclude_none=True) | rest)
        if not self.cells:
            return whole
        cell = cell_of(self.cells, whole["cell"])
        own = {} if cell is None else {name: key.default for name, key in cell.keys.items()}
        ours = Hyperparameters.model_fields
        return own | {name: v for name, v in whole.items() if name in ours or name in own}

    def preparation(self, searched: Mapping[str, Any]) -> dict[str, str]:
        """Return the text of every preparation that is searched: those in `searched`, and `data`'s.

        Args:
            searched: the parameters of a trial, or of the untuned default.
        """
        names = [name for name in PREPARED if name in self.search_space]
        return {name: searched.get(name, self.given(name)) for name in names}

    def prepared_as(self, searched: Mapping[str, Any]) -> Self:
        """Return the experiment with `data` as a trial has it, and no search of that.

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

        Those that are searched, or were in the search that an exported file is of, and `data`'s,
        which is the first. Whatever the preparation, a model is scored on the rows that each of
        them leaves.
        """
        options: list[list[tuple[str, str]]] = []
        recorded = {} if self.recorded is None else self.recorded.preparations
        for name in ("transform", "lags"):
            domain = self.search_space.get(name)
            texts = [
                self.given(name),
                *(domain.bounds() if domain else ()),
                *recorded.get(name, ()),
            ]
            options.append([(name, text) for text in dict.fromkeys(texts)])
        return [self.prepared_as(dict(chosen)) for chosen in itertools.product(*options)]
