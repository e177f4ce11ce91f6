"""Strategies on Optuna's samplers: random search, TPE, Gaussian processes and NSGA-II."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tuner.strategies.base import BatchStrategy, GenerationalStrategy
from tuner.strategies.rng import seed32

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler, NSGAIISampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from tuner.strategies.base import Distributions
    from tuner.strategies.codec import Codec
    from tuner.strategies.samplers import Space


class RandomStrategy(BatchStrategy):
    """Random search: every configuration is drawn on its own. The yardstick for the others."""

    name: Literal["random"] = "random"

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        from tuner.strategies.samplers import KeyedSampler

        return KeyedSampler(seed=seed)


class _ModelStrategy(BatchStrategy):
    n_startup_trials: Annotated[int, Field(ge=0, strict=True)] = 10
    """Random trials before the model is trusted."""


class TPEStrategy(_ModelStrategy):
    """Tree-structured Parzen estimator (Optuna): models good and bad trials, picks the ratio."""

    name: Literal["tpe"] = "tpe"

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        from tuner.strategies.samplers import KeyedSampler

        n = self.n_startup_trials
        build = partial(TPESampler, n_startup_trials=n, multivariate=True, constant_liar=True)
        return KeyedSampler(build, seed=seed)


class GPStrategy(_ModelStrategy):
    """Gaussian process (Optuna): models the objective, picks by expected improvement."""

    name: Literal["gp"] = "gp"

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        from optuna.samplers import GPSampler

        from tuner.strategies.samplers import KeyedSampler

        n = self.n_startup_trials
        build = partial(GPSampler, n_startup_trials=n, warn_independent_sampling=False)
        return KeyedSampler(build, seed=seed, proposal_attr="gp:relative_params:0")


_Share = Annotated[float, Field(ge=0, le=1, strict=True)]

_ATTEMPTS = 20  # at a child that differs from earlier trials


class Nsga2Strategy(GenerationalStrategy):
    """NSGA-II (Optuna): a genetic algorithm; with two objectives it keeps the best trade-offs."""

    name: Literal["nsga2"] = "nsga2"
    crossover: _Share = 0.9
    """How likely a child has two parents."""
    mutation: _Share | None = None
    """How likely each value of a child is drawn anew; by default 1 over their number."""

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        from tuner.strategies.codec import Codec
        from tuner.strategies.samplers import SpaceSampler

        codec = Codec(distributions)
        return SpaceSampler(codec.distributions, _Family(self, codec, seed).child, seed=seed)


class _Family:
    """Children of the trials that no other trial dominates.

    Trial `number` belongs to generation `number // population`; a child depends on earlier
    generations alone. The first generation is spread evenly. A child that repeats an earlier
    trial is drawn again. Failed and pruned trials are not parents.
    """

    def __init__(self, options: Nsga2Strategy, codec: Codec, seed: int) -> None:
        from tuner.strategies.population import Memory

        self._options, self._codec, self._seed, self._memory = options, codec, seed, Memory()

    def child(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        """Return a child of the earlier generations, or a point of the first one."""
        from tuner.strategies.samplers import all_trials

        size = self._options.population
        generation, individual = divmod(trial.number, size)
        parents: list[FrozenTrial] | None = self._memory.after(
            study, "parents", generation, size, lambda p, _, ts: self._select(study, p, ts)
        )
        if not parents:
            spread = self._options.spread(self._seed, generation, self._codec.n_columns)
            return self._codec.decode(spread[individual].position)
        earlier = all_trials(study)[: generation * size]
        known = [t.params for t in earlier if t.state.is_finished()]
        genetics = self._genetics(seed32(self._seed, "relative", trial.number), parents)
        for _ in range(_ATTEMPTS):
            child = genetics._child_generation_strategy(study, search_space, parents)
            for name, distribution in search_space.items():
                if name not in child:  # it mutates
                    child[name] = genetics.sample_independent(study, trial, name, distribution)
            if not any(all(p.get(n) == v for n, v in child.items()) for p in known):
                break
        return child

    def _select(
        self, study: Study, parents: list[FrozenTrial] | None, trials: Sequence[FrozenTrial]
    ) -> list[FrozenTrial]:
        """Return the parents of the next generation, each configuration once, by number."""
        each: list[FrozenTrial] = []
        for trial in [*(parents or []), *(t for t in trials if t.state.name == "COMPLETE")]:
            if all(trial.params != other.params for other in each):
                each.append(trial)
        if not each:
            return []
        kept = self._genetics(0, each)._elite_population_selection_strategy(study, each)
        return sorted(kept, key=lambda t: t.number)

    def _genetics(self, seed: int, parents: list[FrozenTrial]) -> NSGAIISampler:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(
            population_size=self._options.population,
            crossover_prob=self._options.crossover if len(parents) > 1 else 0.0,
            mutation_prob=self._options.mutation,
            seed=seed,
        )
