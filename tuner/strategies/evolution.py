"""Evolutionary strategies: CMA-ES and NSGA-II.

Hansen, The CMA Evolution Strategy: A Tutorial, 2016, arXiv:1604.00772; cmaes: Nomura and
Shibata, 2024, arXiv:2402.01373.

Deb, Pratap, Agarwal and Meyarivan, IEEE Transactions on Evolutionary Computation 6(2), 2002,
doi 10.1109/4235.996017.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cmaes
import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuner.strategies import rng as keys
from tuner.strategies.codec import Codec, FloatArray
from tuner.strategies.population import GenerationalSampler, Memory, Record, all_trials
from tuner.strategies.rng import require_int, require_number, seed_of

__all__ = ["CmaSampler", "Nsga2Sampler"]


class CmaSampler(GenerationalSampler[cmaes.CMA]):
    """A normal distribution whose mean and covariance follow the better half of a generation.

    The distribution is told every generation again, from the trials' records. Once it has
    converged (the criteria are those of cmaes), the search begins anew.

    Args:
        population_size: Trials in a generation, at least 4; see `GenerationalSampler`. The
            tutorial takes 4 + floor(3 ln n) for n dimensions.
        n_generations: Taken for the sake of one interface; there is no schedule.
        sigma: Standard deviation at the beginning as a share of each range, above 0 and at most
            1; by default the 0.3 of the tutorial. The mean begins in the middle.
        seed: See `GenerationalSampler`.
        search_space: See `GenerationalSampler`.
    """

    def __init__(
        self,
        *,
        population_size: int = 10,
        n_generations: int = 20,
        sigma: float = 0.3,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        require_int(lambda n: n >= 4, "population_size", "from 4 on", population_size)
        super().__init__(
            population_size=population_size,
            n_generations=n_generations,
            seed=seed,
            search_space=search_space,
        )
        require_number(lambda s: 0 < s <= 1, "sigma", "above 0 and at most 1", sigma)
        self.sigma = float(sigma)

    def learn(
        self, past: cmaes.CMA | None, generation: int, records: list[Record], costs: FloatArray
    ) -> cmaes.CMA | None:
        """Return the distribution after one more generation; None where it has converged."""
        finite = np.isfinite(costs)
        if past is not None and not finite.any():
            return past
        optimizer = self._begin(len(records[0].position)) if past is None else copy.deepcopy(past)
        ranked = np.where(finite, costs, math.nextafter(costs[finite].max(), math.inf))
        optimizer.tell([(r.position, float(c)) for r, c in zip(records, ranked, strict=True)])
        return None if optimizer.should_stop() else optimizer

    def move(self, past: cmaes.CMA, generation: int, individual: int) -> Record:
        """Return a draw from the distribution."""
        optimizer = copy.deepcopy(past)  # to draw from it changes it
        optimizer.reseed_rng(keys.seed32(self.seed, "cmaes", generation, individual))
        return Record(np.clip(optimizer.ask(), 0, 1))

    def _begin(self, n_columns: int) -> cmaes.CMA:
        return cmaes.CMA(
            mean=np.full(n_columns, 0.5),
            sigma=self.sigma,
            bounds=np.array([[0.0, 1.0]] * n_columns),
            population_size=self.population_size,
            seed=0,  # never drawn from
        )


_ATTEMPTS = 20  # at a child that no earlier trial was


class Nsga2Sampler(BaseSampler):
    """Children of the trials that none other beats in every objective, for one objective or more.

    Optuna's sampler makes the children and selects the parents. Here trial `number` belongs to
    generation `number // population_size`, so that what is asked depends on the earlier
    generations alone; the first one is spread evenly, and a child that an earlier trial was
    already is made again. Failed and pruned trials are no parents.

    Args:
        search_space: The parameters.
        population_size: Trials in a generation, at least 2.
        crossover_prob: How likely a child has two parents, from 0 to 1.
        mutation_prob: How likely each parameter of a child is drawn anew; by default 1 over
            their number.
        seed: Seed of every random number; by default one is drawn.
    """

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        *,
        population_size: int = 10,
        crossover_prob: float = 0.9,
        mutation_prob: float | None = None,
        seed: int | None = None,
    ) -> None:
        require_int(lambda n: n >= 2, "population_size", "from 2 on", population_size)
        require_number(lambda p: 0 <= p <= 1, "crossover_prob", "from 0 to 1", crossover_prob)
        if mutation_prob is not None:
            require_number(lambda p: 0 <= p <= 1, "mutation_prob", "from 0 to 1", mutation_prob)
        self.population_size, self.seed = int(population_size), seed_of(seed)
        self._probabilities = {"crossover_prob": crossover_prob, "mutation_prob": mutation_prob}
        self._codec = Codec(search_space)
        self._memory = Memory()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the search space, but for what has one value alone."""
        return dict(self._codec.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a child of the earlier generations, or a place of the first one."""
        if not search_space:
            return {}
        generation, individual = divmod(trial.number, self.population_size)

        def select(
            parents: list[FrozenTrial] | None, _: int, trials: Sequence[FrozenTrial]
        ) -> list[FrozenTrial]:
            ended = [t for t in trials if t.state is TrialState.COMPLETE]
            return self._select(study, [*(parents or []), *ended])

        parents = self._memory.after(study, "parents", generation, self.population_size, select)
        if not parents:
            place = self._spread(generation, individual)
            return {name: place[name] for name in search_space}
        earlier = all_trials(study)[: generation * self.population_size]
        known = [t.params for t in earlier if t.state.is_finished()]
        genetics = self._genetics(parents, keys.seed32(self.seed, "relative", trial.number))
        for _ in range(_ATTEMPTS):
            child = genetics.sample_relative(study, trial, search_space)
            for name, distribution in search_space.items():
                if name not in child:  # it mutates
                    child[name] = genetics.sample_independent(study, trial, name, distribution)
            if not any(all(p.get(n) == v for n, v in child.items()) for p in known):
                break
        return child

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value for a parameter that the search space lacks."""
        seed = keys.seed32(self.seed, "independent", trial.number, param_name)
        return RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)

    def _select(self, study: Study, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Return the parents among trials, each configuration once, by their numbers."""
        each: list[FrozenTrial] = []
        for trial in trials:
            if all(trial.params != other.params for other in each):
                each.append(trial)
        if not each:
            return []
        kept = self._genetics(each, 0).select_parent(study, 1)
        return sorted(kept, key=lambda t: t.number)

    def _genetics(self, members: list[FrozenTrial], seed: int) -> _Genetics:
        options = dict(self._probabilities)
        if len(members) < 2:  # who has no other to be crossed with
            options["crossover_prob"] = 0.0
        return _Genetics(members, self.population_size, seed, options)

    def _spread(self, generation: int, individual: int) -> dict[str, Any]:
        """Return a place of a scrambled Latin hypercube."""
        from scipy.stats import qmc

        rng = keys.generator(self.seed, "spread", generation)
        points = qmc.LatinHypercube(d=self._codec.n_columns, rng=rng).random(self.population_size)
        return self._codec.decode(points[individual])


class _Genetics(NSGAIISampler):
    """Optuna's sampler with members that are given, where it would find them in the study."""

    def __init__(
        self, members: list[FrozenTrial], size: int, seed: int, options: dict[str, Any]
    ) -> None:
        super().__init__(population_size=size, seed=seed, **options)
        self._members = members

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """Return the generation that the members are the parents of."""
        return 1

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Return the members."""
        return list(self._members)

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Return the members, once."""
        return list(self._members) if generation else []
