"""Retrainings of the best trials of a study, with given scores."""

from __future__ import annotations

import dataclasses

from helpers.records import trial_record
from tuner.jobs import OutcomeState
from tuner.journal.storage import Role
from tuner.strategies.rng import training_seed


def repeats(record, scores):
    """Retrainings with these scores: {configuration: [score, or None for a failure]}."""
    made = []
    for configuration, values in scores.items():
        for repeat, value in enumerate(values):
            state = OutcomeState.FAILED if value is None else OutcomeState.COMPLETE
            trial = record.trials[configuration]
            made.append(
                trial_record(
                    len(made),
                    dataclasses.replace(trial.outcome, objective=value, state=state),
                    role=Role.FINALIST,
                    params=trial.params,
                    seed=training_seed(3, Role.FINALIST, configuration, repeat),
                    configuration=configuration,
                    repeat=repeat,
                )
            )
    return dataclasses.replace(record, finalists=tuple(made))
