"""The experiment file as pydantic models: every key, its default and its range."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tuner.errors import nearest
from tuner.experiment.hyperparameters import Hyperparameters, check_value
from tuner.experiment.loading import load_experiment
from tuner.experiment.model import Section
from tuner.experiment.reading import Override, dump_yaml
from tuner.experiment.space import SearchSpace, space_size
from tuner.experiment.strategy import Strategy, TPEStrategy

__all__ = [
    "Budget",
    "Data",
    "Experiment",
    "Finalists",
    "MedianPruner",
    "NoPruner",
    "Objective",
    "Pruner",
    "Recorded",
    "Split",
    "Task",
]

_Count = Annotated[int, Field(strict=True)]


def _parse_extent(value: Any) -> Any:
    """A share of the rows (0.2), a number of rows (24), or a date at which the part begins."""
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(
            "must be a fraction, a number of rows or an ISO date; write 0.2, 24 or 1960-01-01"
        )
    if isinstance(value, int) and value < 1:
        raise ValueError("a number of rows must be at least 1; write 24, say")
    if isinstance(value, float) and not 0 < value < 1:
        raise ValueError("a fraction must be between 0 and 1; write 0.2, say")
    if isinstance(value, str):
        try:
            dt.datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(
                "must be a fraction, a number of rows or an ISO date; write 0.2, 24 or 1960-01-01"
            ) from None
    return value


def _parse_duration(value: Any) -> Any:
    """Seconds, or a text such as 90s, 10m, 1.5h, 1h30m."""
    if not isinstance(value, str):
        return value
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", value)
    if not parts or re.sub(r"(\d+(?:\.\d+)?)\s*([smhd])|\s+", "", value):
        raise ValueError("must be a time; write 90s, 10m or 1h30m, say")
    return sum(float(n) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for n, unit in parts)


Duration = Annotated[
    float,
    BeforeValidator(_parse_duration),
    Field(gt=0, strict=True, allow_inf_nan=False),
]


class Split(Section):
    """The chronological tails: training rows, then validation rows, then test rows."""

    validation: Annotated[int | float | str, BeforeValidator(_parse_extent)] = 0.2
    """Share of the rows, number of rows, or the date at which the part begins."""
    test: Annotated[int | float | str, BeforeValidator(_parse_extent)] = 0.15
    """Likewise; the test part is the last one."""


class Data(Section):
    """Where the series is and how it is prepared."""

    path: Annotated[str, Field(min_length=1, examples=["data/series.csv"])]
    """CSV file, relative to the experiment file."""
    time: Annotated[str, Field(min_length=1)] | None = Field(None, examples=["date"])
    """Column of times; order, gaps and duplicates are checked where it is given."""
    target: Annotated[
        Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)],
        Field(examples=["sales"]),
    ]
    """Column to forecast, or several."""
    features: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, examples=[["sales", "price"]]
    )
    """Columns that the model sees; every numeric one by default."""
    split: Split = Split()
    transform: Literal["log", "none", "difference"] = "none"
    """Done to the target columns before scaling; inverted before metrics."""
    scale: Literal["standard", "minmax", "none"] = "standard"
    """Fitted on the training part."""

    @property
    def targets(self) -> list[str]:
        """The target columns as a list."""
        return [self.target] if isinstance(self.target, str) else list(self.target)

    @model_validator(mode="after")
    def _check(self) -> Data:
        for key, columns in (("target", self.targets), ("features", self.features or [])):
            for column in columns:
                if columns.count(column) > 1:
                    raise ValueError(f"{key}: names must differ, got {column!r} twice; remove one")
                if column == self.time:
                    text = f"{key}: must not name the time column, got {column!r}; remove it"
                    raise ValueError(text)
        return self


class Task(Section):
    """What is forecast from what."""

    kind: Literal["forecast"] = "forecast"
    window: Annotated[_Count, Field(ge=1, le=100_000)] = 12
    """Past rows that the model sees."""
    horizon: Annotated[_Count, Field(ge=1, le=10_000)] = 1
    """Rows ahead that it forecasts."""
    season: Annotated[_Count, Field(ge=1)] | None = Field(None, examples=[12])
    """Rows in a season, for the seasonal-naive baseline; found from the time column by default."""


class NoPruner(Section):
    """Every trial is trained to its end."""

    name: Literal["none"] = "none"


class MedianPruner(Section):
    """Stops a trial whose best metric so far is worse than the median of earlier trials'."""

    name: Literal["median"] = "median"
    n_startup_trials: Annotated[_Count, Field(ge=0)] = 10
    """Completed trials before any is pruned."""
    n_warmup_steps: Annotated[_Count, Field(ge=0)] = 10
    """Epochs that every trial gets."""
    interval_steps: Annotated[_Count, Field(ge=1)] = 1
    """Epochs between decisions."""


Pruner = Annotated[NoPruner | MedianPruner, Field(discriminator="name")]


class Budget(Section):
    """How much may be spent."""

    trials: Annotated[_Count, Field(ge=1, le=1_000_000)] = 40
    """Configurations trained, however they end."""
    epochs: Annotated[_Count, Field(ge=1, le=1_000_000)] = 100
    """Most epochs of one trial."""
    patience: Annotated[_Count, Field(ge=1)] = 15
    """Epochs without a better metric after which a trial stops."""
    timeout: Duration | None = Field(None, examples=["10m"])
    """Seconds (or 10m, 1h30m) after which no further trial starts; over all resumed runs."""


class Objective(Section):
    """What the search optimizes on the validation part; the direction follows from it."""

    metric: Literal["rmse", "mae", "mape", "r2"] = "rmse"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether the smaller or the larger score is better."""
        return "maximize" if self.metric == "r2" else "minimize"


class Finalists(Section):
    """The best configurations, retrained on fresh seeds before one is called the winner."""

    top: Annotated[_Count, Field(ge=0, le=1000)] = 3
    """Configurations; 0 leaves the step out."""
    repeats: Annotated[_Count, Field(ge=1, le=1000)] = 3
    """Fresh seeds for each."""


class Recorded(Section):
    """What an exported file remembers of the search that it came from."""

    study: str
    seed: _Count
    """The training seed that gives `score`."""
    score: float
    """The validation score that `tuner train` reproduces."""
    metric: str
    mean: float | None = None
    """Over the finalist's repeats."""
    std: float | None = None
    test: float | None = None
    data_sha256: str
    rows: _Count
    versions: dict[str, str]
    command: str


class Experiment(Section):
    """One experiment: data, task, model, search space, strategy and budget."""

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100, examples=["sales"])
    ]
    data: Data
    task: Task = Task()
    hyperparameters: Hyperparameters = Hyperparameters()
    search_space: SearchSpace = Field(default_factory=dict)
    strategy: Strategy = TPEStrategy()
    budget: Budget = Budget()
    pruner: Pruner = MedianPruner()
    objective: Objective = Objective()
    finalists: Finalists = Finalists()
    seed: Annotated[_Count, Field(ge=0, le=2**32 - 1)] = 0
    recorded: Recorded | None = None

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        endless = [name for name, domain in self.search_space.items() if domain.size() is None]
        if self.strategy.name == "brute" and endless:
            raise ValueError(
                f"strategy.name: brute tries every configuration, got the continuum "
                f"search_space.{endless[0]}; give it a step"
            )
        for name, domain in self.search_space.items():
            key = f"search_space.{name}"
            if name not in Hyperparameters.model_fields:
                known = nearest(name, Hyperparameters.model_fields)
                raise ValueError(f"{key}: unknown hyperparameter {name!r}{known}")
            if domain.type == "float" and Hyperparameters.model_fields[name].annotation is int:
                raise ValueError(f"{key}.type: is a whole number, got 'float'; write `type: int`")
            for value in domain.bounds():
                if problem := check_value(name, value):
                    raise ValueError(f"{key}: every value {problem}, got {value!r}; change it")
            start = getattr(self.hyperparameters, name)
            if name in self.hyperparameters.model_fields_set and start not in domain:
                raise ValueError(
                    f"hyperparameters.{name}: the search starts at this value, which must lie in "
                    f"search_space.{name}, got {start!r}; move it or widen the space"
                )
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[Override] = ()) -> Experiment:
        """Read and check an experiment file.

        Args:
            path: the YAML file; `data.path` and `search_space` in it are relative to it.
            overrides: values that replace the file's, in order.

        Raises:
            ExperimentError: naming file, key, rule and value, and what to write instead.
        """
        return load_experiment(cls, Path(path), list(overrides))

    def to_dict(self) -> dict[str, Any]:
        """Return what loads as this experiment, defaults included.

        A searched hyperparameter appears under `hyperparameters` only where the search starts
        from it.
        """
        record = self.model_dump(mode="json", exclude_none=True)
        for name in set(self.search_space) - self.hyperparameters.model_fields_set:
            del record["hyperparameters"][name]
        return record

    def to_yaml(self) -> str:
        """Write the experiment as it was understood, defaults included."""
        return dump_yaml(self.to_dict())

    @property
    def n_trials(self) -> int:
        """How many trials can be trained: the budget, or as many as the space has."""
        size = space_size(self.search_space)
        return self.budget.trials if size is None else min(self.budget.trials, size)

    def start(self) -> dict[str, Any]:
        """Return the configuration of trial 0: what is given or the default, where in the space.

        A hyperparameter whose default lies outside its domain is left to the strategy.
        """
        values = {name: getattr(self.hyperparameters, name) for name in self.search_space}
        return {n: v for n, v in values.items() if v in self.search_space[n]}

    def configuration(self, searched: dict[str, Any]) -> dict[str, Any]:
        """Return every hyperparameter: the fixed ones, and `searched` over them."""
        return self.hyperparameters.model_dump() | searched
