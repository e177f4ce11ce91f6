"""Progress of a search: counts, the best score, running and waiting trials, the time left."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.coordination.coordinator import Asked, Observer, SearchStart
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.storage import Role, TrialKey
from tuner.metrics import short_name

_AT_MOST = 0.9  # of a running trial counts as done, however long it has run


@dataclass
class InProgress:
    """A trial that was asked for and has not ended."""

    key: TrialKey
    params: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 0.0  # by which it compares with others
    dispatched: float = 0.0  # when, by the clock of the progress
    since: float | None = None  # when its training began, by the same clock; None until known
    epochs: int = 0
    value: float | None = None  # the metric after the newest epoch


@dataclass
class Stage:
    """Counts and pace of a stage: the trials, or the finalists with the default.

    The pace compares the work done with the work left, each trial weighed by its estimated cost.
    The costliest trials of a generation are dispatched first, so an estimate from the number of
    trials would begin far too high. Trials of earlier runs do not count.
    """

    title: str
    total: float  # trials; infinite where only the time limits them
    n_epochs: int  # of a trial, at most
    counts: Counter[OutcomeState] = field(default_factory=Counter)  # earlier runs included
    begun: float | None = None  # when the first trial of this run was asked for
    newest: float | None = None  # when the newest trial ended
    n_dispatched: int = 0
    dispatched_cost: float = 0.0
    n_ended: int = 0  # of those that this run dispatched
    ended_cost: float = 0.0
    ended_epochs: int = 0
    dispatched_since: float | None = None
    paced_since: float | None = None  # when the first epoch ended; a worker's start is left out
    paced_cost: float = 0.0  # of the trial of that epoch

    @property
    def done(self) -> int:
        """Number of ended trials, in this run or earlier."""
        return self.counts.total()

    @property
    def count(self) -> str:
        """Ended trials, and their total if it is known: 3/40."""
        return f"{self.done}" if math.isinf(self.total) else f"{self.done}/{self.total:.0f}"

    def end(self, trial: InProgress) -> None:
        """Add a trial of this run that has ended to the pace."""
        self.n_ended += 1
        self.ended_cost += trial.cost
        self.ended_epochs += trial.epochs
        if self.paced_since is None:  # the trial failed before its first epoch
            self.paced_since = self.dispatched_since

    def seconds_left(
        self, n_left: float, in_progress: Iterable[InProgress], now: float
    ) -> float | None:
        """Estimate the time of `n_left` trials that have not ended; None while unknown."""
        if self.paced_since is None or n_left <= 0 or math.isinf(n_left):
            return None
        mean_epochs = self.ended_epochs / self.n_ended if self.ended_epochs else self.n_epochs
        share = min(1.0, 1 / mean_epochs)  # of a trial is an epoch
        trials = list(in_progress)
        begun = sum(trial.cost * min(_AT_MOST, trial.epochs * share) for trial in trials)
        done = self.ended_cost + begun - self.paced_cost * share
        seconds = now - self.paced_since
        if done <= 0 or seconds <= 0:
            return None
        mean = self.dispatched_cost / self.n_dispatched
        left = sum(trial.cost for trial in trials) - begun + mean * (n_left - len(trials))
        return seconds * left / done


class Progress(Observer):
    """Reduces the events of a search to the state that reporters show.

    It is empty until `on_start`. Reporters in another thread than the coordinator's hold `lock`.

    Args:
        stopping: returns whether no further trial starts.
        clock: returns seconds since any point in time.
        wall: returns seconds since 1970.
    """

    def __init__(
        self,
        *,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.lock = threading.Lock()  # never held while something is written
        self.stopping, self.clock, self._wall = stopping, clock, wall
        self.stages: dict[Role, Stage] = {}
        self._clear()

    def _clear(self) -> None:
        self.best: tuple[float, int] | None = None  # of the trials: score and number
        self.running: dict[TrialKey, InProgress] = {}
        self.waiting: dict[TrialKey, InProgress] = {}  # for a worker
        self._asked: dict[TrialKey, InProgress] = {}  # not dispatched yet
        self._best_rank = (math.inf, math.inf, math.inf)

    def on_start(self, start: SearchStart) -> None:
        """Begin with a study; trials of earlier runs follow as events."""
        record = start.record
        self.begin(record.experiment, start.n_workers, record.seconds, finalists=start.finalists)

    def begin(
        self,
        experiment: Experiment,
        n_workers: int = 1,
        seconds: float = 0.0,
        *,
        finalists: bool = True,
    ) -> None:
        """Begin with a study, also after another run of it.

        Args:
            experiment: the experiment of the search.
            n_workers: number of trials that run at a time. Executors begin them in the order in
                which they were dispatched, and report the time with the first epoch.
            seconds: part of the time budget that earlier runs have used.
            finalists: whether finalists are trained after the trials.
        """
        total = math.inf if experiment.n_trials is None else experiment.n_trials
        settings, n_epochs = experiment.finalists, experiment.budget.epochs * experiment.n_folds
        title = "finalists" if settings.top else "default"
        self._clear()
        self.metric = short_name(experiment.objective.metric)
        self.n_epochs, self._n_workers = n_epochs, n_workers
        self.stages = {
            Role.TRIAL: Stage("trials", total, n_epochs),
            Role.FINALIST: Stage(title, 0, n_epochs),  # the total is known once they are asked for
        }
        limit_s = experiment.budget.timeout  # of the trials, over all runs
        self._until = None if limit_s is None else self.clock() + limit_s - seconds
        most = min(settings.top, total) if finalists else 0
        has_default = settings.baseline and bool(experiment.search_space)
        self._n_finalists = (int(most) + has_default if most else 0) * settings.repeats  # at most
        self._by_loss = experiment.losses_compare
        self._sign = -1 if experiment.objective.direction == "maximize" else 1

    def asked(self, trial: Asked) -> None:
        """Begin a stage with its first trial; a repeat is not trained."""
        with self.lock:
            stage = self.stage(trial.key)
            stage.begun = self.clock() if stage.begun is None else stage.begun
            if trial.repeat_of is None:
                self._asked[trial.key] = InProgress(trial.key, trial.params)
            if trial.key.role is not Role.TRIAL:
                stage.total += 1

    def dispatched(self, key: TrialKey, cost: float) -> None:
        """Queue a trial."""
        with self.lock:
            trial, stage = self._asked.pop(key, None) or InProgress(key), self.stage(key)
            trial.cost, trial.dispatched = cost, self.clock()
            self.waiting[key] = trial
            stage.n_dispatched += 1
            stage.dispatched_cost += cost
            if stage.dispatched_since is None:
                stage.dispatched_since = trial.dispatched
            self._occupy()

    def began(self, key: TrialKey, time: float) -> None:
        """Set when a trial began to train, and count it as running."""
        with self.lock:
            self._began(key, time)

    def epoch(self, key: TrialKey, epoch: Epoch) -> None:
        """Update a running trial; the first epoch of a stage begins its pace."""
        with self.lock:
            trial, stage = self.running.get(key), self.stage(key)
            if trial is None or trial.since is None:
                trial = self._began(key, self._wall())
            if trial is None:
                return
            trial.epochs, trial.value = epoch.epoch + 1, epoch.metric
            if stage.paced_since is None:
                stage.paced_since, stage.paced_cost = self.clock(), trial.cost

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        """Count a trial, also one of an earlier run."""
        with self.lock:
            stage, value = self.stage(key), outcome.objective
            stage.counts[outcome.state] += 1
            stage.newest = self.clock()
            if key.role is Role.TRIAL and value is not None:
                loss = outcome.val_loss(self._sign) if self._by_loss else 0.0
                rank = (self._sign * value, loss, key.number)
                if rank < self._best_rank:
                    self._best_rank, self.best = rank, (value, key.number)
            self._asked.pop(key, None)
            if trial := self._pop(key):
                stage.end(trial)
            self._occupy()

    def lost(self, key: TrialKey, reason: str) -> None:
        """Queue a trial again, behind the others."""
        with self.lock:
            if trial := self._pop(key):
                self.waiting[key] = InProgress(key, trial.params, trial.cost, self.clock())
            self._occupy()

    def stage(self, key: TrialKey) -> Stage:
        """Return the stage to which a trial belongs."""
        return self.stages[Role.TRIAL if key.role is Role.TRIAL else Role.FINALIST]

    def begun_stages(self) -> list[Stage]:
        """Return the stages that have begun, in order."""
        return [stage for stage in self.stages.values() if stage.begun is not None]

    def elapsed(self, stage: Stage) -> float:
        """Return the seconds that a stage of this run has taken, or took."""
        if stage.begun is None:
            return 0.0
        until = self.clock()
        if stage is not self.begun_stages()[-1] or stage.done >= stage.total:
            until = until if stage.newest is None else stage.newest
        return until - stage.begun

    def time_left(self, stage: Stage) -> str:
        """Return the time left of a stage, by the pace of this run and the time budget.

        Empty while it is unknown, and when the stage is over.
        """
        n_left, is_search = stage.total - stage.done, stage is self.stages[Role.TRIAL]
        if self.stopping() or n_left <= 0:
            return ""
        trials = (*self.running.values(), *self.waiting.values())
        in_progress = [trial for trial in trials if self.stage(trial.key) is stage]
        seconds = stage.seconds_left(n_left, in_progress, self.clock())
        text = ""
        if seconds is not None:  # until a trial has ended, each may need every epoch
            text = f"{'' if stage.n_ended else 'up to '}{clock_text(seconds)}"
        if is_search and self._until is not None:
            at_most = self._until - self.clock()
            if at_most <= 0:
                return "the time is up"  # trials in progress still end
            if seconds is None or at_most < seconds:
                text = f"at most {clock_text(at_most)}"
        if not text:
            return ""
        n = self._n_finalists if is_search else 0
        return f"{text} left" + (f", then {n} finalist{'s' * (n != 1)}" if n else "")

    def _began(self, key: TrialKey, time: float) -> InProgress | None:
        if trial := self.waiting.pop(key, None):
            self.running[key] = trial
        if trial := self.running.get(key):
            now = self.clock()
            since = now - (self._wall() - time)
            # The clock of another machine may be wrong.
            trial.since = min(max(since, trial.dispatched), now)
        return trial

    def _pop(self, key: TrialKey) -> InProgress | None:
        return self.running.pop(key, None) or self.waiting.pop(key, None)

    def _occupy(self) -> None:
        """Count the trials that have waited longest as begun by free workers."""
        while len(self.running) < self._n_workers and self.waiting and not self.stopping():
            key = next(iter(self.waiting))
            self.running[key] = self.waiting.pop(key)


def clock_text(seconds: float) -> str:
    """Return a duration as 0:05 or 1:00:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
