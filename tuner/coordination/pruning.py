"""Pruning that does not depend on timing: a decision sees only the trials told before its own.

The validation loss breaks ties of the metric, which are frequent for the accuracy on few rows.
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

_TIE = 1e-9  # share of a metric that the validation loss adds at most
_LEAST_TIE = 1e-300  # the same for a metric of 0


def make_pruner(
    options: Pruner, n_epochs: int, n_folds: int = 1, *, by_loss: bool = True
) -> pruners.BasePruner:
    """Build Optuna's pruner from the experiment's options.

    No pruner infers a setting from the first trials that it sees: these depend on timing.

    Args:
        options: of the experiment.
        n_epochs: of a trial, at most.
        n_folds: if above 1, a step is a fold instead of an epoch, and no trial stops within the
            first.
        by_loss: whether the validation losses of two trials are comparable; if not, ties between
            trials are left to the pruner.
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
    """Return whether the validation loss breaks ties of the metric for this pruner.

    A signed-rank test has its own rule for ties.
    """
    return not isinstance(pruner, pruners.NopPruner | _OfFolds | _ByMetric)


def with_losses(
    values: Mapping[int, float], epochs: Sequence[Epoch], sign: int, n_folds: int
) -> dict[int, float]:
    """Return a trial's intermediate values with a trace of the validation loss.

    The trace is far smaller than differences of the metric, so it only breaks ties: of equal
    metrics, the one with the larger loss is worse.

    Args:
        values: of `intermediate_values`.
        epochs: the same epochs.
        sign: 1 if the metric is minimized, else -1.
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
    """A pruner that sees the metric alone: the losses of two trials are not comparable."""

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
        view = _view(study, _ToldTrials(study, told, by_loss=self._by_loss))
        return bool(self._pruner.prune(view, _with_fold_scores(trial)))


def should_prune(
    pruner: pruners.BasePruner,
    evidence: Evidence,
    number: int,
    params: Mapping[str, Any],
    distributions: dict[str, BaseDistribution],
    epochs: Sequence[Epoch],
    rungs: dict[str, Any],
) -> bool:
    """Ask a pruner whether a trial should stop.

    Args:
        pruner: decides.
        evidence: the trials that it compares with. With several folds, a trial may stop at the
            end of each but the last, and is compared by its mean over the folds so far.
        number: of the trial.
        params: of the trial.
        distributions: of the trial.
        epochs: of the trial, the newest last.
        rungs: the pruner's notes on the trial so far; new ones are added.
    """
    n_folds = evidence.n_folds
    if n_folds > 1 and (epochs[-1].fold_score is None or epochs[-1].fold == n_folds - 1):
        return False
    frozen = FrozenTrial(  # `create_trial` would check all distributions at every epoch
        number=number,
        trial_id=number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params=dict(params),
        distributions=distributions,
        user_attrs={},
        system_attrs=dict(rungs),
        intermediate_values=evidence.values_of(epochs, breaks_ties=breaks_ties(pruner)),
    )
    return evidence.decide(pruner, frozen, rungs)


class Evidence:
    """The trials that one attempt at a trial may be compared with, as a study without others.

    Args:
        study: of the trials.
        n_seen: the number of trials that had been told, with duplicates.
        trials: those of them that count.
        complete: those of these that are complete.
        n_folds: of every trial.
    """

    def __init__(
        self,
        study: optuna.Study,
        n_seen: int,
        trials: list[FrozenTrial],
        complete: list[FrozenTrial],
        n_folds: int = 1,
    ) -> None:
        self.n_seen, self.trials, self.n_folds = n_seen, trials, n_folds
        self._storage = _ToldTrials(study, trials)
        self.sign = self._storage.sign
        self._storage.in_states[TrialState.COMPLETE,] = complete  # what pruners ask for
        self._view = _view(study, self._storage)
        self._values: dict[int, float] = {}  # of the attempt, as far as it has been decided on

    def values_of(self, epochs: Sequence[Epoch], *, breaks_ties: bool) -> dict[int, float]:
        """Return what the attempt that is decided on is compared by; not to be changed.

        Args:
            epochs: of the trial, as for `should_prune`. Those of the call before are not read
                again, unless there are folds.
            breaks_ties: whether the values have a trace of the validation loss.
        """
        values = self._values
        if self.n_folds > 1:
            values.clear()
        new = epochs[len(values) :]
        found: Mapping[int, float] = intermediate_values(new, self.n_folds)
        values |= with_losses(found, new, self.sign, self.n_folds) if breaks_ties else found
        return values

    def decide(self, pruner: pruners.BasePruner, trial: FrozenTrial, notes: dict[str, Any]) -> bool:
        """Return the pruner's decision; its notes on the trial are added to `notes`."""
        self._storage.notes = notes
        return bool(pruner.prune(self._view, trial))


def _view(study: optuna.Study, storage: InMemoryStorage) -> optuna.Study:
    """Return a storage as a study; Optuna's default sampler and pruner take long to make."""
    return optuna.Study(study.study_name, storage, study.sampler, study.pruner)


class _ToldTrials(InMemoryStorage):
    """A storage of trials that have been told; a pruner's notes on another trial go to `notes`."""

    def __init__(
        self, study: optuna.Study, told: Sequence[FrozenTrial], *, by_loss: bool = True
    ) -> None:
        super().__init__()
        self._by_loss = by_loss
        self.create_new_study([study.direction], study.study_name)
        self._told = told
        self.in_states: dict[tuple[TrialState, ...], list[FrozenTrial]] = {}
        self.sign = -1 if study.direction is StudyDirection.MAXIMIZE else 1
        self.notes: dict[str, Any] = {}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return those in `states`; the list is kept, as pruners ask after every epoch."""
        wanted = tuple(state for state in TrialState if states is None or state in states)
        if wanted not in self.in_states:
            self.in_states[wanted] = [t for t in self._told if t.state in wanted]
        return self.in_states[wanted]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the best trial; of equal ones, that with the least loss, else the earliest.

        Raises:
            ValueError: none is complete.
        """
        complete = [t for t in self._told if t.state is TrialState.COMPLETE]
        if not complete:
            raise ValueError("no trial is complete yet")
        best = min(self.sign * (t.value or 0.0) for t in complete)
        equal = [t for t in complete if self.sign * (t.value or 0.0) == best]
        if not self._by_loss:
            return min(equal, key=lambda t: t.number)
        return equal[0] if len(equal) == 1 else min(equal, key=self._loss)

    def _loss(self, trial: FrozenTrial) -> float:
        record = trial.user_attrs.get(OUTCOME_ATTR)
        return Outcome.from_json(record).val_loss(self.sign) if record else math.inf

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keep a note on the trial that is decided on."""
        self.notes[key] = value


def _with_fold_scores(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial with each fold's own score in place of the means over the folds so far."""
    trial, means = copy.copy(trial), trial.intermediate_values
    trial.intermediate_values = {
        k: (k + 1) * mean - k * means.get(k - 1, 0.0) for k, mean in means.items()
    }
    return trial
