"""The trials that have been told to the study: what strategy and pruner may know."""

from __future__ import annotations

import math

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

__all__ = ["Told"]


class Told:
    """The trials told so far, in the order of telling, and when the score last improved."""

    def __init__(self, direction: StudyDirection) -> None:
        self.trials: list[FrozenTrial] = []
        self._sign = -1.0 if direction is StudyDirection.MAXIMIZE else 1.0
        self._best, self._improved_at = math.inf, 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.trials)

    def add(self, trial: FrozenTrial) -> None:
        """Take up a trial that has just been told."""
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            value = self._sign * trial.value
            if value < self._best:
                self._best, self._improved_at = value, len(self.trials)
        self.trials.append(trial)

    def stagnant(self, size: int) -> int:
        """Return after how many generations of `size` trials none has brought a better score."""
        return len(self.trials) // size - self._improved_at // size - 1
