"""Optuna's own samplers, keyed by the number of the trial; NSGA-II by generations.

A sampler of Optuna draws from one stream of random numbers. Opened again with the same seed it
starts that stream again and proposes what it has proposed before.

NSGA-II: Deb, Pratap, Agarwal and Meyarivan, IEEE Transactions on Evolutionary Computation 6(2),
2002, doi 10.1109/4235.996017.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuner.strategies import rng as keys
from tuner.strategies.codec import Codec
from tuner.strategies.population import Memory, all_trials
from tuner.strategies.rng import require_int, require_number, seed_of

__all__ = ["KeyedSampler", "Nsga2Sampler", "RepeatableGPSampler"]


class KeyedSampler(BaseSampler):
    """Asks a new sampler for every trial, seeded by (seed, trial number).

    Parameters that are sampled on their own get one each, seeded by their name too: a trial that
    lost its process between two parameters gets the same rest.

    For samplers that are a function of the study's trials and their seed, as random and TPE are;
    not for those whose order follows from one seed (grid, quasi-random).

    Args:
        build: Makes the sampler from a seed below 2**32.
        seed: Seed of every random number; by default one is drawn.
    """

    def __init__(self, build: Callable[[int], BaseSampler], *, seed: int | None = None) -> None:
        self._build = build
        self.seed = seed_of(seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return what the sampler of this trial infers."""
        return self._relative(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return what the sampler of this trial proposes."""
        return self._relative(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return what the sampler of this trial and parameter proposes."""
        seed = keys.seed32(self.seed, "independent", trial.number, param_name)
        return self._build(seed).sample_independent(study, trial, param_name, param_distribution)

    def _relative(self, trial: FrozenTrial) -> BaseSampler:
        return self._build(keys.seed32(self.seed, "relative", trial.number))


_PROPOSED = "gp:relative_params:0"

"""Where Optuna's sampler writes, beside the running trial, what it proposed for it."""


class RepeatableGPSampler(GPSampler):
    """A GPSampler that keeps to what it proposed before its process died.

    Otherwise it would take its own proposal for that of another worker, and avoid it.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return what was proposed for the trial before, else what the model proposes."""
        proposed = trial.system_attrs.get(_PROPOSED)
        if proposed is not None:
            params: dict[str, Any] = json.loads(proposed)
            return params
        return super().sample_relative(study, trial, search_space)


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
