"""Progress of a search: what ended, what runs, what waits, how long the rest takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType, TracebackType
from typing import Any, Self

from tuner.coordination.events import Asked, Observer
from tuner.experiment import Experiment
from tuner.experiment.metrics import short_name
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.records import StudyRecord
from tuner.journal.storage import Role, training_name

__all__ = [
    "NO_PARAMS",
    "STAGES",
    "Beginning",
    "InProgress",
    "NothingButFailures",
    "Pace",
    "Standing",
    "Watcher",
    "clock_text",
]


@dataclass(frozen=True)
class Beginning:
    """What is known when all has been checked and a search begins, or goes on."""

    record: StudyRecord
    journal: str  # where it is, without a password
    n_workers: int
    executor: str
    warnings: tuple[str, ...] = ()  # about what was asked for; nothing is wrong


class Watcher(Observer):
    """Shows a search from its beginning to its result. This one shows nothing.

    All between `__enter__` and `__exit__` but the result and the end, which come after them.
    """

    def __enter__(self) -> Self:
        """Begin to draw, where there is something to draw."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def begun(self, beginning: Beginning) -> None:
        """The input is good, and the study is open: called once, before anything is trained."""

    def result(self, record: StudyRecord, commands: list[tuple[str, str]]) -> None:
        """The search came to its end; `commands` are what to type next, each with a remark."""

    def ended(self, state: str, reason: str | None, exit_status: int) -> None:
        """Called last of all; `state` is done, interrupted or failed.

        The reason is None where it is done. Else the entry point prints it, with any watcher.
        """


_AT_MOST = 0.9  # of a trial is done while it runs: one that outlives the mean is nearly done


class Pace:
    """Compares the work done with the work left, each trial weighed by its estimated cost.

    The dearest trials of a generation are begun first: an estimate from the number of trials
    would begin far too high. What an earlier run has done counts for neither.

    Args:
        n_epochs: that a trial has at most.
        clock: seconds, from any beginning.
    """

    def __init__(self, n_epochs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._n_epochs, self._clock = n_epochs, clock
        self._in_progress: dict[int, tuple[float, int]] = {}  # cost and epochs done, by trial
        self._dispatched, self._dispatched_cost = 0, 0.0
        self._ended, self._ended_cost, self._ended_epochs = 0, 0.0, 0
        self._handed_out_since: float | None = None
        self._since: float | None = None
        self._cost_before = 0.0  # of the epoch that had ended when the clock began

    def dispatched(self, number: int, cost: float) -> None:
        """Note that a trial was handed out."""
        if self._handed_out_since is None:
            self._handed_out_since = self._clock()
        self._in_progress[number] = (cost, 0)
        self._dispatched += 1
        self._dispatched_cost += cost

    def epoch(self, number: int) -> None:
        """Note that a trial ended an epoch; the first of all begins the clock."""
        if number not in self._in_progress:
            return
        cost, epochs = self._in_progress[number]
        self._in_progress[number] = (cost, epochs + 1)
        if self._since is None:  # a worker's start is no part of the pace
            self._since, self._cost_before = self._clock(), cost

    def lost(self, number: int) -> None:
        """Note that a trial begins again."""
        if number in self._in_progress:
            self._in_progress[number] = (self._in_progress[number][0], 0)

    def finished(self, number: int) -> None:
        """Note that a trial ended; one that this run did not hand out does not count."""
        if number not in self._in_progress:
            return
        cost, epochs = self._in_progress.pop(number)
        self._ended += 1
        self._ended_cost += cost
        self._ended_epochs += epochs
        if self._since is None:  # it failed before its first epoch, say
            self._since = self._handed_out_since

    @property
    def certain(self) -> bool:
        """Whether a trial has ended: till then none is known to end before its last epoch."""
        return self._ended > 0

    def seconds_left(self, n_trials: int) -> float | None:
        """Estimate how long `n_trials` take that have not ended; None while nothing is known."""
        if self._since is None or n_trials <= 0:
            return None
        share = min(1.0, 1 / self._epochs_of_a_trial())
        begun = sum(
            cost * min(_AT_MOST, epochs * share) for cost, epochs in self._in_progress.values()
        )
        done = self._ended_cost + begun - self._cost_before * share
        seconds = self._clock() - self._since
        if done <= 0 or seconds <= 0:
            return None
        handed_out = sum(cost for cost, _ in self._in_progress.values())
        mean = self._dispatched_cost / self._dispatched
        left = handed_out - begun + mean * (n_trials - len(self._in_progress))
        return seconds * left / done

    def _epochs_of_a_trial(self) -> float:
        """Return the mean over the trials that have ended: most stop before their last epoch."""
        if self._ended_epochs == 0:
            return self._n_epochs
        return self._ended_epochs / self._ended


STAGES = {Role.TRIAL: Role.TRIAL, Role.FINALIST: Role.FINALIST, Role.BASELINE: Role.FINALIST}

"""Which part of a run a training belongs to: the default is trained among the finalists."""

NO_PARAMS: Mapping[str, Any] = MappingProxyType({})


@dataclass
class InProgress:
    """A trial that was handed to the executor."""

    role: Role
    number: int
    name: str  # for people
    params: Mapping[str, Any]
    handed_out: float = 0.0  # when, by the standing's clock
    since: float | None = None  # when it began to train, by the same; not known at first
    epochs: int = 0
    value: float | None = None  # the metric after the newest epoch


class Standing(Observer):
    """Keeps count for whoever shows a search.

    Args:
        experiment: what is searched.
        n_workers: how many trials run at a time. An executor begins them in the order in which
            they were handed out, and says when with the first epoch.
        stopping: says whether no further trial is begun.
        clock: seconds, from any beginning.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        experiment: Experiment,
        n_workers: int = 1,
        *,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.metric = short_name(experiment.objective.metric)
        self.n_epochs = experiment.budget.epochs * experiment.n_folds
        self.stopping, self.clock, self._wall = stopping, clock, wall
        self.totals: dict[Role, float] = {
            Role.TRIAL: math.inf if experiment.n_trials is None else experiment.n_trials,
            Role.FINALIST: 0,  # known once they are asked for, which is all at once
        }
        self.titles = {
            Role.TRIAL: "trials",
            Role.FINALIST: "finalists" if experiment.finalists.top else "default",
        }
        self.counts = {role: dict.fromkeys(OutcomeState, 0) for role in Role}
        self.best: tuple[float, int] | None = None  # of the trials: the score, and whose
        self.repeats = 0
        self.running: dict[tuple[Role, int], InProgress] = {}
        self.waiting: dict[tuple[Role, int], InProgress] = {}  # for a worker
        self._n_workers = n_workers
        self._limit_s = experiment.budget.timeout  # of the trials, over all runs
        self._until = None if self._limit_s is None else clock() + self._limit_s
        most = min(experiment.finalists.top, self.totals[Role.TRIAL])
        has_default = experiment.finalists.baseline and bool(experiment.search_space)
        n_retrained = int(most) + has_default if most else 0
        self._n_finalists = n_retrained * experiment.finalists.repeats  # at most
        self._by_loss = experiment.losses_compare
        self._sign = -1 if experiment.objective.direction == "maximize" else 1
        self._best_rank: tuple[float, float, float] = (math.inf, math.inf, math.inf)
        self._asked: dict[tuple[Role, int], InProgress] = {}  # until it is handed out
        self._paces = {role: Pace(self.n_epochs, clock) for role in Role}
        self._begun: dict[Role, float] = {}
        self._newest: dict[Role, float] = {}  # when the newest trial of a stage ended

    def used(self, seconds: float) -> None:
        """Note how long earlier runs took; this one begins now."""
        if self._limit_s is not None:
            self._until = self.clock() + self._limit_s - seconds

    def asked(self, trial: Asked) -> None:
        """Note that a stage goes on; a repeat is not trained."""
        stage = STAGES[trial.role]
        self._begun.setdefault(stage, self.clock())
        if trial.repeat_of is not None:
            self.repeats += 1
        else:
            key = trial.role, trial.number
            self._asked[key] = InProgress(*key, trial.name, trial.params)
        if stage is Role.FINALIST:
            self.totals[stage] += 1

    def dispatched(self, role: Role, number: int, cost: float) -> None:
        """Queue a trial."""
        unknown = InProgress(role, number, training_name(role, number), NO_PARAMS)
        trial = self._asked.pop((role, number), unknown)
        self.waiting[role, number] = replace(trial, handed_out=self.clock())
        self._paces[STAGES[role]].dispatched(number, cost)
        self._occupy()

    def began(self, role: Role, number: int, time: float) -> None:
        """Note when a trial began to train, `time` seconds since 1970: it surely runs."""
        if trial := self.waiting.pop((role, number), None):
            self._occupied(trial)
        if trial := self.running.get((role, number)):
            now = self.clock()
            since = now - (self._wall() - time)
            trial.since = min(max(since, trial.handed_out), now)  # another machine's clock is wrong

    def epoch(self, role: Role, number: int, epoch: Epoch) -> None:
        """Note what a trial has come to."""
        trial = self.running.get((role, number))
        if trial is None or trial.since is None:
            self.began(role, number, self._wall())
            trial = self.running.get((role, number))
        if trial is not None:
            trial.epochs, trial.value = epoch.epoch + 1, epoch.metric
        self._paces[STAGES[role]].epoch(number)

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """Count a trial, also one that an earlier run had finished."""
        stage = STAGES[role]
        self.counts[stage][outcome.state] += 1
        self._newest[stage] = self.clock()
        value = outcome.objective
        if role is Role.TRIAL and value is not None:
            loss = outcome.val_loss(self._sign) if self._by_loss else 0.0
            rank = (self._sign * value, loss, number)
            if rank < self._best_rank:
                self._best_rank, self.best = rank, (value, number)
        self._asked.pop((role, number), None)
        self._take_out(role, number)
        self._paces[stage].finished(number)
        self._occupy()

    def lost(self, role: Role, number: int, reason: str) -> None:
        """Queue a trial again, behind the others."""
        if trial := self._take_out(role, number):
            again = InProgress(role, number, trial.name, trial.params, self.clock())
            self.waiting[role, number] = again
        self._paces[STAGES[role]].lost(number)
        self._occupy()

    def in_progress(self, role: Role, number: int) -> bool:
        """Whether this run has handed a trial out, and it has not ended."""
        return (role, number) in self.running or (role, number) in self.waiting

    def name(self, role: Role, number: int) -> str:
        """Return what a trial in progress is called."""
        trial = self.running.get((role, number)) or self.waiting.get((role, number))
        return trial.name if trial else training_name(role, number)

    def done(self, role: Role) -> int:
        """Return how many trials have ended, earlier runs included."""
        return sum(self.counts[STAGES[role]].values())

    @property
    def stages(self) -> list[Role]:
        """The stages that have begun, in order."""
        return list(self._begun)

    def count(self, role: Role) -> str:
        """Write how many trials of a stage have ended, and of how many where that is known."""
        total = self.totals[STAGES[role]]
        return f"{self.done(role)}" if math.isinf(total) else f"{self.done(role)}/{total:.0f}"

    def elapsed(self, role: Role) -> float:
        """Return the seconds that a stage of this run has taken, or took."""
        if role not in self._begun:
            return 0.0
        until = self.clock()
        if role is not self.stages[-1] or self.done(role) >= self.totals[role]:
            until = self._newest.get(role, until)
        return until - self._begun[role]

    def time_left(self, role: Role) -> str:
        """Say how long a stage goes on, by the pace of this run and the budget's time.

        Empty while it is unknown, and when the stage is over.
        """
        stage = STAGES[role]
        pace, n_left = self._paces[stage], self.totals[stage] - self.done(stage)
        if self.stopping() or n_left <= 0:
            return ""
        seconds = None if math.isinf(n_left) else pace.seconds_left(int(n_left))
        text = "" if seconds is None else f"{'' if pace.certain else 'up to '}{clock_text(seconds)}"
        if role is Role.TRIAL and self._until is not None:
            at_most = self._until - self.clock()
            if at_most <= 0:
                return "the time is up"  # those in progress end
            if seconds is None or at_most < seconds:
                text = f"at most {clock_text(at_most)}"
        if not text:
            return ""
        then = role is Role.TRIAL and self._n_finalists > 0
        return f"{text} left{f', then {_finalists(self._n_finalists)}' if then else ''}"

    def _take_out(self, role: Role, number: int) -> InProgress | None:
        waiting = self.waiting.pop((role, number), None)
        return self.running.pop((role, number), None) or waiting

    def _occupy(self) -> None:
        """Take it that free workers begin the trials that have waited longest."""
        while len(self.running) < self._n_workers and self.waiting and not self.stopping():
            self._occupied(self.waiting.pop(next(iter(self.waiting))))

    def _occupied(self, trial: InProgress) -> None:
        self.running[trial.role, trial.number] = trial


def _finalists(count: int) -> str:
    return "1 finalist" if count == 1 else f"{count} finalists"


def clock_text(seconds: float) -> str:
    """Write a duration as 0:05 or 1:00:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


_MANY = 3


class NothingButFailures(Observer):
    """Says once that every trial so far has failed, when this run has seen a few do so."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._in_progress: set[int] = set()  # trials that this run has handed out
        self._failures = 0
        self._hope = False  # some trial did not fail, or it has been said

    def dispatched(self, role: Role, number: int, cost: float) -> None:
        """Note that a trial is of this run."""
        if role is Role.TRIAL:
            self._in_progress.add(number)

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """Count a failure of this run; what an earlier run has brought to an end is told first."""
        here = number in self._in_progress
        if role is not Role.TRIAL:
            return
        self._in_progress.discard(number)
        if outcome.state is not OutcomeState.FAILED:
            self._hope = True
        elif here:
            self._failures += 1
        if self._failures >= _MANY and not self._hope:
            self._hope = True
            self._note(f"every trial so far has failed: {outcome.reason}; Ctrl-C stops")
