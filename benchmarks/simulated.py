"""Recorded training in place of training, for studying how strategies search.

A landscape holds what training came to, configuration by configuration; the simulated executor
answers jobs from it under a clock of its own that runs as fast as it is asked to.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.executors.base import Event, Finished, Reported
from tuner.jobs import Epoch, Job, Outcome, OutcomeState, TrainJob, timed_out
from tuner.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Landscape", "Recording", "SimulatedExecutor"]

_Key = tuple[object, ...]


@dataclass(frozen=True)
class Recording:
    """One training as it was recorded."""

    curve: tuple[float, ...]  # the metric after every epoch
    seconds: float  # for all of them


class Landscape:
    """Every configuration of a finite space, with recordings of its training on some seeds.

    Args:
        names: the hyperparameters that make a configuration.
        rows: their values and the recording of one training, for every training; the
            recordings of a configuration are told apart by their order.
    """

    def __init__(
        self, names: Iterable[str], rows: Iterable[tuple[Mapping[str, Any], Recording]]
    ) -> None:
        self.names = tuple(names)
        recordings: dict[_Key, list[Recording]] = {}
        for values, recording in rows:
            recordings.setdefault(self._key(values), []).append(recording)
        self._recordings = {key: tuple(found) for key, found in recordings.items()}

    @classmethod
    def load(cls, path: str | Path) -> Landscape:
        """Read a Parquet file that holds what `from_table` takes."""
        import pandas as pd

        return cls.from_table(pd.read_parquet(path))

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Landscape:
        """Make a landscape of a table with a row for each training.

        Its columns are `seed`, `curve` (the metric after every epoch), `seconds`, and one for
        every hyperparameter.
        """
        names = [name for name in table.columns if name not in ("seed", "curve", "seconds")]
        table = table.sort_values([*names, "seed"])
        values = table[names].itertuples(index=False, name=None)
        configurations = (dict(zip(names, row, strict=True)) for row in values)
        recordings = (
            Recording(tuple(float(value) for value in curve), seconds)
            for curve, seconds in zip(table["curve"], table["seconds"].tolist(), strict=True)
        )
        return cls(names, zip(configurations, recordings, strict=True))

    def __len__(self) -> int:
        """Return the number of configurations."""
        return len(self._recordings)

    def recordings(self, hyperparameters: Mapping[str, Any]) -> tuple[Recording, ...]:
        """Return what was recorded of a configuration, in the order of the recorded seeds.

        Raises:
            KeyError: nothing was; the message names the configuration.
        """
        found = self._recordings.get(self._key(hyperparameters))
        if found is None:
            got = ", ".join(f"{name}={hyperparameters.get(name)!r}" for name in self.names)
            raise KeyError(f"{got} is not recorded in this landscape")
        return found

    def all_recordings(self) -> Iterable[tuple[Recording, ...]]:
        """Return the recordings of every configuration."""
        return self._recordings.values()

    def _key(self, values: Mapping[str, Any]) -> _Key:
        """Return what is equal for equal configurations; 0.3 and 0.1 + 0.2 are equal."""
        found = (values.get(name) for name in self.names)
        return tuple(float(f"{v:.12g}") if isinstance(v, float) else v for v in found)


@dataclass
class _Run:
    """A job in progress, with all that it will report."""

    job: TrainJob
    recording: Recording
    began: float
    n_epochs: int
    history: list[Epoch] = field(default_factory=list)

    @property
    def seconds_per_epoch(self) -> float:
        return self.recording.seconds / len(self.recording.curve)

    @property
    def trained_s(self) -> float:
        return len(self.history) * self.seconds_per_epoch

    @property
    def left_s(self) -> float:
        """Seconds until it has trained for too long; infinite without a limit."""
        limit = self.job.timeout_s
        return math.inf if limit is None else limit - self.trained_s

    @property
    def is_cut_short(self) -> bool:
        """Whether its next epoch ends after its limit, by more than a sum's rounding."""
        too_long = self.seconds_per_epoch > self.left_s + 1e-9
        return too_long and len(self.history) < self.n_epochs

    def next_epoch(self, now: float) -> Epoch:
        number = len(self.history)
        value = self.recording.curve[number]
        self.history.append(Epoch(number, value, value, value, now))
        return self.history[-1]

    def end(self, state: OutcomeState, now: float) -> Finished:
        best: Epoch | None = None
        if state is OutcomeState.COMPLETE:
            pick = max if METRICS[self.job.metric].maximize else min
            finite = [epoch for epoch in self.history if math.isfinite(epoch.metric)]
            best = pick(finite, key=lambda epoch: epoch.metric, default=None)
        failed = state is OutcomeState.COMPLETE and best is None
        outcome = Outcome(
            OutcomeState.FAILED if failed else state,
            objective=best.metric if best else None,
            best_epoch=best.epoch if best else None,
            history=tuple(self.history),
            reason="no epoch that was recorded has a finite metric" if failed else None,
            seconds=now - self.began,
            finished_at=now,
        )
        return Finished(self.job.key, outcome)

    def time_out(self, now: float) -> Finished:
        outcome = dataclasses.replace(timed_out(self.job), finished_at=now)
        return Finished(self.job.key, outcome)


class SimulatedExecutor:
    """Runs jobs from a landscape in simulated time: nothing trains and nothing waits.

    A job's epochs come in the recorded pace, and that decides in which order the events of
    several workers come. `Job.seed` picks one of the recordings of its configuration. A job may
    train fewer epochs than were recorded; where it may train more, its curve ends where the
    recording does, and early stopping is the recording's. The metric stands for the losses too,
    which are not recorded. Times count from 0, when the executor was made.
    """

    def __init__(self, landscape: Landscape, n_workers: int = 1) -> None:
        """Begin at time 0.

        Raises:
            ValueError: `n_workers` is below 1.
        """
        if n_workers < 1:
            raise ValueError(f"n_workers must be at least 1, got {n_workers}")
        self.n_workers = n_workers
        self.now = 0.0  # simulated seconds
        self._landscape = landscape
        self._queue: deque[Job] = deque()
        self._failed: deque[Finished] = deque()  # jobs that ended as they began
        self._running: dict[str, _Run] = {}
        self._waiting: set[str] = set()  # for an answer
        self._stopping: set[str] = set()
        self._agenda: list[tuple[float, int, str]] = []  # when, which came first, whose
        self._n_planned = 0

    def submit(self, job: Job) -> None:
        """Queue a job, and begin it if a worker is free."""
        self._queue.append(job)
        self._assign()

    def poll(self, timeout_s: float) -> list[Event]:
        """Return the next events, up to the first on which the coordinator may act; at once.

        Where every job in progress waits for an answer there are none.
        """
        self._assign()
        events: list[Event] = []
        while not self._failed and self._agenda:
            self.now, _, key = heapq.heappop(self._agenda)
            run = self._running[key]
            if end := self._end_of(run):
                self._stopping.discard(key)
                del self._running[key]
                events.append(end)
                self._assign()
                return events
            events.append(Reported(key, run.next_epoch(self.now), run.trained_s))
            if run.job.can_be_pruned:
                self._waiting.add(key)
                return events
            self._plan_next(run)
        events += self._failed
        self._failed.clear()
        return events

    def answer(self, key: str, go_on: bool) -> None:
        """Tell a waiting job whether to train on; no time has passed since its report."""
        if key not in self._waiting:
            return
        self._waiting.discard(key)
        if not go_on:
            self._stopping.add(key)
        self._plan_next(self._running[key])

    def withdraw(self) -> list[str]:
        """Drop the jobs that no worker has begun."""
        keys = [job.key for job in self._queue]
        self._queue.clear()
        return keys

    def close(self) -> None:
        """Give up all jobs."""
        for container in (self._queue, self._failed, self._agenda, self._running):
            container.clear()
        self._waiting.clear()
        self._stopping.clear()

    def _assign(self) -> None:
        while self._queue and len(self._running) < self.n_workers:
            job = self._queue.popleft()
            try:
                recording = self._recording_of(job)
            except LookupError as error:
                outcome = Outcome(
                    OutcomeState.FAILED, reason=str(error.args[0]), finished_at=self.now
                )
                self._failed.append(Finished(job.key, outcome))
                continue
            assert isinstance(job, TrainJob)
            n_epochs = min(job.epochs, len(recording.curve))
            run = _Run(job, recording, self.now, n_epochs)
            self._running[job.key] = run
            self._plan_next(run)

    def _recording_of(self, job: Job) -> Recording:
        if not isinstance(job, TrainJob):
            raise LookupError("a landscape records training alone: it cannot forecast")
        recordings = self._landscape.recordings(job.hyperparameters)
        return recordings[job.seed % len(recordings)]

    def _end_of(self, run: _Run) -> Finished | None:
        """Return what becomes of a run now, or None where another epoch has ended."""
        if run.job.key in self._stopping:
            return run.end(OutcomeState.PRUNED, self.now)
        if run.is_cut_short:
            return run.time_out(self.now)
        if len(run.history) == run.n_epochs:
            return run.end(OutcomeState.COMPLETE, self.now)
        return None

    def _plan_next(self, run: _Run) -> None:
        """Put the end of the run's next epoch on the agenda, or its own end."""
        key = run.job.key
        goes_on = len(run.history) < run.n_epochs and key not in self._stopping
        next_s = max(0.0, min(run.seconds_per_epoch, run.left_s))
        when = self.now + (next_s if goes_on else 0.0)
        heapq.heappush(self._agenda, (when, self._n_planned, key))
        self._n_planned += 1
