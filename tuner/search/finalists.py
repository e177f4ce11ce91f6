"""Finalists: the best configurations, trained again on fresh seeds before one is the winner.

They are a second study in the same journal, `NAME.finalists`, run by the same coordinator.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.storages import BaseStorage

from tuner.search.attributes import FINALIST_ATTR
from tuner.search.journal import FINALISTS_SUFFIX
from tuner.search.records import Status, StudyRecord, TrialRecord

__all__ = ["Finalist", "enqueue_finalists", "rank_finalists"]


@dataclass(frozen=True)
class Finalist:
    """A configuration and its retrainings."""

    trial: TrialRecord  # of the search
    repeats: tuple[TrialRecord, ...]  # that are complete

    @property
    def scores(self) -> list[float]:
        """The objective of every repeat."""
        return [r.value for r in self.repeats if r.value is not None]

    @property
    def mean(self) -> float:
        """Mean objective over the repeats."""
        return statistics.fmean(self.scores)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the repeats; None for a single one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


def enqueue_finalists(storage: BaseStorage, record: StudyRecord) -> optuna.Study:
    """Open the finalists' study and queue every retraining that it does not hold yet.

    What an earlier, shorter search had retrained is kept and not done again.
    """
    settings = record.experiment.finalists
    name, direction = record.name + FINALISTS_SUFFIX, record.experiment.objective.direction
    if name in optuna.get_all_study_names(storage):  # asking to create it would write a record
        study = optuna.load_study(study_name=name, storage=storage)
    else:
        study = optuna.create_study(study_name=name, storage=storage, direction=direction)
    present = {tuple(t.user_attrs[FINALIST_ATTR]) for t in study.get_trials(deepcopy=False)}
    for trial in record.ranked()[: settings.top]:
        for repeat in range(settings.repeats):
            if (trial.number, repeat) not in present:
                study.enqueue_trial(
                    dict(trial.params), user_attrs={FINALIST_ATTR: [trial.number, repeat]}
                )
    return study


def rank_finalists(record: StudyRecord) -> list[Finalist]:
    """Return the finalists of the search as it stands, best mean first.

    A configuration with a failed repeat comes after those without; one with no complete repeat
    is left out.
    """
    by_trial: dict[int, list[TrialRecord]] = defaultdict(list)
    for repeat in record.finalists:
        if repeat.configuration is not None and repeat.status is Status.COMPLETE:
            by_trial[repeat.configuration].append(repeat)
    top: Sequence[TrialRecord] = record.ranked()[: record.experiment.finalists.top]
    finalists = [Finalist(t, tuple(by_trial[t.number])) for t in top if by_trial[t.number]]
    repeats = record.experiment.finalists.repeats
    return sorted(finalists, key=lambda f: (len(f.repeats) < repeats, record.sign * f.mean))
