"""Optuna's Gaussian process, made to answer the same when a trial is asked for again."""

from __future__ import annotations

import json
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

__all__ = ["RepeatableGPSampler"]

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
