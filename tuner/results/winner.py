"""The winner and the Pareto front, and the evidence for them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tuner.coordination.finalists import Default, Finalist, default_of, rank_finalists, trial_name
from tuner.errors import InputError, RunError
from tuner.journal.records import Status, StudyRecord, TestScore, TrialRecord


def objectives(record: StudyRecord, trial: TrialRecord) -> tuple[float, float] | None:
    """Return metric and cost of a trial; None without them, or with one objective."""
    cost = record.experiment.objective.cost
    if cost is None or trial.status is not Status.COMPLETE or trial.outcome is None:
        return None
    values = (trial.outcome.objective, trial.outcome.cost(cost))
    return None if values[0] is None or not math.isfinite(values[1]) else (values[0], values[1])


def pareto_front(record: StudyRecord) -> list[TrialRecord]:
    """Return the trials of the Pareto front, best metric first; none for a single objective."""
    known = [(values, t) for t in record.trained if (values := objectives(record, t)) is not None]
    # By metric, then by cost: each of the front costs less than all before it.
    known.sort(key=lambda pair: (record.sign * pair[0][0], pair[0][1], pair[1].number))
    front: list[TrialRecord] = []
    least = math.inf
    for (_, cost), trial in known:
        if cost < least:
            front.append(trial)
            least = cost
    return front


@dataclasses.dataclass(frozen=True)
class Winner:
    """The configuration with the best mean over its repeats, or the best trial without repeats."""

    trial: TrialRecord | None  # None for a default that is no trial; see `finalist`
    finalist: Finalist | None  # its retrainings
    is_default: bool = False  # whether it is the untuned default, as a trial or not

    @property
    def number(self) -> int | None:
        """The number of its trial; None for a default that is no trial of the search."""
        return None if self.trial is None else self.trial.number

    @property
    def name(self) -> str:
        """Trial 3, or default LSTM."""
        if self.trial is not None:
            return trial_name(self.trial.number)
        assert self.finalist is not None
        return self.finalist.name

    @property
    def params(self) -> dict[str, Any]:
        """The searched hyperparameters."""
        if self.trial is not None:
            return dict(self.trial.params)
        assert self.finalist is not None
        return dict(self.finalist.params)

    @property
    def search_score(self) -> float | None:
        """The score in the search; None if it is no trial."""
        return None if self.trial is None else self.trial.value

    @property
    def runs(self) -> list[TrialRecord]:
        """Its trainings: the repeats, or the trial itself."""
        if self.finalist is not None:
            return list(self.finalist.repeats)
        assert self.trial is not None
        return [self.trial]

    @property
    def reproducible(self) -> TrialRecord:
        """The training whose score an export reproduces: the first repeat, or the trial."""
        return self.runs[0]

    def hyperparameters(self, record: StudyRecord) -> dict[str, Any]:
        """Return the whole configuration, fixed and searched."""
        return record.experiment.configuration(self.params)

    def was_tested(self, test: TestScore | None) -> bool:
        """Return whether this configuration was the one evaluated on the test set."""
        if test is None:
            return False
        if self.number is not None and test.configuration == self.number:
            return True
        return self.is_default and test.default is not None and test.default.is_winner


def find_winner(record: StudyRecord) -> Winner:
    """Return the winner of a study.

    Raises:
        RunError: no trial is complete.
    """
    default, finalists = default_of(record), rank_finalists(record)
    if finalists:
        return _winner(finalists[0].trial, finalists[0], default)
    if record.best is None:
        reasons = [t.outcome.reason for t in record.trained if t.outcome and t.outcome.reason]
        why = f"; the last failure: {reasons[-1]}" if reasons else ""
        raise RunError(f"study {record.name!r} has no complete trial{why}")
    if default is not None and default.repeats and default.number != record.best.number:
        own = default.as_finalist()
        if own.rank(record) < record.rank_of(record.best):
            return _winner(own.trial, own, default)
    return _winner(record.best, None, default)


def winner_of(record: StudyRecord, number: int) -> Winner:
    """Return a complete trial as if it had won.

    Raises:
        InputError: there is no such trial.
    """
    chosen = next((t for t in record.ranked() if t.number == number), None)
    if chosen is None:
        known = [t.number for t in record.ranked()[:5]]
        found = next((t for t in record.trials if t.number == number), None)
        remedy = f"; choose another: {', '.join(map(str, known))}, say" if known else ""
        if found is not None and found.repeat_of is not None:
            remedy = f"; it repeats trial {found.repeat_of}: write --trial {found.repeat_of}"
        rule = f"must be a complete trial of {record.name}"
        raise InputError(rule, where="--trial", got=f"{number}{remedy}")
    finalist = next((f for f in rank_finalists(record) if f.number == number), None)
    return _winner(chosen, finalist, default_of(record))


def tested_name(test: TestScore) -> str:
    """Return the name of the configuration that was evaluated: trial 3, or default LSTM."""
    if test.configuration is not None:
        return trial_name(test.configuration)
    assert test.default is not None
    return test.default.name


def _winner(
    trial: TrialRecord | None, finalist: Finalist | None, default: Default | None
) -> Winner:
    number = None if trial is None else trial.number
    return Winner(trial, finalist, default is not None and default.number == number)
