"""Records of studies that nobody has searched."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.records import study_record, trial_record
from tuner.experiment import Experiment, Override
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.records import StudyRecord, TrialRecord
from tuner.journal.storage import Role


def trial(number: int, what: str | float | None, configuration: int | None = None) -> TrialRecord:
    """A trial with a score, one that failed for a reason, or one that has not ended."""
    outcome = None
    if isinstance(what, str):
        outcome = Outcome(OutcomeState.FAILED, reason=what)
    elif what is not None:
        outcome = Outcome(OutcomeState.COMPLETE, objective=what)
    if configuration is None:
        return trial_record(number, outcome, params={"hidden_size": number})
    place = {"configuration": configuration, "repeat": number % 2}
    params = {"hidden_size": configuration}
    return trial_record(number, outcome, role=Role.FINALIST, params=params, **place)


def study(
    ended_as: Sequence[str | float | None],
    finalists: Sequence[tuple[int, str | float | None]] = (),
    *,
    ended: str | None = None,
    seconds: float = 0.0,
    **budget: object,
) -> StudyRecord:
    overrides = [Override(f"budget.{key}", value, "test") for key, value in budget.items()]
    retrained = [
        trial(number, what, configuration) for number, (configuration, what) in enumerate(finalists)
    ]
    return study_record(
        Experiment.load("air.yaml", overrides),
        [trial(number, what) for number, what in enumerate(ended_as)],
        finalists=tuple(retrained),
        ended=ended,
        seconds_recorded=seconds,
    )
