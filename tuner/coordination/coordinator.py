"""The coordinator: asks the sampler, submits jobs, records and tells outcomes.

It alone writes to a study. What it decides depends on the journal's content and never on
timing, so a search gives the same trials with any number of workers, and after any interruption:

- trial k is asked when exactly `rhythm.told_before(k)` trials have been told;
- an outcome is journaled at once, and *told* in the order of the trials' numbers;
- pruning of trial k sees the trials that had been told when k was asked.

`tuner/coordination/coordinator.py` gives all this up, where that is asked for.

A trial is told when it ends and asked when a worker is free: what a strategy knows, and what
pruning compares with, depends on which trial ends first.
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
    Slot,
    Told,
    asked,
    configuration_key,
    fresh_configuration,
    restored,
    tell,
)
from tuner.coordination.pruning import Evidence, breaks_ties, should_prune
from tuner.executors.base import STOPPING, Event, Executor, Finished, Lost, cost
from tuner.experiment import Experiment
from tuner.jobs import Outcome, OutcomeState, TrainJob, Weights, intermediate_values
from tuner.journal.storage import LOST_ATTR, OUTCOME_ATTR, REPEAT_ATTR
from tuner.strategies.base import Rhythm

__all__ = ["AsynchronousCoordinator", "Coordinator", "Limits", "why_it_ended"]


@dataclass(frozen=True)
class Limits:
    """When a search ends, and when a trial is given up."""

    n_trials: int | None  # trained in all; repeats do not count
    n_configurations: int | None = None  # of the search space; None where it is infinite
    stagnation: int | None = None  # generations without a better score
    retries: int = 2  # of a job that the machine lost
    out_of_time: Callable[[], bool] = lambda: False  # says when no further trial may start


def why_it_ended(
    experiment: Experiment, n_trained: int, exhausted: bool, out_of_time: bool
) -> str | None:
    """Say why a search is over; None where it has trained what it was asked for.

    Args:
        experiment: what was searched.
        n_trained: how many trials have been trained in all.
        exhausted: whether no configuration is left.
        out_of_time: whether the time is up.
    """
    budget = experiment.budget
    if not experiment.search_space or (budget.trials is not None and n_trained >= budget.trials):
        return None
    of = "" if budget.trials is None else f" of {budget.trials}"
    if exhausted:
        return f"every configuration of the search space ({n_trained}) has been trained"
    if out_of_time:
        return f"the time is up ({budget.timeout:g} s): {n_trained}{of} trials were trained"
    return (
        f"no better score in {budget.stagnation} generations: the search ends after "
        f"{n_trained}{of} trials"
    )


_POLL_S = 0.5  # how often the clock and the stop request are looked at when nothing happens


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
        """Take up a study where its journal says that it is.

        Args:
            study: the Optuna study, with its strategy as sampler.
            distributions: the search space.
            rhythm: how many trials must have been told when a trial is asked.
            executor: where jobs run.
            make_job: gives the job of a trial that has its parameters and seed.
            limits: when the search ends.
            distinct: whether a repeat takes the first one's outcome and is not trained.
            second: objective beside the metric, one of `tuner.experiment.metrics.COSTS`.
            n_folds: of every job; see `TrainJob.folds`.
            pruner: decides after each epoch, or each of several folds, of jobs that can be pruned.
            seed: the study's, from which those of trainings follow.
            observer: is told what happens.
            stop: once set, no further trial starts; those in progress end.
        """
        self._study, self._distributions, self._rhythm = study, distributions, rhythm
        self._executor, self._make_job, self._limits = executor, make_job, limits
        self._distinct, self._seed, self._second = distinct, seed, second
        self._pruner, self._n_folds = pruner or NopPruner(), n_folds
        self._observer, self._stop = observer or Observer(), stop or threading.Event()
        self._n_configurations = limits.n_configurations
        self.weights: dict[str, Weights] = {}  # by the key of the job that kept them
        self._recent: deque[Slot] = deque(maxlen=rhythm.size)  # as many as are asked together
        self._untold: list[Slot] = []
        self._first: dict[str, Slot] = {}  # by configuration
        self._told = Told(
            study.directions,
            n_folds=n_folds,
            breaks_ties=pruner is not None and breaks_ties(pruner),
        )
        self._ready: list[Slot] = []  # to be handed out
        self._in_flight: dict[str, Slot] = {}
        self._asked = self.trained = 0  # trials, with and without repeats

    def run(self) -> bool:
        """Run until the budget is used; returns False where it was stopped before."""
        self._restore()
        told_of_it = False
        while True:
            stopped = self._stop.is_set()
            if stopped and not told_of_it:
                self._observer.note(STOPPING)
                told_of_it = True
            if stopped or self._limits.out_of_time():
                for key in self._executor.withdraw():
                    del self._in_flight[key]
            else:
                self._advance()
                self._dispatch_all()
            if not self._in_flight:
                return not stopped
            for event in self._executor.poll(_POLL_S):
                self._handle(event)

    def _over(self) -> bool:
        """Whether no further trial may start."""
        return self._stop.is_set() or self._limits.out_of_time()

    @property
    def exhausted(self) -> bool:
        """Whether every configuration of a finite space has been trained."""
        return self._distinct and self.trained == self._n_configurations

    def _restore(self) -> None:
        """Take up the trials in the journal; those without an outcome are trained again."""
        for slot, frozen in restored(self._study, self._distributions, self._seed):
            if slot.told:
                self._told.add(frozen)
            self._admit(slot)
            if slot.told:
                slot.end(frozen.intermediate_values)

    def _advance(self) -> None:
        """Tell and ask as far as the outcomes allow."""
        while True:
            asks = self._wants_more()
            needed = self._rhythm.told_before(self._asked) if asks else self._asked
            if asks and len(self._told) >= needed and self._stagnant(needed):
                needed = self._asked  # what was asked since may be better
                asks = len(self._told) >= needed and not self._stagnant(needed)
            if len(self._told) < needed:
                due = self._untold[: needed - len(self._told)]
                if not all(slot.settled for slot in due):
                    return
                for slot in due:
                    self._tell(slot)
            elif asks:
                self._ask()
            else:
                return

    def _stagnant(self, n: int) -> bool:
        """Whether the last generations of the first `n` trials brought no better score."""
        limit = self._limits.stagnation
        return limit is not None and self._told.stagnant(n, self._rhythm.size) >= limit

    def _wants_more(self) -> bool:
        n_trials = self._limits.n_trials
        return not self.exhausted and (n_trials is None or self.trained < n_trials)

    def _ask(self) -> None:
        stuck = len(self._recent) == self._rhythm.size and all(s.original for s in self._recent)
        if stuck and not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            # The strategy proposes nothing new: offer it a configuration that is.
            params = fresh_configuration(
                self._distributions, self._first.keys(), self._seed, self._asked
            )
            if params is None:
                self._n_configurations = self.trained  # fewer than was thought: two were equal
                return
            self._study.enqueue_trial(params)
        self._admit(asked(self._study, self._distributions, self._seed, len(self._told)))

    def _admit(self, slot: Slot) -> None:
        """Take a trial with its parameters in, and have it trained unless that is settled."""
        self._asked += 1
        self._recent.append(slot)
        if not slot.told:
            self._untold.append(slot)
        configuration = configuration_key(slot.params)
        first = self._first.setdefault(configuration, slot)
        if self._distinct and first is not slot:
            slot.original = first
            if REPEAT_ATTR not in slot.trial.user_attrs:
                slot.trial.set_user_attr(REPEAT_ATTR, first.trial.number)
        else:
            self.trained += 1
        number = slot.trial.number
        repeat_of = slot.original.trial.number if slot.original else None
        self._observer.asked(Asked(slot.role, number, repeat_of, slot.params, *slot.retraining))
        if slot.original is None and slot.outcome is None:
            self._ready.append(slot)
        elif slot.original is None and slot.outcome is not None:
            self._observer.finished(slot.role, number, slot.outcome)

    def _dispatch_all(self) -> None:
        """Hand out what is ready, the dearest first, so that no worker waits long at the end."""
        jobs = [(slot, self._make_job(slot.trial)) for slot in self._ready]
        self._ready.clear()
        for slot, job in sorted(jobs, key=lambda pair: -cost(pair[1])):
            self._observer.dispatched(slot.role, slot.trial.number, cost(job))
            self._dispatch(slot, job)

    def _dispatch(self, slot: Slot, job: TrainJob) -> None:
        slot.begin(job)
        self._in_flight[job.key] = slot
        self._executor.submit(job)

    def _handle(self, event: Event) -> None:
        slot = self._in_flight[event.key]
        assert slot.job is not None
        number = slot.trial.number
        if isinstance(event, Finished):
            self._settle(event.key, slot, event.outcome)
        elif isinstance(event, Lost):
            slot.lost.append(event.reason)
            slot.trial.set_user_attr(LOST_ATTR, slot.lost)
            if len(slot.lost) <= self._limits.retries:
                self._observer.lost(slot.role, number, event.reason)
                del self._in_flight[event.key]
                if not self._over():  # or the next run trains it
                    self._dispatch(slot, slot.job)
            else:
                reason = f"lost {len(slot.lost)} times: {event.reason}"
                outcome = Outcome(OutcomeState.FAILED, reason=reason)
                self._settle(event.key, slot, outcome)
        else:
            if not slot.epochs:
                self._observer.began(slot.role, number, event.epoch.time - event.trained_s)
            slot.epochs.append(event.epoch)
            self._observer.epoch(slot.role, number, event.epoch)
            if slot.job.can_be_pruned:
                self._executor.answer(event.key, not self._should_prune(slot))

    def _settle(self, key: str, slot: Slot, outcome: Outcome) -> None:
        if not outcome.history:  # of a job that did not live to tell it
            outcome = dataclasses.replace(outcome, history=tuple(slot.epochs))
        storage, trial_id = self._study._storage, slot.trial._trial_id  # a Trial keeps a copy
        storage.set_trial_user_attr(trial_id, OUTCOME_ATTR, outcome.to_json())
        slot.outcome = outcome
        if outcome.weights is not None:
            self.weights[key] = outcome.weights
        del self._in_flight[key]
        self._observer.finished(slot.role, slot.trial.number, outcome)

    def _should_prune(self, slot: Slot) -> bool:
        known = len(slot.rungs)
        prune = should_prune(
            self._pruner,
            self._evidence(slot),
            slot.trial.number,
            slot.params,
            self._distributions,
            slot.epochs,
            slot.rungs,
            n_folds=self._n_folds,
        )
        for key, value in list(slot.rungs.items())[known:]:
            self._study._storage.set_trial_system_attr(slot.trial._trial_id, key, value)
        return prune

    def _evidence(self, slot: Slot) -> Evidence:
        n_seen = self._n_seen(slot)
        if slot.evidence is None or slot.evidence.n_seen != n_seen:
            slot.evidence = Evidence(self._study, n_seen, *self._told.evidence(n_seen))
        return slot.evidence

    def _n_seen(self, slot: Slot) -> int:
        """Return how many of the trials told pruning of this one may look at."""
        return slot.asked_after

    def _tell(self, slot: Slot) -> None:
        outcome = slot.settled
        assert outcome is not None
        # Of a repeat the last value is enough, which a pruned trial takes part with.
        values = (
            slot.original.last
            if slot.original
            else intermediate_values(outcome.history, self._n_folds)
        )
        told = tell(self._study, slot.trial, outcome, values, slot.reported, self._second)
        self._told.add(told)
        self._untold.remove(slot)
        slot.end(values)


class AsynchronousCoordinator(Coordinator):
    """Tells and asks at once; what is finished survives an interruption all the same."""

    def _advance(self) -> None:
        while True:
            for slot in [slot for slot in self._untold if slot.settled]:
                self._tell(slot)
            busy = len(self._ready) + len(self._in_flight)
            if busy >= self._executor.n_workers or not self._wants_more():
                return
            if self._stagnant(len(self._told)):
                return
            self._ask()

    def _n_seen(self, slot: Slot) -> int:
        return len(self._told)
