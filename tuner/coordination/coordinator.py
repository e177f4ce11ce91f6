"""The coordinator: asks the sampler, submits jobs, records and tells outcomes.

It alone writes to a study. What it decides depends on the journal's content and never on
timing, so a search gives the same trials with any number of workers, and after any interruption:

- trial k is asked when exactly `rhythm.told_before(k)` trials have been told;
- an outcome is recorded in the journal at once, and told in the order of the trials' numbers;
- pruning of trial k sees the trials that had been told when k was asked.

`AsynchronousCoordinator` gives this up, so that no worker waits.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import TrialState

from tuner.coordination.events import Asked, Observer
from tuner.coordination.history import (
    StudyTrial,
    TrialHistory,
    ask,
    configuration_key,
    restore,
    tell,
    unseen_configuration,
)
from tuner.coordination.pruning import Evidence, breaks_ties, should_prune
from tuner.executors.base import STOPPING, Event, Executor, Finished, Lost, Reported
from tuner.jobs import Outcome, OutcomeState, TrainJob, Weights, cost, intermediate_values
from tuner.journal.storage import LOST_ATTR, OUTCOME_ATTR, REPEAT_ATTR
from tuner.strategies.base import Rhythm

__all__ = ["AsynchronousCoordinator", "Coordinator", "Limits"]


@dataclass(frozen=True)
class Limits:
    """When a search ends, and when a trial is given up."""

    n_trials: int | None  # trained in all; duplicates do not count
    n_configurations: int | None = None  # of the search space; None where it is infinite
    stagnation: int | None = None  # generations without a better score
    retries: int = 2  # of a job whose worker died
    out_of_time: Callable[[], bool] = lambda: False  # whether no further trial may start


_POLL_S = 0.5  # between two looks at the clock and the stop request, while nothing happens


class Coordinator:
    """Runs the trials of one study to the end of its budget."""

    def __init__(
        self,
        study: optuna.Study,
        distributions: dict[str, BaseDistribution],
        rhythm: Rhythm,
        executor: Executor,
        make_job: Callable[[optuna.Trial], TrainJob],
        limits: Limits,
        *,
        distinct: bool = True,
        second: str | None = None,
        n_folds: int = 1,
        pruner: BasePruner | None = None,
        seed: int = 0,
        observer: Observer | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Prepare to resume a study from its journal.

        Args:
            study: the Optuna study, with its strategy as sampler.
            distributions: the search space.
            rhythm: how many trials must have been told when a trial is asked.
            executor: runs the jobs.
            make_job: returns the job of a trial that has its parameters and seed.
            limits: when the search ends.
            distinct: whether a duplicate takes the outcome of its original and is not trained.
            second: objective beside the metric, one of `tuner.metrics.COSTS`.
            n_folds: of every job; see `TrainJob.folds`.
            pruner: decides after each epoch, or each of several folds, of jobs that can be pruned.
            seed: the study's; those of trainings follow from it.
            observer: receives the events of the search.
            stop: once set, no further trial starts; running trials end.
        """
        self._study, self._distributions, self._rhythm = study, distributions, rhythm
        self._executor, self._make_job, self._limits = executor, make_job, limits
        self._distinct, self._seed, self._second = distinct, seed, second
        self._pruner, self._n_folds = pruner or NopPruner(), n_folds
        self._observer, self._stop = observer or Observer(), stop or threading.Event()
        self._n_configurations = limits.n_configurations
        self._history = TrialHistory(
            study.directions,
            n_folds=n_folds,
            breaks_ties=pruner is not None and breaks_ties(pruner),
        )
        self._originals: dict[str, StudyTrial] = {}  # by configuration
        self._recent: deque[StudyTrial] = deque(maxlen=rhythm.size)  # as many as a generation has
        self._untold: list[StudyTrial] = []
        self._queue: list[StudyTrial] = []  # asked, and to be submitted
        self._running: dict[str, StudyTrial] = {}  # by the key of the job
        self._n_asked = self.trained = 0  # trials, with and without duplicates
        self.weights: dict[str, Weights] = {}  # by the key of the job that kept them

    def run(self) -> bool:
        """Run until the budget is used; returns False where it was stopped before."""
        self._restore()
        stopping = False
        while True:
            if self._stop.is_set() and not stopping:
                stopping = True
                self._observer.note(STOPPING)
            if stopping or self._limits.out_of_time():
                for key in self._executor.withdraw():
                    del self._running[key]
            else:
                self._advance()
                self._submit_all()
            if not self._running:
                return not stopping
            for event in self._executor.poll(_POLL_S):
                self._handle(event)

    @property
    def exhausted(self) -> bool:
        """Whether every configuration of a finite space has been trained."""
        return self._distinct and self.trained == self._n_configurations

    def _restore(self) -> None:
        """Add the trials in the journal; those without an outcome are trained again."""
        for trial, frozen in restore(self._study, self._distributions, self._seed):
            if trial.told:
                self._history.add(frozen)
            self._add(trial)
            if trial.told:
                trial.end(frozen.intermediate_values)

    def _advance(self) -> None:
        """Tell and ask as far as the outcomes allow."""
        while True:
            asks = self._wants_more()
            needed = self._rhythm.told_before(self._n_asked) if asks else self._n_asked
            if asks and len(self._history) >= needed and self._stagnates(needed):
                needed = self._n_asked  # trials asked since may be better
                asks = len(self._history) >= needed and not self._stagnates(needed)
            if len(self._history) < needed:
                due = self._untold[: needed - len(self._history)]
                if not all(trial.recorded for trial in due):
                    return
                for trial in due:
                    self._tell(trial)
            elif asks:
                self._ask()
            else:
                return

    def _stagnates(self, n: int) -> bool:
        limit = self._limits.stagnation
        return limit is not None and self._history.stagnation(n, self._rhythm.size) >= limit

    def _wants_more(self) -> bool:
        n_trials = self._limits.n_trials
        return not self.exhausted and (n_trials is None or self.trained < n_trials)

    def _ask(self) -> None:
        stuck = len(self._recent) == self._rhythm.size and all(t.original for t in self._recent)
        if stuck and not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            params = unseen_configuration(
                self._distributions, self._originals.keys(), self._seed, self._n_asked
            )
            if params is None:
                self._n_configurations = self.trained  # two that were counted are equal
                return
            self._study.enqueue_trial(params)
        self._add(ask(self._study, self._distributions, self._seed, len(self._history)))

    def _add(self, trial: StudyTrial) -> None:
        """Add a trial that has been asked, and queue it unless its outcome is known."""
        self._n_asked += 1
        self._recent.append(trial)
        if not trial.told:
            self._untold.append(trial)
        original = self._originals.setdefault(configuration_key(trial.params), trial)
        repeat_of = None
        if self._distinct and original is not trial:
            trial.original, repeat_of = original, original.number
            if REPEAT_ATTR not in trial.handle.user_attrs:
                trial.handle.set_user_attr(REPEAT_ATTR, repeat_of)
        else:
            self.trained += 1
        self._observer.asked(Asked(trial.key, repeat_of, trial.params))
        if trial.original is None and trial.outcome is None:
            self._queue.append(trial)
        elif trial.original is None and trial.outcome is not None:
            self._observer.finished(trial.key, trial.outcome, earlier=True)

    def _submit_all(self) -> None:
        """Submit queued trials, longest first, so that no worker waits long at the end."""
        jobs = [(trial, self._make_job(trial.handle)) for trial in self._queue]
        self._queue.clear()
        for trial, job in sorted(jobs, key=lambda pair: -cost(pair[1])):
            self._observer.dispatched(trial.key, cost(job))
            self._submit(trial, job)

    def _submit(self, trial: StudyTrial, job: TrainJob) -> None:
        trial.start(job)
        self._running[job.key] = trial
        self._executor.submit(job)

    def _handle(self, event: Event) -> None:
        trial = self._running[event.key]
        if isinstance(event, Finished):
            self._record(event.key, trial, event.outcome)
        elif isinstance(event, Lost):
            self._handle_loss(trial, event)
        else:
            self._handle_epoch(trial, event)

    def _handle_epoch(self, trial: StudyTrial, event: Reported) -> None:
        if not trial.epochs:
            self._observer.began(trial.key, event.epoch.time - event.trained_s)
        trial.epochs.append(event.epoch)
        self._observer.epoch(trial.key, event.epoch)
        assert trial.job is not None
        if trial.job.can_be_pruned:
            self._executor.answer(event.key, not self._should_prune(trial))

    def _handle_loss(self, trial: StudyTrial, event: Lost) -> None:
        trial.lost.append(event.reason)
        trial.handle.set_user_attr(LOST_ATTR, trial.lost)
        if len(trial.lost) > self._limits.retries:
            reason = f"lost {len(trial.lost)} times: {event.reason}"
            self._record(event.key, trial, Outcome(OutcomeState.FAILED, reason=reason))
            return
        self._observer.lost(trial.key, event.reason)
        del self._running[event.key]
        if not (self._stop.is_set() or self._limits.out_of_time()):  # else the next run trains it
            assert trial.job is not None
            self._submit(trial, trial.job)

    def _record(self, key: str, trial: StudyTrial, outcome: Outcome) -> None:
        if not outcome.history:  # the worker died, or was ended
            outcome = dataclasses.replace(outcome, history=tuple(trial.epochs))
        storage, trial_id = self._study._storage, trial.handle._trial_id  # a Trial keeps a copy
        storage.set_trial_user_attr(trial_id, OUTCOME_ATTR, outcome.to_json())
        trial.outcome = outcome
        if outcome.weights is not None:
            self.weights[key] = outcome.weights
        del self._running[key]
        self._observer.finished(trial.key, outcome)

    def _should_prune(self, trial: StudyTrial) -> bool:
        n_noted, n_seen = len(trial.rungs), self._n_seen(trial)
        if trial.evidence is None or trial.evidence.n_seen != n_seen:
            trial.evidence = Evidence(self._study, n_seen, *self._history.evidence(n_seen))
        prune = should_prune(
            self._pruner,
            trial.evidence,
            trial.number,
            trial.params,
            self._distributions,
            trial.epochs,
            trial.rungs,
            n_folds=self._n_folds,
        )
        for key, value in list(trial.rungs.items())[n_noted:]:
            self._study._storage.set_trial_system_attr(trial.handle._trial_id, key, value)
        return prune

    def _n_seen(self, trial: StudyTrial) -> int:
        """Return how many of the trials told pruning of this one compares it with."""
        return trial.asked_after

    def _tell(self, trial: StudyTrial) -> None:
        outcome = trial.recorded
        assert outcome is not None
        # A duplicate needs only the last value, with which a pruned trial is ranked.
        values = (
            trial.original.last
            if trial.original
            else intermediate_values(outcome.history, self._n_folds)
        )
        told = tell(self._study, trial.handle, outcome, values, trial.reported, self._second)
        self._history.add(told)
        self._untold.remove(trial)
        trial.end(values)


class AsynchronousCoordinator(Coordinator):
    """Tells a trial when it ends, and asks for one when a worker is free.

    The trials depend on timing: on which trial ends first. Finished trials survive an
    interruption as they do otherwise.
    """

    def _advance(self) -> None:
        while True:
            for trial in [trial for trial in self._untold if trial.recorded]:
                self._tell(trial)
            n_busy = len(self._queue) + len(self._running)
            if n_busy >= self._executor.n_workers or not self._wants_more():
                return
            if self._stagnates(len(self._history)):
                return
            self._ask()

    def _n_seen(self, trial: StudyTrial) -> int:
        return len(self._history)
