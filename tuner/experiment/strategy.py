"""The blocks `strategy` and `pruner`: options of each sampler and pruner."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tuner.experiment.data import Count
from tuner.experiment.fields import Section

__all__ = [
    "PRUNERS",
    "BruteForceStrategy",
    "CmaEsStrategy",
    "GPStrategy",
    "GridStrategy",
    "HyperbandPruner",
    "MedianPruner",
    "NoPruner",
    "Nsga2Strategy",
    "ParticleSwarmStrategy",
    "PatientPruner",
    "PercentilePruner",
    "Pruner",
    "QuantumSwarmStrategy",
    "QuasiRandomStrategy",
    "RandomStrategy",
    "Strategy",
    "SuccessiveHalvingPruner",
    "TPEStrategy",
    "WhaleStrategy",
    "WilcoxonPruner",
    "paced",
]

_GENERATIONS = 4

"""Generations that the budget has room for, at least, where no population is written."""

_Batch = Annotated[int, Field(ge=1, le=10_000, strict=True)]

_Population = Annotated[int, Field(ge=2, le=10_000, strict=True)]

_Inertia = Annotated[float, Field(ge=0, lt=1, strict=True)]

_Pull = Annotated[float, Field(ge=0, le=4, strict=True)]

_Step = Annotated[float, Field(ge=-1, le=1, strict=True)]


def _check_order(options: Section, lower: str, upper: str) -> None:
    """Raise ValueError unless `lower` is at most `upper`, naming a key that was written."""
    low, high = getattr(options, lower), getattr(options, upper)
    if low <= high:
        return
    if lower not in options.model_fields_set:
        raise ValueError(
            f"{upper}: must not be below {lower}, {low} (its default), got {high}; "
            f"give {lower} too, {high} at most"
        )
    unwritten = "" if upper in options.model_fields_set else " (its default)"
    raise ValueError(
        f"{lower}: must not be above {upper}, {high}{unwritten}, got {low}; "
        f"give a smaller number, or a larger {upper}"
    )


class RandomStrategy(Section):
    """Random search: every configuration is drawn on its own. The yardstick for the others."""

    name: Literal["random"] = "random"
    batch: _Batch = 4
    """Trials asked for before the first of them is told."""


class TPEStrategy(Section):
    """Tree-structured Parzen estimator (Optuna): models good and bad trials, picks the ratio."""

    name: Literal["tpe"] = "tpe"
    batch: _Batch = 4
    """Trials asked for before the first of them is told."""
    n_startup_trials: Annotated[int, Field(ge=0, strict=True)] = 10
    """Random trials before the model is trusted."""


class CmaEsStrategy(Section):
    """CMA-ES (cmaes): draws from a normal distribution that learns shape and place."""

    name: Literal["cmaes"] = "cmaes"
    population: Annotated[int, Field(ge=4, le=10_000, strict=True)] = 10
    """Trials in a generation; by default fewer for under 40 trials."""
    sigma: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.3
    """Standard deviation at the beginning, as a share of each range."""


class GPStrategy(Section):
    """Gaussian process (Optuna): models the objective, picks by expected improvement."""

    name: Literal["gp"] = "gp"
    batch: _Batch = 4
    """Trials asked for before the first of them is told."""
    n_startup_trials: Annotated[int, Field(ge=0, strict=True)] = 10
    """Random trials before the model is trusted."""


class QuasiRandomStrategy(Section):
    """Quasi-random search: a scrambled sequence that covers the space evenly."""

    name: Literal["qmc"] = "qmc"
    batch: _Batch = 4
    """Trials asked for before the first of them is told."""
    sequence: Literal["sobol", "halton"] = "sobol"
    """Which sequence; Sobol's is most even at powers of two."""


class GridStrategy(Section):
    """Grid search: all combinations of a few values of each parameter, in random order."""

    name: Literal["grid"] = "grid"
    batch: _Batch = 4
    """Trials asked for before the first of them is told."""
    points: Annotated[int, Field(ge=2, le=10_000, strict=True)] = 5
    """Most values of a number, spread evenly over its range."""


class BruteForceStrategy(Section):
    """Brute force: every configuration of a finite space, in random order."""

    name: Literal["brute"] = "brute"
    batch: _Batch = 4
    """Trials asked for before the first of them is told."""


class ParticleSwarmStrategy(Section):
    """Particle swarm (pyswarms): particles fly towards their own and the swarm's best."""

    name: Literal["pso"] = "pso"
    population: _Population = 10
    """Particles, and with that trials in a generation; by default fewer for under 40 trials."""
    topology: Literal["star", "ring"] = "star"
    """Whose best pulls a particle: all particles', or its nearest neighbours'."""
    neighbors: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 3
    """Neighbours in the ring, the particle itself among them."""
    inertia: _Inertia = 0.7298
    """Share of the velocity that is kept (w)."""
    inertia_end: _Inertia | None = None
    """What the inertia runs to over the generations; constant without."""
    c1: _Pull = 1.49618
    """Pull of a particle's own best."""
    c1_end: _Pull | None = None
    """What `c1` runs to; constant without."""
    c2: _Pull = 1.49618
    """Pull of the swarm's best."""
    c2_end: _Pull | None = None
    """What `c2` runs to; constant without."""
    velocity_clamp: Annotated[float, Field(gt=0, le=1, strict=True)] | tuple[_Step, _Step] = 0.5
    """Largest step in one dimension, as a share of its range; or the least and the largest."""

    @model_validator(mode="after")
    def _check(self) -> ParticleSwarmStrategy:
        if self.topology == "ring":
            _check_order(self, "neighbors", "population")
        match self.velocity_clamp:
            case (low, high) if low >= high:
                raise ValueError(
                    f"velocity_clamp: the least must be below the largest, got {[low, high]}; "
                    f"swap them?"
                )
        return self


class QuantumSwarmStrategy(Section):
    """Quantum particle swarm: particles jump around a point between their bests and the leader."""

    name: Literal["qpso"] = "qpso"
    population: _Population = 10
    """Particles, and with that trials in a generation; by default fewer for under 40 trials."""
    alpha_start: Annotated[float, Field(gt=0, le=1.7, strict=True)] = 1.0
    """Where alpha, how far particles jump, starts."""
    alpha_end: Annotated[float, Field(gt=0, le=1.7, strict=True)] = 0.5
    """What alpha falls to."""

    @model_validator(mode="after")
    def _check(self) -> QuantumSwarmStrategy:
        _check_order(self, "alpha_end", "alpha_start")
        return self


class WhaleStrategy(Section):
    """Whale optimization: whales encircle the leader, spiral towards it, or follow another."""

    name: Literal["woa"] = "woa"
    population: _Population = 10
    """Whales, and with that trials in a generation; by default fewer for under 40 trials."""
    b: Annotated[float, Field(gt=0, le=10, strict=True)] = 1.0
    """Shape of the spiral."""
    a_start: Annotated[float, Field(gt=0, le=4, strict=True)] = 2.0
    """Where `a` starts; above 1, whales also search around one another."""
    a_end: Annotated[float, Field(ge=0, le=4, strict=True)] = 0.0
    """What `a` falls to."""

    @model_validator(mode="after")
    def _check(self) -> WhaleStrategy:
        _check_order(self, "a_end", "a_start")
        return self


class Nsga2Strategy(Section):
    """NSGA-II (Optuna): a genetic algorithm; with two objectives it keeps the best trade-offs."""

    name: Literal["nsga2"] = "nsga2"
    population: _Population = 10
    """Trials in a generation; by default fewer for under 40 trials."""
    crossover: Annotated[float, Field(ge=0, le=1, strict=True)] = 0.9
    """How likely a child has two parents."""
    mutation: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    """How likely each value of a child is drawn anew; by default 1 over their number."""


Strategy = Annotated[
    RandomStrategy
    | TPEStrategy
    | CmaEsStrategy
    | GPStrategy
    | QuasiRandomStrategy
    | GridStrategy
    | BruteForceStrategy
    | ParticleSwarmStrategy
    | QuantumSwarmStrategy
    | WhaleStrategy
    | Nsga2Strategy,
    Field(discriminator="name"),
]


def paced(options: Section, n_trials: int | None) -> Section:
    """Return a strategy's options with a population that gets to move.

    One that is written stays. Else it is a quarter of the trials, at most the default and at
    least what the strategy needs: four generations.

    Args:
        options: of any strategy.
        n_trials: how many can be trained; None where that is open.
    """
    usual = getattr(options, "population", None)
    if usual is None or n_trials is None or "population" in options.model_fields_set:
        return options
    least = 4 if isinstance(options, CmaEsStrategy) else 2
    if isinstance(options, ParticleSwarmStrategy) and options.topology == "ring":
        least = max(least, options.neighbors)
    population = min(usual, max(least, n_trials // _GENERATIONS))
    changed = options.model_copy(update={"population": population})
    changed.model_fields_set.discard("population")  # it still follows the budget
    return changed


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
    """Lets one trial in `reduction_factor` go on, again and again with that many times the epochs.

    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020,
    arXiv:1810.05934; without its asynchrony, as trials are compared with earlier generations.
    """

    name: Literal["successive_halving"] = "successive_halving"
    min_resource: Annotated[Count, Field(ge=1)] = 1
    """Epochs (with folds: folds) after which the first decision falls."""
    reduction_factor: Annotated[Count, Field(ge=2)] = 4
    """One trial in so many goes on."""
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
    """One trial in so many goes on."""


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


Pruner = Annotated[
    NoPruner
    | MedianPruner
    | PercentilePruner
    | SuccessiveHalvingPruner
    | HyperbandPruner
    | PatientPruner
    | WilcoxonPruner,
    Field(discriminator="name"),
]

PRUNERS: tuple[type[Section], ...] = (
    NoPruner,
    MedianPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    HyperbandPruner,
    PatientPruner,
    WilcoxonPruner,
)
