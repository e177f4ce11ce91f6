"""Records of trials and studies, with what a test does not say filled in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tuner.experiment import Experiment
from tuner.jobs import Outcome
from tuner.journal.records import Status, StudyRecord, TrialRecord
from tuner.journal.storage import Role


def trial_record(number: int, outcome: Outcome | None = None, **fields: Any) -> TrialRecord:
    """A trial; without an outcome it still runs."""
    status = Status(outcome.state.value) if outcome else Status.RUNNING
    filled = {"role": Role.TRIAL, "params": {}, "seed": number, "status": status, "asked_at": None}
    return TrialRecord(number=number, outcome=outcome, **filled | fields)


def study_record(
    experiment: Experiment, trials: Iterable[TrialRecord] = (), **fields: Any
) -> StudyRecord:
    filled = {"id": "", "name": experiment.name, "data": {}, "baselines": {}, "versions": {},
              "created": "", "finalists": (), "test": None}  # fmt: skip
    return StudyRecord(experiment=experiment, trials=tuple(trials), **filled | fields)
