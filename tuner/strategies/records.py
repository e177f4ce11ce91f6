"""What a swarm writes beside a trial, and how it reads trials: all that is private of Optuna.

A sampler may be handed a study that hides most attributes (Hyperband's brackets do), and Optuna
has no public call that gives a running trial an attribute; so both go through the storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from tuner.strategies.codec import FloatArray

__all__ = [
    "Record",
    "Standing",
    "all_trials",
    "began",
    "read_record",
    "standing",
    "write_record",
]

_KEY = "swarm"


@dataclass(frozen=True)
class Record:
    """Where one individual was when its trial was asked for, in the unit cube."""

    position: FloatArray  # (n_columns,)
    velocity: FloatArray | None = None  # (n_columns,); swarms without velocities have none


class Standing(NamedTuple):
    """Which trial, and what may change of it that its place and cost follow from."""

    number: int
    ended: bool
    n_params: int
    space: str | None  # of its record


def all_trials(study: Study) -> list[FrozenTrial]:
    """Return every trial of the study as it stands in the storage; not to be changed."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def began(study: Study) -> datetime | None:
    """Return when the study's first trial began; that tells it from another of the same number."""
    storage = study._storage
    first = storage.get_trial_id_from_study_id_trial_number(study._study_id, 0)
    return storage.get_trial(first).datetime_start


def standing(trial: FrozenTrial) -> Standing:
    """Return how the trial stands now."""
    space = trial.system_attrs.get(_KEY, {}).get("space")
    return Standing(trial.number, trial.state.is_finished(), len(trial.params), space)


def write_record(study: Study, trial: FrozenTrial, record: Record, space: str) -> None:
    """Store the record with the trial, in one write; `space` is the digest of its space."""
    value: dict[str, Any] = {"space": space, "position": record.position.tolist()}
    if record.velocity is not None:
        value["velocity"] = record.velocity.tolist()
    study._storage.set_trial_system_attr(trial._trial_id, _KEY, value)


def read_record(trial: FrozenTrial, space: str) -> Record | None:
    """Return the record of the trial; None where it has none, or one of another space."""
    value = trial.system_attrs.get(_KEY)
    if value is None or value.get("space") != space:
        return None
    velocity = value.get("velocity")
    return Record(
        np.array(value["position"], dtype=np.float64),
        None if velocity is None else np.array(velocity, dtype=np.float64),
    )
