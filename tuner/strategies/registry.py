"""Strategies by name, and how the options of each become a sampler.

Every function takes options, distributions, seed and number of generations. What a strategy is
built on is imported when it is made: listing strategies stays quick.

Importing this imports no library that a strategy is built on: listing strategies is quick.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.errors import SpaceError
from tuner.experiment.fields import Section
from tuner.experiment.strategy import (
    BruteForceStrategy,
    CmaEsStrategy,
    GPStrategy,
    GridStrategy,
    Nsga2Strategy,
    ParticleSwarmStrategy,
    QuantumSwarmStrategy,
    QuasiRandomStrategy,
    RandomStrategy,
    TPEStrategy,
    WhaleStrategy,
)

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    Distributions = Mapping[str, BaseDistribution]

__all__ = [
    "STRATEGIES",
    "Rhythm",
    "Strategy",
    "brute",
    "cmaes",
    "gp",
    "grid",
    "make_sampler",
    "nsga2",
    "pso",
    "qmc",
    "qpso",
    "random",
    "rhythm_of",
    "tpe",
    "woa",
]


def random(
    options: RandomStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of random search."""
    from optuna.samplers import RandomSampler

    from tuner.strategies.optuna_samplers import KeyedSampler

    return KeyedSampler(RandomSampler, seed=seed)


def tpe(
    options: TPEStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of Optuna's tree-structured Parzen estimator."""
    from optuna.samplers import TPESampler

    from tuner.strategies.optuna_samplers import KeyedSampler

    def build(trial_seed: int) -> BaseSampler:
        return TPESampler(
            n_startup_trials=options.n_startup_trials,
            multivariate=True,
            constant_liar=True,
            seed=trial_seed,
        )

    return KeyedSampler(build, seed=seed)


def pso(
    options: ParticleSwarmStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of the particle swarm."""
    from tuner.strategies.pso import ParticleSwarmSampler

    return ParticleSwarmSampler(
        population_size=options.population,
        n_generations=n_generations,
        inertia=options.inertia,
        inertia_end=options.inertia_end,
        c1=options.c1,
        c1_end=options.c1_end,
        c2=options.c2,
        c2_end=options.c2_end,
        topology=options.topology,
        neighbors=options.neighbors,
        velocity_clamp=options.velocity_clamp,
        seed=seed,
        search_space=distributions,
    )


def woa(
    options: WhaleStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of whale optimization."""
    from tuner.strategies.woa import WhaleSampler

    return WhaleSampler(
        population_size=options.population,
        n_generations=n_generations,
        b=options.b,
        a_start=options.a_start,
        a_end=options.a_end,
        seed=seed,
        search_space=distributions,
    )


def qpso(
    options: QuantumSwarmStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of the quantum particle swarm."""
    from tuner.strategies.pso import QuantumSwarmSampler

    return QuantumSwarmSampler(
        population_size=options.population,
        n_generations=n_generations,
        alpha_start=options.alpha_start,
        alpha_end=options.alpha_end,
        seed=seed,
        search_space=distributions,
    )


def cmaes(
    options: CmaEsStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of CMA-ES."""
    from tuner.strategies.evolution import CmaSampler

    return CmaSampler(
        population_size=options.population,
        n_generations=n_generations,
        sigma=options.sigma,
        seed=seed,
        search_space=distributions,
    )


def nsga2(
    options: Nsga2Strategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of NSGA-II."""
    from tuner.strategies.evolution import Nsga2Sampler

    return Nsga2Sampler(
        distributions,
        population_size=options.population,
        crossover_prob=options.crossover,
        mutation_prob=options.mutation,
        seed=seed,
    )


def gp(
    options: GPStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of Optuna's Gaussian process."""
    from tuner.strategies.optuna_samplers import KeyedSampler, RepeatableGPSampler

    def build(trial_seed: int) -> BaseSampler:
        return RepeatableGPSampler(
            n_startup_trials=options.n_startup_trials,
            warn_independent_sampling=False,
            seed=trial_seed,
        )

    return KeyedSampler(build, seed=seed)


def qmc(
    options: QuasiRandomStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of quasi-random search."""
    from tuner.strategies.listed import QuasiRandomSampler

    return QuasiRandomSampler(distributions, sequence=options.sequence, seed=seed)


def grid(
    options: GridStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of grid search."""
    from tuner.strategies.listed import GridSampler, spaced_values

    try:
        return GridSampler(distributions, spaced_values(distributions, options.points), seed=seed)
    except ValueError as error:
        raise SpaceError(str(error)) from error


def brute(
    options: BruteForceStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of brute force."""
    from tuner.strategies.listed import GridSampler, every_value

    try:
        return GridSampler(distributions, every_value(distributions), seed=seed)
    except ValueError as error:
        raise SpaceError(str(error)) from error


_N_GENERATIONS = 20

"""Generations in a cycle of the schedules where there is no budget of trials."""


@dataclass(frozen=True)
class Strategy:
    """A strategy that an experiment can name."""

    options: type[Section]  # its model in tuner.experiment.strategy
    generational: bool  # asks for a whole population before any of it is told
    make: Callable[[Any, Distributions, int, int], BaseSampler]
    """From options, distributions, seed and number of generations to the sampler."""

    @property
    def name(self) -> str:
        """What an experiment calls it."""
        return str(self.options.model_fields["name"].default)

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (inspect.getdoc(self.options) or "").partition("\n")[0]


@dataclass(frozen=True)
class Rhythm:
    """When trials may be asked for."""

    size: int  # trials in a generation, or in a batch
    generational: bool

    def told_before(self, number: int) -> int:
        """Return how many trials must have been told when trial `number` is asked for."""
        if self.generational:
            return number // self.size * self.size
        return max(0, number - self.size + 1)


def make_sampler(
    options: Section, distributions: Distributions, seed: int, trials: int | None
) -> BaseSampler:
    """Return the sampler for a strategy's options; `trials` is the budget, None without one.

    Raises SpaceError for a search space that the strategy cannot search.
    """
    strategy, rhythm = _strategy_of(options), rhythm_of(options)
    n_generations = _N_GENERATIONS if trials is None else math.ceil(trials / rhythm.size)
    return strategy.make(options, distributions, seed, n_generations)


def rhythm_of(options: Section) -> Rhythm:
    """Return when the strategy's trials may be asked for."""
    generational = _strategy_of(options).generational
    size = getattr(options, "population" if generational else "batch")
    return Rhythm(size=size, generational=generational)


def _strategy_of(options: Section) -> Strategy:
    return next(s for s in STRATEGIES.values() if isinstance(options, s.options))


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy(RandomStrategy, generational=False, make=random),
        Strategy(TPEStrategy, generational=False, make=tpe),
        Strategy(CmaEsStrategy, generational=True, make=cmaes),
        Strategy(GPStrategy, generational=False, make=gp),
        Strategy(QuasiRandomStrategy, generational=False, make=qmc),
        Strategy(GridStrategy, generational=False, make=grid),
        Strategy(BruteForceStrategy, generational=False, make=brute),
        Strategy(ParticleSwarmStrategy, generational=True, make=pso),
        Strategy(QuantumSwarmStrategy, generational=True, make=qpso),
        Strategy(WhaleStrategy, generational=True, make=woa),
        Strategy(Nsga2Strategy, generational=True, make=nsga2),
    )
}

"""Every strategy by its name."""
