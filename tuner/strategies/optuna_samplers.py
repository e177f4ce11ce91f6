"""Optuna's own samplers, keyed by the number of the trial.

A sampler of Optuna draws from one stream of random numbers. Opened again with the same seed it
starts that stream again and proposes what it has proposed before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from tuner.strategies import rng as keys
from tuner.strategies.rng import seed_of

__all__ = ["KeyedSampler", "RepeatableGPSampler"]


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
