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
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import TrialState

from tuner.coordination.groups import Grouping, write_groups
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
from tuner.executors.base import STOPPING, Event, Finished, Lost, Reported
from tuner.jobs import (
    Epoch,
    Outcome,
    OutcomeState,
    TrainJob,
    TrialJob,
    Weights,
    cost,
    group_job,
    intermediate_values,
)
from tuner.journal.records import StudyRecord
from tuner.journal.storage import LOST_ATTR, OUTCOME_ATTR, REPEAT_ATTR, TrialKey
from tuner.strategies.base import Rhythm


@dataclass(frozen=True)
class SearchStart:
    """A search whose input is checked and whose study is open."""

    record: StudyRecord  # with the trials of earlier runs
    read: Callable[[], StudyRecord]  # reads the study again, in any thread, until `on_end`
    journal: str  # its location, without a password
    n_workers: int
    executor: str
    finalists: bool = True  # whether they are trained after the trials


@dataclass(frozen=True)
class Asked:
    """A trial that has its configuration."""

    key: TrialKey
    repeat_of: int | None  # the earlier trial with the same configuration: it is not trained
    params: Mapping[str, Any]
    seed: int = 0  # of its training


class WinnerModel(Protocol):
    """The winner's model, with its weights in memory."""

    def write(self, folder: Path) -> None:
        """Write the model into a folder; raises what `results.export.write_model` does."""


class Observer:
    """Receives the events of a search; this one ignores them.

    All methods are called in the coordinator's thread, except `note`, which any thread calls. Only
    `on_winner` and `on_end` may take time.
    """

    def on_start(self, start: SearchStart) -> None:
        """The search starts or resumes; called before any trial."""

    def on_winner(self, model: WinnerModel) -> None:
        """The test score is recorded; `model` can be used until this returns."""

    def on_end(self, done: bool) -> None:
        """The search ended, and the journal holds how; `done`: nothing stopped it.

        Also called if it failed before `on_start`.
        """

    def asked(self, trial: Asked) -> None:
        """A trial has its configuration."""

    def dispatched(self, key: TrialKey, cost: float) -> None:
        """A trial was handed to the executor; see `tuner.jobs.cost`."""

    def began(self, key: TrialKey, time: float) -> None:
        """A trial's training began at `time`, seconds since 1970; sent before its first epoch."""

    def epoch(self, key: TrialKey, epoch: Epoch) -> None:
        """A trial ended an epoch."""

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        """A trial's outcome is in the journal; `earlier`: since before this run."""

    def lost(self, key: TrialKey, reason: str) -> None:
        """A trial was lost with its worker; it runs again."""

    def note(self, text: str) -> None:
        """A message for the user."""


class Observers(Observer):
    """Several observers as one: each event goes to all of them, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers


class HeldObservers(Observers):
    """Observers that get their events later: at `release`, once these are on the disk, say."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        super().__init__(observers)
        self._held: list[Callable[[], None]] = []

    def release(self) -> None:
        """Send the events since the last call."""
        held, self._held = self._held, []
        for send in held:
            send()


def _to_all(event: str) -> Callable[..., None]:
    def send(self: Observers, *args: Any, **keys: Any) -> None:
        for observer in self._observers:
            getattr(observer, event)(*args, **keys)

    return send


def _later(event: str) -> Callable[..., None]:
    def hold(self: HeldObservers, *args: Any, **keys: Any) -> None:
        self._held.append(partial(getattr(super(HeldObservers, self), event), *args, **keys))

    return hold


for _event in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Observers, _event, _to_all(_event))
    setattr(HeldObservers, _event, _later(_event))


@dataclass(frozen=True)
class Limits:
    """When a search ends, and when a trial is given up."""

    n_trials: int | None  # trained in all; duplicates do not count
    n_configurations: int | None = None  # of the search space; None where it is infinite
    stagnation: int | None = None  # generations without a better score
    retries: int = 2  # of a job whose worker died
    out_of_time: Callable[[], bool] = lambda: False  # whether no further trial may start


class TrialExecutor(Protocol):
    """What the coordinator needs of an `Executor`; other things than workers can give it too."""

    @property
    def n_workers(self) -> int:
        """How many jobs may be in progress."""

    def submit(self, job: Any) -> None:
        """Queue a job."""

    def poll(self, timeout_s: float) -> list[Event]:
        """Return the events since the last call; only `Coordinator.run` calls it."""

    def answer(self, key: str, go_on: bool) -> None:
        """Answer a job that waits after a report: whether to train on."""

    def withdraw(self) -> list[str]:
        """Drop the jobs that have not begun, and return their keys."""


_POLL_S = 0.5  # between two looks at the clock and the stop request, while nothing happens


@dataclass(eq=False)
class Coordinator:
    """Runs the trials of one study to the end of its budget, or resumes them from its journal.

    `run` does all of it. Where events come from elsewhere, `begin` and then `step` for each batch
    of events do the same.
    """

    study: optuna.Study  # with its strategy as sampler
    distributions: dict[str, BaseDistribution]  # the search space
    rhythm: Rhythm
    executor: TrialExecutor
    make_job: Callable[[optuna.Trial], TrialJob]  # of a trial with its parameters
    limits: Limits
    _: KW_ONLY
    distinct: bool = True  # a duplicate takes the outcome of its original and is not trained
    second: str | None = None  # the objective beside the metric, one of `tuner.metrics.COSTS`
    n_folds: int = 1  # of every job; see `TrainJob.folds`
    pruner: BasePruner = field(default_factory=NopPruner)
    seed: int = 0  # of the study; those of trainings follow from it
    observer: Observer = field(default_factory=Observer)
    stop: threading.Event = field(default_factory=threading.Event)
    """Once set, no further trial starts; running trials end."""
    grouping: Grouping | None = None
    """How the trials of a generation are trained together; None: each by itself. The rhythm is of
    generations then, and every job a `TrainJob`."""
    on_demand: bool = False
    """Whether a trial is asked only when one of `executor.n_workers` is free for it, which changes
    no trial. An asynchronous search always does that."""

    def __post_init__(self) -> None:
        self._n_configurations = self.limits.n_configurations
        self._history = TrialHistory(
            self.study.directions, n_folds=self.n_folds, breaks_ties=breaks_ties(self.pruner)
        )
        self._originals: dict[str, StudyTrial] = {}  # by configuration
        self._recent: deque[StudyTrial] = deque(maxlen=self.rhythm.size)  # one generation
        self._untold: dict[int, StudyTrial] = {}  # by number, in the order in which they are asked
        self._missing: StudyTrial | None = None  # the first that is due and not recorded
        self._queue: list[StudyTrial] = []  # asked, and to be submitted
        self._running: dict[str, StudyTrial] = {}  # by the key of the job
        self._stopping = False  # by `stop`
        self._n_asked = self.trained = 0  # trials, with and without duplicates
        self.weights: dict[str, Weights] = {}  # by the key of the job that kept them

    def run(self) -> bool:
        """Run until the budget is used; returns False where it was stopped before."""
        self.begin()
        while self.step():
            self._handle_all(self.executor.poll(_POLL_S))
        return not self._stopping

    def begin(self) -> None:
        """Restore the trials in the journal; called once, before the first `step`.

        Those without an outcome are trained again.
        """
        for trial, frozen in restore(self.study, self.distributions, self.seed):
            if trial.told:
                self._history.add(frozen)
            self._add(trial)
            if trial.told:
                trial.end(frozen.intermediate_values)

    def step(self, events: Iterable[Event] = ()) -> bool:
        """Handle events; tell, ask and submit as many trials as they allow.

        Returns:
            Whether a job is in progress. If not, the search has ended, or with `on_demand` waits
            for a worker.
        """
        self._handle_all(events)
        if self.stop.is_set() and not self._stopping:
            self._stopping = True
            self.observer.note(STOPPING)
        if self._stopping or self.limits.out_of_time():
            for key in self.executor.withdraw():
                del self._running[key]
        else:
            self._advance()
            self._submit_all()
        return bool(self._running)

    @property
    def done(self) -> bool:
        """Whether no further trial will be asked, and all have been told."""
        more = self._wants_more() and not self._stagnates(len(self._history))
        return not (self._untold or more)

    @property
    def exhausted(self) -> bool:
        """Whether every configuration of a finite space has been trained."""
        return self.distinct and self.trained == self._n_configurations

    def _advance(self) -> None:
        """Tell and ask as many trials as the outcomes allow."""
        while True:
            asks = self._wants_more()
            needed = self.rhythm.told_before(self._n_asked) if asks else self._n_asked
            if asks and len(self._history) >= needed and self._stagnates(needed):
                needed = self._n_asked  # trials asked since may be better
                asks = len(self._history) >= needed and not self._stagnates(needed)
            if len(self._history) < needed:
                due = list(itertools.islice(self._untold.values(), needed - len(self._history)))
                if not self._all_recorded(due):
                    return
                for trial in due:
                    self._tell(trial)
            elif asks and self._has_room():
                self._ask()
            else:
                return

    def _all_recorded(self, due: Sequence[StudyTrial]) -> bool:
        """Return whether all of these trials are recorded; quick while the same one is not."""
        if (missing := self._missing) is None or missing.recorded:
            self._missing = missing = next((t for t in due if not t.recorded), None)
        return missing is None or missing.number > due[-1].number

    def _has_room(self) -> bool:
        """Return whether a trial may be asked, as far as workers are concerned."""
        return not self.on_demand or self._n_busy < self.executor.n_workers

    @property
    def _n_busy(self) -> int:
        return len(self._queue) + len(self._running)

    def _stagnates(self, n: int) -> bool:
        limit = self.limits.stagnation
        return limit is not None and self._history.stagnation(n, self.rhythm.size) >= limit

    def _wants_more(self) -> bool:
        n_trials = self.limits.n_trials
        return not self.exhausted and (n_trials is None or self.trained < n_trials)

    def _ask(self) -> None:
        stuck = len(self._recent) == self.rhythm.size and all(t.original for t in self._recent)
        if stuck and not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            params = unseen_configuration(
                self.distributions, self._originals.keys(), self.seed, self._n_asked
            )
            if params is None:
                self._n_configurations = self.trained  # two that were counted are equal
                return
            self.study.enqueue_trial(params)
        self._add(ask(self.study, self.distributions, self.seed, len(self._history)))

    def _add(self, trial: StudyTrial) -> None:
        """Add a trial that has been asked, and queue it unless its outcome is known."""
        self._n_asked += 1
        self._recent.append(trial)
        if not trial.told:
            self._untold[trial.number] = trial
        original = self._originals.setdefault(configuration_key(trial.params), trial)
        repeat_of = None
        if self.distinct and original is not trial:
            trial.original, repeat_of = original, original.number
            original.repeats.append(trial)
            if REPEAT_ATTR not in trial.handle.user_attrs:
                trial.handle.set_user_attr(REPEAT_ATTR, repeat_of)
        else:
            self.trained += 1
        self.observer.asked(Asked(trial.key, repeat_of, trial.params, trial.seed))
        if trial.original is None and trial.outcome is None:
            self._queue.append(trial)
        elif trial.original is None and trial.outcome is not None:
            self.observer.finished(trial.key, trial.outcome, earlier=True)

    def _submit_all(self) -> None:
        """Submit queued trials, longest first, so that no worker waits long at the end."""
        queued, self._queue = self._queue, []
        groups = [(trial,) for trial in queued] if self.grouping is None else self._groups(queued)
        jobs = [(group, [self.make_job(trial.handle) for trial in group]) for group in groups]
        for group, each in sorted(jobs, key=lambda pair: -sum(map(_cost_of, pair[1]))):
            for trial, job in zip(group, each, strict=True):
                if trial.outcome is None:
                    self.observer.dispatched(trial.key, _cost_of(job))
            self._submit(group, each)

    def _groups(self, queued: Sequence[StudyTrial]) -> list[tuple[StudyTrial, ...]]:
        """Return the groups of queued trials; with those of their groups that are recorded."""
        assert self.grouping is not None
        make_job: Callable[[optuna.Trial], Any] = self.make_job
        found: list[tuple[StudyTrial, ...]] = []
        for generation in dict.fromkeys(trial.number // self.rhythm.size for trial in queued):
            of_it = [t for n, t in self._untold.items() if n // self.rhythm.size == generation]
            trained = [trial for trial in of_it if trial.original is None]
            found += map(tuple, self.grouping.of(trained, make_job))
        return [attempt for group in found for attempt in self._attempts(group)]

    def _attempts(self, group: tuple[StudyTrial, ...]) -> list[tuple[StudyTrial, ...]]:
        """Return a group as it is trained next: whole, or apart if a retry is its last.

        A member that kills its worker then ends nobody's training but its own.
        """
        if len(group) == 1 or max(len(t.lost) for t in group) < max(1, self.limits.retries):
            return [group]
        alone: list[tuple[StudyTrial, ...]] = [(t,) for t in group if t.outcome is None]
        write_groups(alone)
        return alone

    def _submit(self, group: tuple[StudyTrial, ...], jobs: Sequence[TrialJob]) -> None:
        for trial, job in zip(group, jobs, strict=True):
            trial.start(job, group)
            self._running[job.key] = trial
        trained = [job for job in jobs if isinstance(job, TrainJob)]
        self.executor.submit(group_job(trained) if trained else jobs[0])

    def _handle_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._handle(event)

    def _handle(self, event: Event) -> None:
        trial = self._running[event.key]
        if isinstance(event, Reported):
            self._handle_epoch(trial, event)
            return
        del self._running[event.key]
        if trial.outcome is not None:
            pass  # it was recorded before, and trained again with its group alone
        elif isinstance(event, Finished):
            self._write_outcome(event.key, trial, event.outcome)
        elif isinstance(event, Lost):
            self._handle_loss(trial, event)
        if any(each.outcome is None for each in trial.together):
            self._run_again(trial.together)

    def _handle_epoch(self, trial: StudyTrial, event: Reported) -> None:
        if (known := trial.outcome) is not None:  # it is trained again with its group
            ends = (
                known.state is OutcomeState.PRUNED and len(known.history) <= event.epoch.epoch + 1
            )
            self.executor.answer(event.key, not ends)
            return
        if not trial.epochs:
            self.observer.began(trial.key, event.epoch.time - event.trained_s)
        trial.epochs.append(event.epoch)
        self.observer.epoch(trial.key, event.epoch)
        assert trial.job is not None
        if trial.job.can_be_pruned:
            self.executor.answer(event.key, not self._should_prune(trial))

    def _handle_loss(self, trial: StudyTrial, event: Lost) -> None:
        trial.lost.append(event.reason)
        trial.handle.set_user_attr(LOST_ATTR, trial.lost)
        # Which member has lost a group is not known, so none of them fails with it.
        if len(trial.together) == 1 and len(trial.lost) > self.limits.retries:
            reason = f"lost {len(trial.lost)} times: {event.reason}"
            self._write_outcome(event.key, trial, Outcome(OutcomeState.FAILED, reason=reason))
        else:
            self.observer.lost(trial.key, event.reason)

    def _run_again(self, group: tuple[StudyTrial, ...]) -> None:
        """Submit trials again that were lost or handed back, once none of their group runs."""
        jobs = [trial.job for trial in group if trial.job is not None]
        if any(job.key in self._running for job in jobs):
            return
        if self.stop.is_set() or self.limits.out_of_time():  # the next run trains them
            return
        of_trial = dict(zip(group, jobs, strict=True))
        for attempt in self._attempts(group):
            self._submit(attempt, [of_trial[trial] for trial in attempt])

    def _write_outcome(self, key: str, trial: StudyTrial, outcome: Outcome) -> None:
        if not outcome.history:  # the worker died, or was ended
            outcome = dataclasses.replace(outcome, history=tuple(trial.epochs))
        storage, trial_id = self.study._storage, trial.handle._trial_id  # a Trial keeps a copy
        storage.set_trial_user_attr(trial_id, OUTCOME_ATTR, outcome.to_json())
        trial.outcome = outcome
        if outcome.weights is not None:
            self.weights[key] = outcome.weights
        self.observer.finished(trial.key, outcome)

    def _should_prune(self, trial: StudyTrial) -> bool:
        n_noted, n_seen = len(trial.rungs), self._n_seen(trial)
        if trial.evidence is None or trial.evidence.n_seen != n_seen:
            seen = self._history.evidence(n_seen)
            trial.evidence = Evidence(self.study, n_seen, *seen, n_folds=self.n_folds)
        prune = should_prune(
            self.pruner,
            trial.evidence,
            trial.number,
            trial.params,
            self.distributions,
            trial.epochs,
            trial.rungs,
        )
        for key, value in list(trial.rungs.items())[n_noted:]:
            self.study._storage.set_trial_system_attr(trial.handle._trial_id, key, value)
        return prune

    def _n_seen(self, trial: StudyTrial) -> int:
        """Return the number of told trials that pruning compares this one with."""
        return trial.asked_after

    def _tell(self, trial: StudyTrial) -> None:
        outcome = trial.recorded
        assert outcome is not None
        # A duplicate needs only the last value, with which a pruned trial is ranked.
        values = (
            trial.original.last
            if trial.original
            else intermediate_values(outcome.history, self.n_folds)
        )
        told = tell(self.study, trial.handle, outcome, values, trial.reported, self.second)
        self._history.add(told)
        del self._untold[trial.number]
        trial.end(values)


class AsynchronousCoordinator(Coordinator):
    """Tells a trial when it ends, and asks for one when a worker is free.

    The trials depend on timing: on which trial ends first. Finished trials survive an
    interruption as they do otherwise.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.on_demand = True
        self._due: list[StudyTrial] = []  # recorded, and not told

    def _add(self, trial: StudyTrial) -> None:
        super()._add(trial)
        if not trial.told and trial.recorded:
            self._due.append(trial)

    def _write_outcome(self, key: str, trial: StudyTrial, outcome: Outcome) -> None:
        super()._write_outcome(key, trial, outcome)
        self._due += [trial, *trial.repeats]

    def _advance(self) -> None:
        while True:
            due, self._due = sorted(self._due, key=lambda trial: trial.number), []
            for trial in due:
                self._tell(trial)
            if not self._has_room() or not self._wants_more():
                return
            if self._stagnates(len(self._history)):
                return
            self._ask()

    def _n_seen(self, trial: StudyTrial) -> int:
        return len(self._history)


def _cost_of(job: TrialJob) -> float:
    """Return how expensive a job is; all external ones count alike, and stay in order."""
    return cost(job) if isinstance(job, TrainJob) else 0.0
