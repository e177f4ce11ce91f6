"""Optuna samplers that draw nothing from a shared stream of random numbers.

Optuna's own samplers draw from one stream. A sampler that is created again with the same seed
starts the stream again, and proposes the same configurations a second time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from tuner.strategies.rng import new_seed, seed32

Space = dict[str, BaseDistribution]


def all_trials(study: Study) -> list[FrozenTrial]:
    """Return every trial in the storage; read-only.

    A sampler may get a study that hides some trials and attributes, as Hyperband's brackets do.
    """
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


class KeyedSampler(BaseSampler):
    """Builds a new sampler for every trial, seeded by (seed, trial number).

    Parameters that are sampled independently get one sampler each, seeded by their name too: a
    trial whose process died between two parameters gets the same values for the rest.

    For samplers that are a function of the study's trials and their seed, such as random and TPE;
    not for samplers whose order follows from one seed, such as grid and quasi-random.

    Args:
        build: Builds the sampler from `seed`, which is below 2**32.
        seed: Seed of every random number; drawn by default.
        proposal_attr: System attribute in which the sampler stores its proposal for a running
            trial, as JSON. Such a proposal is used again: a sampler whose process died would
            take it for the proposal of another worker, and avoid it.
    """

    def __init__(
        self,
        build: Callable[..., BaseSampler] = RandomSampler,
        *,
        seed: int | None = None,
        proposal_attr: str | None = None,
    ) -> None:
        self.seed = new_seed() if seed is None else int(seed)
        self._build = build
        self._proposal_attr = proposal_attr
        self._inferring: tuple[BaseStorage, int, BaseSampler] | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        """Return what all trials share.

        Of a whole study one sampler does it, as it goes through new trials alone. It must not see
        studies that hide some: what it remembers would depend on the trials before a resumption.
        """
        if type(study) is not Study:
            return self._relative(trial).infer_relative_search_space(study, trial)
        known = self._inferring
        if known is None or known[0] is not study._storage or known[1] != study._study_id:
            known = self._inferring = (study._storage, study._study_id, self._build(seed=0))
        return known[2].infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Space
    ) -> dict[str, Any]:
        if self._proposal_attr in trial.system_attrs:
            params: dict[str, Any] = json.loads(trial.system_attrs[self._proposal_attr])
            return params
        if not search_space:  # all parameters are sampled independently
            return {}
        return self._relative(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        seed = seed32(self.seed, "independent", trial.number, param_name)
        return self._build(seed=seed).sample_independent(
            study, trial, param_name, param_distribution
        )

    def _relative(self, trial: FrozenTrial) -> BaseSampler:
        return self._build(seed=seed32(self.seed, "relative", trial.number))


class SpaceSampler(KeyedSampler):
    """Samples a given search space with a function; parameters outside the space are random.

    Args:
        search_space: The parameters that the function gives values.
        propose: Returns values of parameters for a study, a trial and its search space, which
            may lack some parameters. It must depend on earlier trials and the seed alone.
        seed: Seed of every random number.
    """

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        propose: Callable[[Study, FrozenTrial, Space], Mapping[str, Any]],
        *,
        seed: int,
    ) -> None:
        super().__init__(seed=seed)
        self._search_space = dict(sorted(search_space.items()))
        self._propose = propose

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        return dict(self._search_space)  # a wrapper may take parameters out of it

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Space
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        proposed = self._propose(study, trial, search_space)
        return {name: value for name, value in proposed.items() if name in search_space}
