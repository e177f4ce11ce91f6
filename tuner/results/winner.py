"""Which configuration won, and on what evidence."""

from __future__ import annotations

import dataclasses
from typing import Any

from tuner.coordination.finalists import Finalist, rank_finalists
from tuner.coordination.records import StudyRecord, TrialRecord
from tuner.errors import RunError

__all__ = ["Winner", "find_winner"]


@dataclasses.dataclass(frozen=True)
class Winner:
    """The configuration with the best mean over its retrainings; without any, the best trial."""

    trial: TrialRecord  # of the search, which found it
    finalist: Finalist | None

    @property
    def runs(self) -> list[TrialRecord]:
        """The trainings that speak for it: its repeats, or the trial itself."""
        return list(self.finalist.repeats) if self.finalist else [self.trial]

    @property
    def reproducible(self) -> TrialRecord:
        """The training whose score an exported file promises: the first repeat, or the trial."""
        return self.runs[0]

    def hyperparameters(self, record: StudyRecord) -> dict[str, Any]:
        """Return the whole configuration, fixed and searched."""
        return record.experiment.configuration(dict(self.trial.params))


def find_winner(record: StudyRecord) -> Winner:
    """Return the winner as the journal has it.

    Raises:
        RunError: no trial is complete.
    """
    finalists = rank_finalists(record)
    if finalists:
        return Winner(finalists[0].trial, finalists[0])
    if record.best is None:
        reasons = [t.outcome.reason for t in record.trained if t.outcome and t.outcome.reason]
        why = f"; the last failure: {reasons[-1]}" if reasons else ""
        raise RunError(f"study {record.name!r} has no complete trial{why}")
    return Winner(record.best, None)
