"""Telling a trial's outcome to its study."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner.jobs import Outcome, OutcomeState

__all__ = ["STATES", "objectives_of", "tell"]

STATES = {
    OutcomeState.COMPLETE: TrialState.COMPLETE,
    OutcomeState.PRUNED: TrialState.PRUNED,
    OutcomeState.FAILED: TrialState.FAIL,
}


def tell(
    study: optuna.Study,
    trial: optuna.Trial,
    outcome: Outcome,
    values: Mapping[int, float],
    reported: Container[int] = (),
    cost: str | None = None,
) -> FrozenTrial:
    """Tell an outcome with its intermediate values; returns the trial as the study now has it.

    Args:
        study: that the trial belongs to.
        trial: in progress.
        outcome: its own, or that of the trial which it repeats.
        values: by step.
        reported: steps whose values the journal has already.
        cost: the second objective, if there is one.
    """
    storage, trial_id = study._storage, trial._trial_id
    for step, value in values.items():
        if step not in reported and math.isfinite(value):
            storage.set_trial_intermediate_value(trial_id, step, value)
    study.tell(trial, objectives_of(outcome, cost), state=STATES[outcome.state])
    return storage.get_trial(trial_id)


def objectives_of(outcome: Outcome, cost: str | None) -> list[float] | None:
    """Return the metric, and the cost where that is an objective; None without a score."""
    if outcome.objective is None:
        return None
    return [outcome.objective] + ([] if cost is None else [outcome.cost(cost)])
