"""Pruning that does not depend on timing: a decision sees only the trials told before its own."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tuner.experiment.schema import MedianPruner, NoPruner, Pruner

__all__ = ["StudyView", "make_pruner", "should_prune"]


class StudyView(optuna.Study):
    """A study that consists of the trials which it is given, and cannot be written to."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self.__dict__.update(study.__dict__)
        self._visible = trials

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the visible trials in `states`."""
        return [t for t in self._visible if states is None or t.state in states]

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return self.get_trials(deepcopy, states)


def make_pruner(options: Pruner, n_folds: int = 1) -> optuna.pruners.BasePruner:
    """Build Optuna's pruner from the experiment's options.

    Where there are folds it decides after each of them, from the first one on: a fold is a whole
    training.
    """
    match options:
        case NoPruner():
            return optuna.pruners.NopPruner()
        case MedianPruner():
            if n_folds > 1:
                return optuna.pruners.MedianPruner(options.n_startup_trials)
            return optuna.pruners.MedianPruner(**options.model_dump(exclude={"name"}))


def should_prune(
    pruner: optuna.pruners.BasePruner,
    study: optuna.Study,
    told: Sequence[FrozenTrial],
    number: int,
    params: dict[str, Any],
    distributions: dict[str, optuna.distributions.BaseDistribution],
    values: Mapping[int, float],
) -> bool:
    """Ask `pruner` whether a trial with these intermediate values should stop.

    Args:
        study: for its direction.
        told: the trials that had been told when this one was asked: all that it may be
            compared with.
        number: the trial's.
        params: the trial's.
        distributions: the trial's.
        values: what the trial has come to after each epoch or fold, the newest last.
    """
    frozen = optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=params,
        distributions=distributions,
        intermediate_values=dict(values),
    )
    frozen.number = number
    return pruner.prune(StudyView(study, told), frozen)
