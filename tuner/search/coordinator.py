"""The coordinator: asks the strategy, hands jobs out, records and tells what comes back.

It alone writes to a study. What it decides depends on the journal's content and never on
timing, so a search gives the same trials with any number of workers, and after any interruption:

- trial k is asked when exactly `rhythm.told_before(k)` trials have been told;
- an outcome is journaled at once, and *told* in the order of the trials' numbers;
- pruning of trial k sees the trials that had been told when k was asked.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.executors.base import Event, Executor, Finished, Lost
from tuner.jobs import Outcome, OutcomeState, TrainJob, Weights, intermediate_values
from tuner.search.attributes import OUTCOME_ATTR, REPEAT_ATTR, TOLD_ATTR
from tuner.search.fresh import configuration_key, fresh_configuration
from tuner.search.observer import Observer
from tuner.search.pruning import should_prune
from tuner.search.seeds import Role
from tuner.search.slots import Slot, suggest
from tuner.search.work import cost
from tuner.strategies.registry import Rhythm

__all__ = ["Coordinator"]

_POLL_S = 0.5  # how often the clock and the stop request are looked at when nothing happens


class Coordinator:
    """Runs the trials of one study to the end of its budget."""

    def __init__(
        self,
        study: optuna.Study,
        distributions: dict[str, BaseDistribution],
        rhythm: Rhythm,
        executor: Executor,
        make_job: Callable[[FrozenTrial], TrainJob],
        *,
        n_trials: int,
        role: Role = Role.TRIAL,
        distinct: bool = True,
        n_configurations: int | None = None,
        n_folds: int = 1,
        stagnation: int | None = None,
        pruner: BasePruner | None = None,
        seed: int = 0,
        retries: int = 2,
        observer: Observer | None = None,
        stop: threading.Event | None = None,
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take up a study where its journal says that it is.

        Args:
            study: the Optuna study, with its strategy as sampler.
            distributions: the search space.
            rhythm: how many trials must have been told when a trial is asked.
            executor: where jobs run.
            make_job: gives the job of a trial that has its parameters.
            n_trials: how many trials are trained in all; repeats do not count.
            role: of the trials.
            distinct: whether a repeat takes the first one's outcome and is not trained.
            n_configurations: the size of the search space; None where it is infinite.
            n_folds: of every job; see `TrainJob.folds`.
            stagnation: generations without a better score after which no further trial starts.
            pruner: decides after each epoch, or each of several folds, of jobs that can be pruned.
            seed: for the configurations that take the place of endless repeats.
            retries: how often a job that the machine lost is run again.
            observer: is told what happens.
            stop: once set, no further trial starts; those in progress end.
            out_of_time: says when no further trial may start.
        """
        self._study, self._distributions, self._rhythm = study, distributions, rhythm
        self._executor, self._make_job, self._n_trials = executor, make_job, n_trials
        self._role, self._distinct, self._n_configurations = role, distinct, n_configurations
        self._pruner, self._n_folds = pruner or NopPruner(), n_folds
        self._stagnation, self._seed, self._retries = stagnation, seed, retries
        self._observer = observer or Observer()
        self._stop, self._out_of_time = stop or threading.Event(), out_of_time
        self.weights: dict[str, Weights] = {}  # by the key of the job that kept them
        self._slots: list[Slot] = []
        self._first: dict[str, Slot] = {}  # by configuration
        self._told: list[FrozenTrial] = []
        self._best, self._improved_at = math.inf, 0  # of the trials told: the score, and whose
        self._ready: list[Slot] = []  # to be handed out
        self._in_flight: dict[str, Slot] = {}
        self.trained = 0  # trials, without repeats

    def run(self) -> bool:
        """Run until the budget is used; returns False where it was stopped before."""
        self._restore()
        told_of_it = False
        while True:
            stopped = self._stop.is_set()
            if stopped:
                if not told_of_it:
                    self._observer.note(
                        "stopping when the trials in progress have ended; Ctrl-C again stops now"
                    )
                    told_of_it = True
                for key in self._executor.withdraw():
                    del self._in_flight[key]
            else:
                self._advance()
                self._dispatch_all()
            if not self._in_flight:
                return not stopped
            for event in self._executor.poll(_POLL_S):
                self._handle(event)

    @property
    def exhausted(self) -> bool:
        """Whether every configuration of a finite space has been trained."""
        return self._distinct and self.trained == self._n_configurations

    def _restore(self) -> None:
        """Take up the trials in the journal; those without an outcome are trained again."""
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state is TrialState.WAITING:
                continue
            trial = optuna.Trial(self._study, frozen._trial_id)
            if frozen.state is TrialState.RUNNING:
                suggest(trial, self._distributions)
            else:
                self._note(frozen)
            asked_after = frozen.user_attrs.get(TOLD_ATTR)
            if asked_after is None:  # killed while it was asked for; nothing was told since
                asked_after = len(self._told)
                trial.set_user_attr(TOLD_ATTR, asked_after)
            record = frozen.user_attrs.get(OUTCOME_ATTR)
            outcome = Outcome.from_json(record) if record else None
            self._admit(Slot(trial, trial.params, asked_after, outcome=outcome))

    def _advance(self) -> None:
        """Tell and ask as far as the outcomes allow."""
        while True:
            wants_more = self._wants_more()
            asked, told = len(self._slots), len(self._told)
            needed = self._rhythm.told_before(asked) if wants_more else asked
            if told < needed:
                if not all(slot.settled for slot in self._slots[told:needed]):
                    return
                for slot in self._slots[told:needed]:
                    self._tell(slot)
            elif wants_more:
                self._ask()
            else:
                return

    @property
    def stagnated(self) -> bool:
        """Whether the last generations that were told brought no better score."""
        if self._stagnation is None:
            return False
        size = self._rhythm.size
        return len(self._told) // size - self._improved_at // size > self._stagnation

    def _wants_more(self) -> bool:
        if self.trained >= self._n_trials or self.exhausted or self.stagnated:
            return False
        return not self._out_of_time()

    def _ask(self) -> None:
        recent = self._slots[-self._rhythm.size :]
        stuck = len(recent) == self._rhythm.size and all(slot.original for slot in recent)
        if stuck and not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            # The strategy proposes nothing new: offer it a configuration that is.
            params = fresh_configuration(
                self._distributions, self._first.keys(), self._seed, len(self._slots)
            )
            if params is None:
                self._n_configurations = self.trained  # fewer than was thought: two were equal
                return
            self._study.enqueue_trial(params)
        trial = self._study.ask(self._distributions)
        trial.set_user_attr(TOLD_ATTR, len(self._told))
        self._admit(Slot(trial, trial.params, len(self._told)))

    def _admit(self, slot: Slot) -> None:
        """Take a trial with its parameters in, and have it trained unless that is settled."""
        self._slots.append(slot)
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
        self._observer.asked(self._role, number, repeat_of)
        if slot.original is None and slot.outcome is None:
            self._ready.append(slot)
        elif slot.original is None and slot.outcome is not None:
            self._observer.finished(self._role, number, slot.outcome)

    def _dispatch_all(self) -> None:
        """Hand out what is ready, the dearest first, so that no worker waits long at the end."""
        jobs = [(slot, self._make_job(self._frozen(slot))) for slot in self._ready]
        self._ready.clear()
        for slot, job in sorted(jobs, key=lambda pair: -cost(pair[1])):
            self._observer.dispatched(self._role, slot.trial.number, cost(job))
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
            slot.losses += 1
            if slot.losses <= self._retries:
                self._observer.lost(self._role, number, event.reason)
                self._dispatch(slot, slot.job)
            else:
                reason = f"lost {slot.losses} times: {event.reason}"
                outcome = Outcome(OutcomeState.FAILED, reason=reason)
                self._settle(event.key, slot, outcome)
        else:
            slot.epochs.append(event.epoch)
            self._observer.epoch(self._role, number, event.epoch)
            if slot.job.can_be_pruned:
                self._executor.answer(event.key, not self._should_prune(slot))

    def _settle(self, key: str, slot: Slot, outcome: Outcome) -> None:
        slot.trial.set_user_attr(OUTCOME_ATTR, outcome.to_json())
        slot.outcome = outcome
        if outcome.weights is not None:
            self.weights[key] = outcome.weights
        del self._in_flight[key]
        self._observer.finished(self._role, slot.trial.number, outcome)

    def _should_prune(self, slot: Slot) -> bool:
        newest = slot.epochs[-1]
        if self._n_folds > 1 and (newest.fold_score is None or newest.fold == self._n_folds - 1):
            return False
        if slot.compared_with is None:
            # A repeat is no evidence: counted again, a good trial would prune more and more.
            told = self._told[: slot.asked_after]
            slot.compared_with = [t for t in told if REPEAT_ATTR not in t.user_attrs]
        known = len(slot.rungs)
        prune = should_prune(
            self._pruner,
            self._study,
            slot.compared_with,
            slot.trial.number,
            slot.params,
            self._distributions,
            intermediate_values(slot.epochs, self._n_folds),
            slot.rungs,
            n_folds=self._n_folds,
        )
        for key, value in list(slot.rungs.items())[known:]:
            self._study._storage.set_trial_system_attr(slot.trial._trial_id, key, value)
        return prune

    def _tell(self, slot: Slot) -> None:
        outcome = slot.settled
        assert outcome is not None
        reported = self._frozen(slot).intermediate_values  # by a run that was killed right here
        values = list(intermediate_values(outcome.history, self._n_folds).items())
        # Of a repeat the last value is enough, which a pruned trial takes part with.
        for step, value in values if slot.original is None else values[-1:]:
            if step not in reported and math.isfinite(value):
                slot.trial.report(value, step)
        match outcome.state:
            case OutcomeState.COMPLETE:
                self._study.tell(slot.trial, outcome.objective)
            case OutcomeState.PRUNED:
                self._study.tell(slot.trial, state=TrialState.PRUNED)
            case OutcomeState.FAILED:
                self._study.tell(slot.trial, state=TrialState.FAIL)
        self._note(self._frozen(slot))

    def _note(self, told: FrozenTrial) -> None:
        self._told.append(told)
        if told.state is TrialState.COMPLETE and told.value is not None:
            sign = -1.0 if self._study.direction is StudyDirection.MAXIMIZE else 1.0
            if sign * told.value < self._best:
                self._best, self._improved_at = sign * told.value, told.number

    def _frozen(self, slot: Slot) -> FrozenTrial:
        return self._study._storage.get_trial(slot.trial._trial_id)
