"""Telling a trial's outcome to its study."""

from __future__ import annotations

import math
from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner.jobs import Outcome, OutcomeState

__all__ = ["tell"]

_STATES = {
    OutcomeState.COMPLETE: TrialState.COMPLETE,
    OutcomeState.PRUNED: TrialState.PRUNED,
    OutcomeState.FAILED: TrialState.FAIL,
}


def tell(
    study: optuna.Study, trial: optuna.Trial, outcome: Outcome, values: Mapping[int, float]
) -> FrozenTrial:
    """Tell an outcome with its intermediate values; returns the trial as the study now has it.

    Values that a run reported which was killed right here are not reported again.
    """
    storage, trial_id = study._storage, trial._trial_id
    reported = storage.get_trial(trial_id).intermediate_values
    for step, value in values.items():
        if step not in reported and math.isfinite(value):
            storage.set_trial_intermediate_value(trial_id, step, value)
    study.tell(trial, outcome.objective, state=_STATES[outcome.state])
    return storage.get_trial(trial_id)
