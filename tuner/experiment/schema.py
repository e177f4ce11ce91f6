"""The name of an experiment, and its blocks other than data, task and hyperparameters."""

from __future__ import annotations

import functools
import json
import math
import operator
import re
import typing
import unicodedata
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from tuner import strategies
from tuner.errors import ExperimentError, nearest
from tuner.experiment.data import Count
from tuner.experiment.messages import shown
from tuner.metrics import COSTS, METRICS, WAYS
from tuner.strategies import STRATEGIES, installed
from tuner.strategies.base import Section, optional
from tuner.user_code import is_user_code, parse_user_code

EXPERIMENT_BYTES = 200
"""Most bytes of an experiment's name in UTF-8: a study's name adds strategy and seed."""

STUDY_BYTES = 240
"""Most bytes of a study's name: a file's name has 255, and `.journal.held` follows."""

FINALISTS_SUFFIX = ".finalists"
"""Ends the name of the study of another study's finalists."""

SERVICE_STUDY = "tuner.service"
"""The study of a journal in which a service keeps its own records."""

_IN_NO_FILE = '/\\:*?"<>|'

_NOT_PRINTED = ("Cc", "Cs", "Cn", "Zl", "Zp")  # Unicode's: controls, half characters, line ends

_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""They change the order in which what follows is shown, so that a name looks like another."""


def normalized(name: str) -> str:
    """Return a name in Unicode's composed form, so that it names one file however it is typed."""
    return unicodedata.normalize("NFC", name)


def why_refused(name: str, most_bytes: int) -> str | None:
    """Return the rule that a name breaks; None where it breaks none.

    Args:
        name: an experiment's or a study's, normalized.
        most_bytes: its largest length in UTF-8.
    """
    if not name.strip():
        return "must not be empty"
    if refused := next(filter(_is_refused, name), None):
        return f"must not hold {refused!r}, which file names cannot have everywhere"
    if name[0] in ".-" or name != name.strip():
        return "must not begin with '.', '-' or a space, nor end with a space"
    if (n_bytes := len(name.encode())) > most_bytes:
        return f"must have at most {most_bytes} bytes in UTF-8, has {n_bytes}"
    return None


def why_reserved(study: str) -> str | None:
    """Return why no study may have a name; None where it may."""
    if study.endswith(FINALISTS_SUFFIX):
        return f"names that end in {FINALISTS_SUFFIX} are reserved"
    return f"{SERVICE_STUDY} is the service's own" if study == SERVICE_STUDY else None


def mended(name: str, most_bytes: int) -> str:
    """Return a similar name that breaks no rule; empty where nothing is left."""
    kept = "".join("_" if _is_refused(c) else c for c in normalized(name))
    kept = re.sub(r"^[\s._-]+|[\s_]+$", "", re.sub(r"__+", "_", kept))
    return re.sub(r"[\s_]+$", "", kept.encode()[:most_bytes].decode(errors="ignore"))


def _is_refused(character: str) -> bool:
    return character in _IN_NO_FILE + _TURNS or unicodedata.category(character) in _NOT_PRINTED


def check_name(name: str) -> str:
    """Return a name as files and MLflow have it; raise ExperimentError where they cannot."""
    name = normalized(name)
    if why := why_refused(name, EXPERIMENT_BYTES):
        instead = mended(name, EXPERIMENT_BYTES) or "sales"
        plain = re.fullmatch(r"[A-Za-z]\w*", instead, re.ASCII)
        example = instead if plain else json.dumps(instead, ensure_ascii=False)
        raise ExperimentError(why, got=shown(name), example=example)
    return name


ExperimentName = Annotated[str, AfterValidator(check_name), Field(examples=["sales"])]


if TYPE_CHECKING:
    Strategy = strategies.Strategy
else:

    def _installed(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        """Read the options of a strategy of an installed package, else of tuner's own."""
        name = value.get("name") if isinstance(value, dict) else None
        options = installed(name)
        if options is not None:
            return options.model_validate(value)
        known = isinstance(value, strategies.Strategy) and value.name not in STRATEGIES
        return value if known else read(value)

    _Ours = functools.reduce(operator.or_, STRATEGIES.values())
    Strategy = Annotated[
        SerializeAsAny[Annotated[_Ours, Field(discriminator="name")]], WrapValidator(_installed)
    ]


_LONGEST_DURATION = 100  # characters

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


def _parse_duration(value: Any) -> Any:
    """Return the seconds of a text such as 90s, 10m, 1.5h or 1h30m; any other value as it is."""
    if not isinstance(value, str):
        return value
    parts = _DURATION.findall(value) if len(value) <= _LONGEST_DURATION else []
    if not parts or _DURATION.sub("", value).strip():
        raise ExperimentError("must be a time", remedy="write 90s, 10m or 1h30m, say")
    return sum(float(n) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for n, unit in parts)


Duration = Annotated[
    float, BeforeValidator(_parse_duration), Field(gt=0, strict=True, allow_inf_nan=False)
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
    """How often a trial is trained again after its worker died."""


class NoPruner(Section):
    """Every trial is trained to its end."""

    name: Literal["none"] = "none"


class _Warmup(Section):
    """How much is trained before anything is pruned."""

    n_startup_trials: Annotated[Count, Field(ge=0)] = 10
    """Completed trials before any is pruned."""
    n_warmup_steps: Annotated[Count, Field(ge=0)] = 10
    """Epochs that every trial gets; with folds it is always the first fold."""
    interval_steps: Annotated[Count, Field(ge=1)] = 1
    """Epochs between decisions."""


class MedianPruner(_Warmup):
    """Stops a trial whose best metric so far is worse than the median of earlier trials'."""

    name: Literal["median"] = "median"


class PercentilePruner(_Warmup):
    """Stops a trial whose best metric so far is not among the best share of earlier trials'."""

    name: Literal["percentile"] = "percentile"
    percentile: Annotated[float, Field(ge=0, le=100, strict=True)] = 25.0
    """Percent of the earlier trials that a trial must keep up with."""


class SuccessiveHalvingPruner(Section):
    """Keeps one trial in `reduction_factor` at each decision; the epochs grow by the same factor.

    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020,
    arXiv:1810.05934; without its asynchrony, as trials are compared with earlier generations.
    """

    name: Literal["successive_halving"] = "successive_halving"
    min_resource: Annotated[Count, Field(ge=1)] = 1
    """Epochs (with folds: folds) after which the first decision falls."""
    reduction_factor: Annotated[Count, Field(ge=2)] = 4
    """One trial in so many is kept."""
    min_early_stopping_rate: Annotated[Count, Field(ge=0)] = 0
    """Decisions that are skipped at the beginning."""


class HyperbandPruner(Section):
    """Successive halving with several first decisions side by side; each trial has one of them.

    Li et al., Journal of Machine Learning Research 18, 2018, arXiv:1603.06560.
    """

    name: Literal["hyperband"] = "hyperband"
    min_resource: Annotated[Count, Field(ge=1)] = 1
    """Epochs (with folds: folds) after which the earliest decision falls."""
    reduction_factor: Annotated[Count, Field(ge=2)] = 3
    """One trial in so many is kept."""


class WilcoxonPruner(Section):
    """Stops a trial whose folds are worse than the best trial's by a signed-rank test.

    Needs rolling origins: the folds are the pairs that are compared.
    """

    name: Literal["wilcoxon"] = "wilcoxon"
    p_threshold: Annotated[float, Field(ge=0, le=1, strict=True)] = 0.1
    """Largest p-value at which a trial is stopped."""
    n_startup_steps: Annotated[Count, Field(ge=0)] = 2
    """Folds that every trial gets."""


_EpochPruner = (
    NoPruner | MedianPruner | PercentilePruner | SuccessiveHalvingPruner | HyperbandPruner
)


class PatientPruner(Section):
    """Lets another pruner decide only once a trial has been worse than before for some epochs."""

    name: Literal["patient"] = "patient"
    patience: Annotated[Count, Field(ge=0)] = 5
    """Epochs (with folds: folds) without improvement before the other pruner decides."""
    min_delta: Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)] = 0.0
    """Tolerance of the metric within which a value counts as no worse."""
    wrapped: Annotated[_EpochPruner, Field(discriminator="name")] = MedianPruner()
    """The other pruner; with `none` patience alone stops a trial."""


_Pruners = _EpochPruner | PatientPruner | WilcoxonPruner
Pruner = Annotated[_Pruners, Field(discriminator="name")]
PRUNERS: tuple[type[Section], ...] = typing.get_args(_Pruners)


def _check_metric(value: Any) -> str:
    way, _, rest = " ".join(str(value).split()).partition(" ")
    if way not in WAYS:
        rule = "must begin with minimize or maximize"
        raise ExperimentError(rule, got=repr(value), remedy=f"write 'minimize {value}'")
    return f"{way} {parse_user_code(rest)}"


if TYPE_CHECKING:
    _Metric = str
else:
    _Metric = Literal[tuple(METRICS)]

MetricName = Annotated[
    Annotated[_Metric, Tag("(metric)")]
    | Annotated[str, BeforeValidator(_check_metric), Tag("(own)")],
    Discriminator(
        lambda v: "(own)" if is_user_code(v) or str(v).split(" ")[0] in WAYS else "(metric)"
    ),
]
"""A metric of tuner, or `minimize` or `maximize` and user code."""


class Objective(Section):
    """The metric on the validation set, or a metric and a cost; the direction follows from it."""

    metric: MetricName = "rmse"
    """On the validation set; by default rmse, with task.quantiles pinball, of classes accuracy."""
    metrics: list[str] | None = optional(["rmse", "weights"])
    """Two objectives: a metric, and a cost of the model: weights, seconds or latency."""

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
        """The second objective, of which less is better; None where there is only one."""
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
    """Device and precision of the training, and how many trials a worker trains at once."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The processor or the GPU; auto takes the GPU where there is one."""
    mixed_precision: Annotated[bool, Field(strict=True)] = False
    """Whether a GPU may compute in 16 bits where the precision suffices."""
    execution: Literal["auto", "single", "batched"] = "auto"
    """Whether trials of a generation are trained together; auto does it where it is faster."""


class Resources(Section):
    """Resources that a trial takes while it trains."""

    cpus: Annotated[float, Field(gt=0, le=1024, strict=True, allow_inf_nan=False)] = 1
    """Cores reserved for a trial, which trains with one thread in any case."""
    gpus: Annotated[float, Field(ge=0, le=64, strict=True, allow_inf_nan=False)] = 0
    """GPUs, or the part of one: with 0.25 four trials share a GPU."""
    wait: Duration | None = optional("10m")
    """How long trials wait for a cluster to grow if none of its nodes has these resources."""

    @model_validator(mode="after")
    def _whole_above_one(self) -> Resources:
        if self.gpus > 1 and not self.gpus.is_integer():
            rule = "must be a part of one GPU or a whole number of them"
            remedy = f"write {math.ceil(self.gpus)}"
            raise ExperimentError(rule, key="gpus", got=f"{self.gpus:g}", remedy=remedy)
        return self


class Finalists(Section):
    """The best configurations, retrained on fresh seeds before one is called the winner."""

    top: Annotated[Count, Field(ge=0, le=1000)] = 3
    """Configurations; 0 leaves the step out."""
    repeats: Annotated[Count, Field(ge=1, le=1000)] = 3
    """Fresh seeds for each."""
    baseline: Annotated[bool, Field(strict=True)] = True
    """Whether the untuned default is trained as often, and wins where none is better."""
    refit: Annotated[bool, Field(strict=True)] | None = optional(True)
    """Whether the winner is trained again on training and validation set; forecasts by default."""


class Recorded(Section):
    """An exported file's record of its search."""

    study: str
    seed: Annotated[Count, Field(ge=0, le=2**32 - 1)]
    """The training seed that gives `score`."""
    score: Annotated[float, Field(allow_inf_nan=False)]
    """The validation score, which `tuner train` reproduces."""
    batched: bool | None = None
    """Whether that training was one of a group: a single one may round otherwise."""
    metric: str
    epochs: Annotated[Count, Field(ge=1, le=1_000_000)] | None = optional(20)
    """The best epoch of that training; `tuner train --all-data` trains for as many."""
    refit_epochs: Annotated[Count, Field(ge=1, le=1_000_000)] | None = optional(23)
    """Epochs of the refit on training and validation set, whose model is written then."""
    search: float | None = None
    """Score of the configuration in the search, where it was retrained afterwards."""
    seeds: list[Count] = Field(default_factory=list)
    """Of every retraining, the first of which is `seed`."""
    scores: list[float] = Field(default_factory=list)
    """Of every retraining."""
    mean: float | None = None
    """Over the retrainings."""
    std: float | None = None
    test: float | None = None
    refit: float | None = None
    """Mean test score of the refits on training and validation set."""
    preparations: dict[str, list[str]] = Field(default_factory=dict)
    """The searched preparations: all models are scored on the rows that each of them leaves."""
    data_sha256: str
    rows: Count
    device: str | None = None
    """Device on which `score` was computed."""
    versions: dict[str, str]
    command: str
