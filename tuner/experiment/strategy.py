"""The blocks `strategy` and `pruner`: options of each sampler and pruner."""

from __future__ import annotations

import functools
import operator
import typing
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator

from tuner import strategies
from tuner.experiment.data import Count
from tuner.strategies.base import Section
from tuner.strategies.registry import STRATEGIES, installed

__all__ = [
    "PRUNERS",
    "HyperbandPruner",
    "MedianPruner",
    "NoPruner",
    "PatientPruner",
    "PercentilePruner",
    "Pruner",
    "Strategy",
    "SuccessiveHalvingPruner",
    "WilcoxonPruner",
]

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
        SerializeAsAny[Annotated[_Ours, Field(discriminator="name")]],
        WrapValidator(_installed),
    ]


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
    """Decisions that are left out at the beginning."""


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


_Patiently = Annotated[
    NoPruner | MedianPruner | PercentilePruner | SuccessiveHalvingPruner | HyperbandPruner,
    Field(discriminator="name"),
]


class PatientPruner(Section):
    """Lets another pruner decide only once a trial has been worse than before for some epochs."""

    name: Literal["patient"] = "patient"
    patience: Annotated[Count, Field(ge=0)] = 5
    """Epochs (with folds: folds) of getting worse before the other pruner is asked."""
    min_delta: Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)] = 0.0
    """How much worse than before the metric may be meanwhile."""
    wrapped: _Patiently = MedianPruner()
    """The other pruner; of `none` patience alone stops a trial."""


_Pruners = (
    NoPruner
    | MedianPruner
    | PercentilePruner
    | SuccessiveHalvingPruner
    | HyperbandPruner
    | PatientPruner
    | WilcoxonPruner
)
Pruner = Annotated[_Pruners, Field(discriminator="name")]
PRUNERS: tuple[type[Section], ...] = typing.get_args(_Pruners)
