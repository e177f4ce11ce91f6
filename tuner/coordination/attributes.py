"""The attributes under which the coordinator writes what Optuna has no place for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuner.coordination.seeds import Role

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

__all__ = [
    "BASELINE_ATTR",
    "DURABLE",
    "FINALIST_ATTR",
    "LOST_ATTR",
    "OUTCOME_ATTR",
    "REOPENED_ATTR",
    "REPEAT_ATTR",
    "RUN_ATTR",
    "STUDY_ATTR",
    "TAKEN_ATTR",
    "TEST_ATTR",
    "TIME_ATTR",
    "TOLD_ATTR",
    "params_of",
    "retraining_of",
    "role_of",
]

STUDY_ATTR = "tuner"  # of a study: what it searches, and on which data
TEST_ATTR = "test"  # of a study: the first opening of the test part
REOPENED_ATTR = "reopened"  # of a study: every later opening, in order
RUN_ATTR = "run"  # of a study: the budget of its last run, and how that ended
TIME_ATTR = "seconds"  # of a study: how long the runs that searched took, together
OUTCOME_ATTR = "outcome"  # of a trial: how its training ended
REPEAT_ATTR = "repeat_of"  # of a trial: the earlier trial with the same configuration
TAKEN_ATTR = "taken"  # of a trial: the earlier study and trial that it is, with its seed
LOST_ATTR = "lost"  # of a trial: why the machine took attempts away, in order
TOLD_ATTR = "asked_after"  # of a trial: how many trials had been told when it was asked
FINALIST_ATTR = "finalist"  # of a finalist's trial: [configuration's trial number, repeat]
BASELINE_ATTR = "baseline"  # of a training of the untuned default: its params, and which repeat

DURABLE = frozenset({STUDY_ATTR, TEST_ATTR, REOPENED_ATTR, OUTCOME_ATTR})
"""What cannot be worked out again without cost: it is on the disk before the search goes on."""


def role_of(user_attrs: Mapping[str, Any]) -> Role:
    """Return what a trial is for, by its attributes."""
    if BASELINE_ATTR in user_attrs:
        return Role.BASELINE
    return Role.FINALIST if FINALIST_ATTR in user_attrs else Role.TRIAL


def retraining_of(user_attrs: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the trial that a finalist retrains, and which of its trainings one is, if any."""
    if BASELINE_ATTR in user_attrs:
        return None, user_attrs[BASELINE_ATTR]["repeat"]
    configuration, repeat = user_attrs.get(FINALIST_ATTR, (None, None))
    return configuration, repeat


def params_of(trial: Trial | FrozenTrial, user_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the searched hyperparameters of a trial.

    Those of the untuned default need not lie in the search space: Optuna has no place for them.
    """
    baseline = user_attrs.get(BASELINE_ATTR)
    return dict(trial.params if baseline is None else baseline["params"])
