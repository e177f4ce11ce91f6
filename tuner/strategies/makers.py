"""How each strategy's options become a sampler.

Every function takes options, distributions, seed and number of generations. What a strategy is
built on is imported when it is made: listing strategies stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.errors import SpaceError
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

__all__ = ["brute", "cmaes", "gp", "grid", "nsga2", "pso", "qmc", "qpso", "random", "tpe", "woa"]


def random(
    options: RandomStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of random search."""
    from optuna.samplers import RandomSampler

    from tuner.strategies.keyed import KeyedSampler

    return KeyedSampler(RandomSampler, seed=seed)


def tpe(
    options: TPEStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    """Return the sampler of Optuna's tree-structured Parzen estimator."""
    from optuna.samplers import TPESampler

    from tuner.strategies.keyed import KeyedSampler

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
    from tuner.strategies.qpso import QuantumSwarmSampler

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
    from tuner.strategies.cma import CmaSampler

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
    from tuner.strategies.nsga2 import Nsga2Sampler

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
    from tuner.strategies.gp import RepeatableGPSampler
    from tuner.strategies.keyed import KeyedSampler

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
