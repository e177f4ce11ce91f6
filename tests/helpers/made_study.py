"""Records of studies that nobody has searched."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.experiment import Experiment, Override
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.records import Status, StudyRecord, TrialRecord
from tuner.journal.storage import Role


def trial(number: int, what: str | float | None, configuration: int | None = None) -> TrialRecord:
    """A trial with a score, one that failed for a reason, or one that has not ended."""
    outcome = None
    if isinstance(what, str):
        outcome = Outcome(OutcomeState.FAILED, reason=what)
    elif what is not None:
        outcome = Outcome(OutcomeState.COMPLETE, objective=what)
    role = Role.TRIAL if configuration is None else Role.FINALIST
    return TrialRecord(
        number=number,
        role=role,
        params={"hidden_size": number if configuration is None else configuration},
        seed=0,
        status=Status(outcome.state.value) if outcome else Status.RUNNING,
        asked_at=None,
        outcome=outcome,
        configuration=configuration,
        repeat=None if configuration is None else number % 2,
    )


def study(
    ended_as: Sequence[str | float | None],
    finalists: Sequence[tuple[int, str | float | None]] = (),
    *,
    ended: str | None = None,
    seconds: float = 0.0,
    **budget: object,
) -> StudyRecord:
    overrides = [Override(f"budget.{key}", value, "test") for key, value in budget.items()]
    return StudyRecord(
        id="",
        name="air",
        experiment=Experiment.load("air.yaml", overrides),
        data={},
        baselines={},
        versions={},
        created="",
        trials=tuple(trial(number, what) for number, what in enumerate(ended_as)),
        finalists=tuple(
            trial(number, what, configuration)
            for number, (configuration, what) in enumerate(finalists)
        ),
        test=None,
        ended=ended,
        seconds_recorded=seconds,
    )
