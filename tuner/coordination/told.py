"""The trials that have been told to the study: what strategy and pruner may know."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.coordination.attributes import OUTCOME_ATTR, REPEAT_ATTR
from tuner.coordination.pruning import with_losses
from tuner.jobs import Outcome

__all__ = ["Told"]


class Told:
    """The trials told so far, in the order of telling, and when the score last improved."""

    def __init__(
        self, directions: Sequence[StudyDirection], *, n_folds: int = 1, breaks_ties: bool = False
    ) -> None:
        """Begin with none.

        Args:
            directions: of the study's objectives; the first is the metric's.
            n_folds: of every trial.
            breaks_ties: whether pruning sees a trace of the validation loss in what they came to.
        """
        self._n, self._n_folds, self._breaks_ties = 0, n_folds, breaks_ties
        self._originals: list[FrozenTrial] = []
        self._complete: list[FrozenTrial] = []  # of the originals
        self._counts = [(0, 0)]  # of both, among the first so many
        signs = [-1 if d is StudyDirection.MAXIMIZE else 1 for d in directions]
        self._signs, self._sign = signs, signs[0]
        self._front: list[list[float]] = []  # the values that no others beat; less is better
        self._improved_at = [0]  # as known when the first so many had been told

    def __len__(self) -> int:
        """Return how many there are."""
        return self._n

    def add(self, trial: FrozenTrial) -> None:
        """Take up a trial that has just been told."""
        improved = trial.state is TrialState.COMPLETE and self._improves(trial.values)
        self._improved_at.append(self._n if improved else self._improved_at[-1])
        self._n += 1
        if REPEAT_ATTR not in trial.user_attrs:
            trial = self._with_losses(trial) if self._breaks_ties else trial
            self._originals.append(trial)
            if trial.state is TrialState.COMPLETE:
                self._complete.append(trial)
        self._counts.append((len(self._originals), len(self._complete)))

    def _improves(self, values: Sequence[float]) -> bool:
        """Take values in, and return whether none before are as good in every objective."""
        new = [sign * value for sign, value in zip(self._signs, values, strict=True)]

        def beats(a: list[float], b: list[float]) -> bool:
            return all(x <= y for x, y in zip(a, b, strict=True))

        if any(beats(known, new) for known in self._front):
            return False
        self._front = [known for known in self._front if not beats(new, known)] + [new]
        return True

    def _with_losses(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial as pruning sees it; the journal keeps the metric itself."""
        if not trial.intermediate_values or OUTCOME_ATTR not in trial.user_attrs:
            return trial
        history = Outcome.from_json(trial.user_attrs[OUTCOME_ATTR]).history
        seen = copy.copy(trial)
        seen.intermediate_values = with_losses(
            trial.intermediate_values, history, self._sign, self._n_folds
        )
        return seen

    def evidence(self, n: int) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Return what a trial may be compared with that sees the first `n`: all, and the complete.

        A repeat is no evidence: counted again, a good trial would prune more and more.
        """
        n_originals, n_complete = self._counts[n]
        return self._originals[:n_originals], self._complete[:n_complete]

    def stagnant(self, n: int, size: int) -> int:
        """Return after how many generations of `size`, of the first `n`, none has improved."""
        return n // size - self._improved_at[n] // size - 1
