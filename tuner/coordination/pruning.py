"""Pruning that does not depend on timing: a decision sees only the trials told before its own.

Where two metrics are equal, as the accuracy on few rows often is, the validation loss decides.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna import pruners
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.experiment.schema import (
    HyperbandPruner,
    MedianPruner,
    NoPruner,
    PatientPruner,
    PercentilePruner,
    Pruner,
    SuccessiveHalvingPruner,
    WilcoxonPruner,
)
from tuner.jobs import Epoch, Outcome, intermediate_losses, intermediate_values
from tuner.journal.storage import OUTCOME_ATTR

__all__ = ["Evidence", "breaks_ties", "make_pruner", "should_prune", "with_losses"]

_TIE = 1e-9  # of a metric: what the validation loss may add to it, at most
_LEAST_TIE = 1e-300  # the same for a metric of 0


def make_pruner(
    options: Pruner, n_epochs: int, n_folds: int = 1, *, by_loss: bool = True
) -> pruners.BasePruner:
    """Build Optuna's pruner from the experiment's options.

    None of them is left to find out anything from the trials that it sees first: it would
    remember it, and which these are is a matter of timing.

    Args:
        options: the experiment's.
        n_epochs: the most that a trial is trained.
        n_folds: where there are several, what counts as an epoch otherwise is a fold, and every
            trial gets the first, which is a whole training.
        by_loss: whether the validation losses of two trials are one quantity. Where they are not,
            ties between trials are left to the pruner.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        pruner = _make_pruner(options, n_epochs, n_folds, by_loss)
    # A patient pruner that wraps none compares a trial with itself alone.
    alone = isinstance(options, PatientPruner) and isinstance(options.wrapped, NoPruner)
    return pruner if by_loss or alone or not breaks_ties(pruner) else _ByMetric(pruner)


def _make_pruner(options: Pruner, n_epochs: int, n_folds: int, by_loss: bool) -> pruners.BasePruner:
    match options:
        case NoPruner():
            return pruners.NopPruner()
        case MedianPruner() | PercentilePruner():
            percentile = options.percentile if isinstance(options, PercentilePruner) else 50.0
            if n_folds > 1:
                return _OfNewest(pruners.PercentilePruner(percentile, options.n_startup_trials))
            warmup = options.n_warmup_steps, options.interval_steps
            return pruners.PercentilePruner(percentile, options.n_startup_trials, *warmup)
        case SuccessiveHalvingPruner():
            return pruners.SuccessiveHalvingPruner(**options.model_dump(exclude={"name"}))
        case HyperbandPruner():
            most = n_epochs if n_folds == 1 else n_folds
            return pruners.HyperbandPruner(
                options.min_resource, max(most, options.min_resource), options.reduction_factor
            )
        case PatientPruner():
            wrapped = None
            if not isinstance(options.wrapped, NoPruner):
                wrapped = _make_pruner(options.wrapped, n_epochs, n_folds, by_loss)
            return pruners.PatientPruner(wrapped, options.patience, options.min_delta)
        case WilcoxonPruner():
            return _OfFolds(
                pruners.WilcoxonPruner(
                    p_threshold=options.p_threshold, n_startup_steps=options.n_startup_steps
                ),
                by_loss,
            )


def breaks_ties(pruner: pruners.BasePruner) -> bool:
    """Return whether the validation loss decides where a pruner finds two metrics equal.

    A signed-rank test has its own rule for pairs that are.
    """
    return not isinstance(pruner, pruners.NopPruner | _OfFolds | _ByMetric)


def with_losses(
    values: Mapping[int, float], epochs: Sequence[Epoch], sign: int, n_folds: int
) -> dict[int, float]:
    """Return what a trial came to, with a trace of the validation loss in it.

    Pruners compare numbers. The trace is far smaller than what tells two metrics apart, so it
    decides nothing but ties: of equal metrics the one with the larger loss is worse.

    Args:
        values: as `intermediate_values` has them.
        epochs: what they are of.
        sign: of the metric: sign * metric is what gets smaller.
        n_folds: of the job.
    """
    losses = intermediate_losses(epochs, n_folds, sign)
    return {
        step: value + sign * max(_TIE * abs(value), _LEAST_TIE) * _squashed(losses[step])
        if step in losses
        else value
        for step, value in values.items()
    }


def _squashed(loss: float) -> float:
    """Return a loss as a number between -1 and 1, in the same order."""
    return loss / (1 + abs(loss)) if math.isfinite(loss) else math.copysign(1.0, loss)


class _ByMetric(pruners.BasePruner):
    """A pruner that sees the metric alone: the losses of two trials are not one quantity."""

    def __init__(self, pruner: pruners.BasePruner) -> None:
        self._pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Ask the pruner."""
        return bool(self._pruner.prune(study, trial))


class _OfNewest(pruners.BasePruner):
    """Shows a pruner the newest mean alone: the best of the earlier may be of an easy fold."""

    def __init__(self, pruner: pruners.BasePruner) -> None:
        self._pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Ask the pruner."""
        trial = copy.copy(trial)
        trial.intermediate_values = dict(list(trial.intermediate_values.items())[-1:])
        return bool(self._pruner.prune(study, trial))


class _OfFolds(pruners.BasePruner):
    """Shows a pruner the score of each fold in place of the means over the folds so far."""

    def __init__(self, pruner: pruners.BasePruner, by_loss: bool) -> None:
        self._pruner, self._by_loss = pruner, by_loss

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Ask the pruner."""
        told = [_with_fold_scores(other) for other in study.get_trials(deepcopy=False)]
        view = optuna.Study(study.study_name, _Told(study, told, by_loss=self._by_loss))
        return bool(self._pruner.prune(view, _with_fold_scores(trial)))


def should_prune(
    pruner: pruners.BasePruner,
    evidence: Evidence,
    number: int,
    params: Mapping[str, Any],
    distributions: dict[str, BaseDistribution],
    epochs: Sequence[Epoch],
    rungs: dict[str, Any],
    *,
    n_folds: int = 1,
) -> bool:
    """Ask `pruner` whether a trial that has come this far should stop.

    Args:
        pruner: what decides.
        evidence: what the trial may be compared with.
        number: the trial's.
        params: the trial's.
        distributions: the trial's.
        epochs: what the trial has come to, the newest last.
        rungs: what a pruner has noted of the trial so far; what it notes now is added.
        n_folds: where there are several, a trial may stop at the end of each but the last, and
            is compared by the mean over its folds so far.
    """
    if n_folds > 1 and (epochs[-1].fold_score is None or epochs[-1].fold == n_folds - 1):
        return False
    values: Mapping[int, float] = intermediate_values(epochs, n_folds)
    if breaks_ties(pruner):
        values = with_losses(values, epochs, evidence.sign, n_folds)
    frozen = optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=dict(params),
        distributions=distributions,
        intermediate_values=dict(values),
        system_attrs=dict(rungs),
    )
    frozen.number = number
    return evidence.decide(pruner, frozen, rungs)


class Evidence:
    """The trials that a trial may be compared with, as a study that holds no other."""

    def __init__(
        self,
        study: optuna.Study,
        n_seen: int,
        trials: list[FrozenTrial],
        complete: list[FrozenTrial],
    ) -> None:
        """Take those trials among the first `n_seen` that count; `complete` are some of them."""
        self.n_seen, self.trials = n_seen, trials
        self.sign = -1 if study.direction is StudyDirection.MAXIMIZE else 1
        self._storage = _Told(study, trials)
        self._storage.in_states[TrialState.COMPLETE,] = complete  # what pruners ask for
        self._view = optuna.Study(study.study_name, self._storage)

    def decide(
        self, pruner: pruners.BasePruner, trial: FrozenTrial, written: dict[str, Any]
    ) -> bool:
        """Ask the pruner; what it notes of the trial is added to `written`."""
        self._storage.written = written
        return bool(pruner.prune(self._view, trial))


class _Told(InMemoryStorage):
    """A storage of trials that have been told; what is written about another is kept aside."""

    def __init__(
        self, study: optuna.Study, told: Sequence[FrozenTrial], *, by_loss: bool = True
    ) -> None:
        super().__init__()
        self._by_loss = by_loss
        self.create_new_study([study.direction], study.study_name)
        self._told = told
        self.in_states: dict[tuple[TrialState, ...], list[FrozenTrial]] = {}
        self._sign = -1 if study.direction is StudyDirection.MAXIMIZE else 1
        self.written: dict[str, Any] = {}

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return those in `states`, which is worked out once: pruners ask after every epoch."""
        wanted = tuple(state for state in TrialState if states is None or state in states)
        if wanted not in self.in_states:
            self.in_states[wanted] = [t for t in self._told if t.state in wanted]
        return self.in_states[wanted]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the best of them, of equal ones that with the least validation loss.

        Where the losses are not one quantity it is the earliest of them.

        Raises ValueError where none is complete.
        """
        complete = [t for t in self._told if t.state is TrialState.COMPLETE]
        if not complete:
            raise ValueError("no trial is complete yet")
        best = min(self._sign * (t.value or 0.0) for t in complete)
        equal = [t for t in complete if self._sign * (t.value or 0.0) == best]
        if not self._by_loss:
            return min(equal, key=lambda t: t.number)
        return equal[0] if len(equal) == 1 else min(equal, key=self._loss)

    def _loss(self, trial: FrozenTrial) -> float:
        record = trial.user_attrs.get(OUTCOME_ATTR)
        return Outcome.from_json(record).val_loss(self._sign) if record else math.inf

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Take a note about the trial that is decided on."""
        self.written[key] = value


def _with_fold_scores(trial: FrozenTrial) -> FrozenTrial:
    trial = copy.copy(trial)
    trial.intermediate_values = _fold_scores(trial.intermediate_values)
    return trial


def _fold_scores(means: Mapping[int, float]) -> dict[int, float]:
    """Return each fold's own score from the means over the folds so far."""
    return {k: (k + 1) * mean - k * means.get(k - 1, 0.0) for k, mean in means.items()}
