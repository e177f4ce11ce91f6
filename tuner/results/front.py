"""The Pareto front of a search for two objectives: the trials that no other beats in both."""

from __future__ import annotations

import math

from tuner.coordination.records import Status, StudyRecord, TrialRecord

__all__ = ["objectives", "pareto_front"]


def objectives(record: StudyRecord, trial: TrialRecord) -> tuple[float, float] | None:
    """Return metric and cost of a trial; None where it has none, or there is one objective."""
    cost = record.experiment.objective.cost
    if cost is None or trial.status is not Status.COMPLETE or trial.outcome is None:
        return None
    values = (trial.outcome.objective, trial.outcome.cost(cost))
    return None if values[0] is None or not math.isfinite(values[1]) else (values[0], values[1])


def pareto_front(record: StudyRecord) -> list[TrialRecord]:
    """Return the trials that no other beats, the best metric first; of equal ones the first.

    Empty where the search has one objective.
    """
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
