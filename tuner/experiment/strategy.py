"""The strategies' options, one model each; `tuner.strategies` builds samplers from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tuner.experiment.model import Section

__all__ = [
    "BruteForceStrategy",
    "CmaEsStrategy",
    "GPStrategy",
    "GridStrategy",
    "Nsga2Strategy",
    "ParticleSwarmStrategy",
    "QuantumSwarmStrategy",
    "QuasiRandomStrategy",
    "RandomStrategy",
    "Strategy",
    "TPEStrategy",
    "WhaleStrategy",
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
