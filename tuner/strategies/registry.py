"""The strategies by name, and how each one becomes a sampler.

Importing this imports no library that a strategy is built on: listing strategies is quick.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.experiment.model import Section
from tuner.experiment.strategy import (
    ParticleSwarmStrategy,
    RandomStrategy,
    TPEStrategy,
    WhaleStrategy,
)

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    Distributions = Mapping[str, BaseDistribution]

__all__ = ["STRATEGIES", "Rhythm", "Strategy", "make_sampler", "rhythm_of"]

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
    """Return the sampler for a strategy's options; `trials` is the budget, None without one."""
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


def _random(
    options: RandomStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    from optuna.samplers import RandomSampler

    from tuner.strategies.keyed import KeyedSampler

    return KeyedSampler(RandomSampler, seed=seed)


def _tpe(
    options: TPEStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
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


def _pso(
    options: ParticleSwarmStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
    from tuner.strategies.pso import ParticleSwarmSampler

    return ParticleSwarmSampler(
        population_size=options.population,
        n_generations=n_generations,
        inertia=options.inertia,
        c1=options.c1,
        c2=options.c2,
        velocity_clamp=options.velocity_clamp,
        seed=seed,
        search_space=distributions,
    )


def _woa(
    options: WhaleStrategy, distributions: Distributions, seed: int, n_generations: int
) -> BaseSampler:
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


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy(RandomStrategy, generational=False, make=_random),
        Strategy(TPEStrategy, generational=False, make=_tpe),
        Strategy(ParticleSwarmStrategy, generational=True, make=_pso),
        Strategy(WhaleStrategy, generational=True, make=_woa),
    )
}
"""Every strategy by its name."""
