"""Worker pool of executors: the queue, the assignment of jobs to workers, time limits."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

from tuner.errors import RunError
from tuner.executors.base import Died, Event, Finished, Lost, Message, Ready, Reported, Started
from tuner.jobs import Job, TrainJob, timed_out

__all__ = ["PooledWorker", "WorkerPool"]


class PooledWorker(ABC):
    """The executor's end of a worker, which does one job at a time.

    Sending never fails and never waits: the death of a worker is reported as `Died`.
    """

    def __init__(self, *, ready: bool, start_limit_s: float = math.inf) -> None:
        """Begin with a worker that is starting, or that takes jobs already.

        Args:
            ready: whether it takes jobs already.
            start_limit_s: after which a worker that is not ready counts as one that cannot start.
        """
        self.ready = ready
        self.start_limit_s = start_limit_s
        self._began = time.monotonic()
        self.job: Job | None = None
        self.waits = False  # its job, for an answer
        self._trained_s = 0.0  # what its job had trained when it last said so
        self._since: float | None = None  # when it said so; None while it does not train

    @abstractmethod
    def send_job(self, job: Job) -> None:
        """Have the worker begin a job."""

    @abstractmethod
    def send_answer(self, go_on: bool) -> None:
        """Tell the job that waits whether to train on."""

    @abstractmethod
    def end(self) -> None:
        """Kill the worker."""

    def begin(self, job: Job) -> None:
        """Hand a job to a worker that has none."""
        self.job, self.waits, self._since = job, False, None
        self.send_job(job)

    def answer(self, go_on: bool) -> None:
        """Answer the job that waits."""
        self.waits, self._since = False, time.monotonic()
        self.send_answer(go_on)

    def trains(self, trained_s: float) -> None:
        """Note that the job trains, and for how long it had by now."""
        self._trained_s, self._since = trained_s, time.monotonic()

    def pauses(self, trained_s: float) -> None:
        """Note that the job waits for an answer, and for how long it had trained by then."""
        self.waits, self._trained_s, self._since = True, trained_s, None

    def left_s(self) -> float:
        """Return how many seconds the worker may start or its job train on; inf for no limit."""
        if not self.ready:
            return self.start_limit_s - (time.monotonic() - self._began)
        limit = self.job.timeout_s if isinstance(self.job, TrainJob) else None
        if limit is None or self._since is None:
            return math.inf
        return limit - self._trained_s - (time.monotonic() - self._since)


W = TypeVar("W", bound=PooledWorker)


class WorkerPool(ABC, Generic[W]):
    """An executor whose jobs run in workers that start when there are jobs for them.

    A worker that dies loses its job alone; another takes its place when one is needed. A job
    belongs to no worker before that is ready, so none waits for one that never comes up.
    """

    def __init__(self, n_workers: int) -> None:
        """Start no worker yet.

        Raises:
            ValueError: `n_workers` is below 1.
        """
        if n_workers < 1:
            raise ValueError(f"n_workers must be at least 1, got {n_workers}")
        self.n_workers = n_workers
        self._queue: deque[Job] = deque()
        self._workers: list[W] = []
        self._failed_starts = 0  # since the last worker that became ready

    @abstractmethod
    def _start_worker(self) -> W:
        """Start a worker, and return without waiting for it."""

    @abstractmethod
    def _listen(self, timeout_s: float) -> list[tuple[W, Message]]:
        """Return messages of workers, waiting up to `timeout_s` for the first."""

    def submit(self, job: Job) -> None:
        """Queue a job, and hand it to a worker if one is free."""
        self._queue.append(job)
        self._assign()

    def poll(self, timeout_s: float) -> list[Event]:
        """Return the events of all workers, waiting up to `timeout_s` for something to happen.

        Raises:
            RunError: workers cannot be started any more.
        """
        self._assign()
        next_limit_s = max(0.0, min((w.left_s() for w in self._workers), default=timeout_s))
        events: list[Event] = []
        for worker, message in self._listen(min(timeout_s, next_limit_s)):
            if worker in self._workers:  # or it has died, and that is known already
                events += self._take(worker, message)
        for worker in [w for w in self._workers if w.left_s() <= 0]:
            self._remove(worker)
            if worker.ready:
                assert isinstance(worker.job, TrainJob)
                events.append(Finished(worker.job.key, timed_out(worker.job)))
            else:
                self._count_failed_start(f"it was not ready after {worker.start_limit_s:g} s")
        self._assign()
        return events

    def answer(self, key: str, go_on: bool) -> None:
        """Tell a waiting job whether to train on; a worker that has died meanwhile is no error."""
        for worker in self._workers:
            if worker.waits and worker.job is not None and worker.job.key == key:
                worker.answer(go_on)

    def withdraw(self) -> list[str]:
        """Drop the jobs that no worker has begun."""
        keys = [job.key for job in self._queue]
        self._queue.clear()
        return keys

    def close(self) -> None:
        """End the workers: they hold nothing that is not in the journal or to be made again."""
        self._queue.clear()
        for worker in list(self._workers):
            self._remove(worker)

    def _assign(self) -> None:
        """Hand jobs to free workers, and start workers for those that are left."""
        while self._queue:
            free = next((w for w in self._workers if w.ready and w.job is None), None)
            if free is not None:
                free.begin(self._queue.popleft())
                continue
            n_starting = sum(not w.ready for w in self._workers)
            if n_starting >= len(self._queue) or len(self._workers) >= self.n_workers:
                return
            self._workers.append(self._start_worker())

    def _take(self, worker: W, message: Message) -> list[Event]:
        match message:
            case Ready():
                worker.ready, self._failed_starts = True, 0
            case Started():
                worker.trains(0.0)
            case Reported():
                if isinstance(worker.job, TrainJob) and worker.job.can_be_pruned:
                    worker.pauses(message.trained_s)
                else:
                    worker.trains(message.trained_s)
                return [message]
            case Finished():
                worker.job = None
                return [message]
            case Died():
                self._remove(worker)
                if worker.job is not None:
                    return [Lost(worker.job.key, message.reason)]
                if not worker.ready:
                    self._count_failed_start(message.reason)
        return []

    def _count_failed_start(self, reason: str) -> None:
        """Give up where no worker starts: one may die as it starts, or a node with many."""
        self._failed_starts += 1
        if self._failed_starts > 2 * self.n_workers:
            rule = f"no worker can be started: {reason}"
            raise RunError(rule, remedy="the same command goes on when one can be")

    def _remove(self, worker: W) -> None:
        self._workers.remove(worker)
        worker.end()
