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
from tuner.strategies import makers

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
        Strategy(RandomStrategy, generational=False, make=makers.random),
        Strategy(TPEStrategy, generational=False, make=makers.tpe),
        Strategy(CmaEsStrategy, generational=True, make=makers.cmaes),
        Strategy(GPStrategy, generational=False, make=makers.gp),
        Strategy(QuasiRandomStrategy, generational=False, make=makers.qmc),
        Strategy(GridStrategy, generational=False, make=makers.grid),
        Strategy(BruteForceStrategy, generational=False, make=makers.brute),
        Strategy(ParticleSwarmStrategy, generational=True, make=makers.pso),
        Strategy(QuantumSwarmStrategy, generational=True, make=makers.qpso),
        Strategy(WhaleStrategy, generational=True, make=makers.woa),
        Strategy(Nsga2Strategy, generational=True, make=makers.nsga2),
    )
}
"""Every strategy by its name."""
