"""Executors: their interface, the pool of workers that they share, and jobs outside of a study."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import Generic, Protocol, TypeVar

from tuner.errors import Interrupted, RunError
from tuner.jobs import (
    Epoch,
    GroupJob,
    Job,
    Outcome,
    OutcomeState,
    TrainJob,
    members_of,
    timed_out,
)


@dataclass(frozen=True)
class Reported:
    """A job ended an epoch. Where the job can be pruned, it now waits for `answer`."""

    key: str
    epoch: Epoch
    trained_s: float = 0.0  # seconds spent on the job so far, without its waits for answers


@dataclass(frozen=True)
class Finished:
    """A job ended, successfully or not."""

    key: str
    outcome: Outcome


@dataclass(frozen=True)
class Lost:
    """A job was lost because its worker died; the job itself is not at fault."""

    key: str
    reason: str


@dataclass(frozen=True)
class Returned:
    """A job was handed back before its end, by a worker that stops; it does not count as lost."""

    key: str


Event = Reported | Finished | Lost | Returned


class Executor(Protocol):
    """Runs jobs in the order in which they were submitted, some at a time.

    All methods are called from one thread. An executor never runs a lost job again by itself.
    A job that trains for longer than its `timeout_s` is ended with its worker, and finishes with
    the outcome of `tuner.jobs.timed_out`; waiting for a worker or an answer does not count.

    A `GroupJob` is trained by one worker. Its events, answers and withdrawal are of its members,
    under their own keys, and all members that have not ended are lost with its worker.
    """

    @property
    def n_workers(self) -> int:
        """Workers at a time, at least 1."""

    @property
    def has_gpus(self) -> bool:
        """Whether its workers train on GPUs unless a job says otherwise."""

    def submit(self, job: Job) -> None:
        """Queue a job; returns at once. Keys must differ among the jobs in progress."""

    def poll(self, timeout_s: float) -> list[Event]:
        """Return the events since the last call, waiting up to `timeout_s` for the first."""

    def answer(self, key: str, go_on: bool) -> None:
        """Answer a job that waits after a report: whether to train on."""

    def withdraw(self) -> list[str]:
        """Drop the jobs that no worker has begun, and return their keys."""

    def close(self) -> None:
        """Stop all workers now; jobs in progress are given up."""


@dataclass(frozen=True)
class Ready:
    """A worker has started and can begin a job."""

    version: str  # of tuner on the worker's machine


@dataclass(frozen=True)
class Started:
    """A worker begins to train a job, which it has received and unpacked."""

    key: str


@dataclass(frozen=True)
class Died:
    """The worker died; sent on its behalf by the executor."""

    reason: str


@dataclass(frozen=True)
class OfGroup:
    """What several members of a group say at once; reports are in the order of the members."""

    said: tuple[Reported | Finished, ...]


Message = Ready | Started | Reported | Finished | OfGroup | Died

RunJob = Callable[[Job, Callable[[Epoch], bool]], Outcome]
"""Does a job; calls back after every epoch and stops if the answer is False.

An exception means that the worker is broken: it ends, and its job is lost.
"""

RunGroup = Callable[
    [Sequence[TrainJob], Callable[[Sequence[tuple[str, Epoch]]], Sequence[bool]]], Sequence[Outcome]
]
"""Trains the jobs of a group; returns their outcomes in order.

It calls back with the epochs that members have ended, by key, and stops the members for which the
answer is False. An exception means the same as for `RunJob`.
"""


@dataclass(frozen=True)
class Work:
    """What a worker can do."""

    run_job: RunJob
    run_group: RunGroup


def serve(
    job: Job, work: Work, send: Callable[[Message], None], receive: Callable[[], Sequence[bool]]
) -> None:
    """Do a job in a worker, from its `Started` to its `Finished`.

    Args:
        job: the job.
        work: does it.
        send: sends a message to the executor.
        receive: waits for the answers to a report, one for each epoch in it; called only if a job
            can be pruned.
    """
    send(Started(job.key))
    pruned = {each.key for each in members_of(job) if can_be_pruned(each)}
    began, waited_s = time.monotonic(), 0.0

    def report(epochs: Sequence[tuple[str, Epoch]]) -> list[bool]:
        nonlocal waited_s
        now = time.monotonic()
        reports = tuple(Reported(key, epoch, now - began - waited_s) for key, epoch in epochs)
        send(OfGroup(reports) if isinstance(job, GroupJob) else reports[0])
        if not any(key in pruned for key, _ in epochs):
            return [True] * len(epochs)
        answers = iter(receive())
        waited_s += time.monotonic() - now
        return [key not in pruned or next(answers) for key, _ in epochs]

    if isinstance(job, GroupJob):
        ended = zip(job.jobs, work.run_group(job.jobs, report), strict=True)
        send(OfGroup(tuple(Finished(each.key, outcome) for each, outcome in ended)))
    else:
        outcome = work.run_job(job, lambda epoch: report([(job.key, epoch)])[0])
        send(Finished(job.key, outcome))


def can_be_pruned(job: Job) -> bool:
    """Return whether a job waits for an answer after every report; of a group, its members do."""
    return isinstance(job, TrainJob) and job.can_be_pruned


class PooledWorker(ABC):
    """The executor's end of a worker, which does one job at a time.

    Sending never fails and never waits: the death of a worker is reported as `Died`.

    Args:
        start_limit_s: seconds after which a worker that is not ready counts as one that cannot
            start.
    """

    ready = False

    def __init__(self, start_limit_s: float = math.inf) -> None:
        self.start_limit_s = start_limit_s
        self._began = time.monotonic()
        self.job: Job | None = None
        self.in_progress: dict[str, bool] = {}  # keys of members that have not ended: are pruned
        self._answers: dict[str, bool | None] = {}  # to the last report, by key; None: not yet
        self._trained_s = 0.0  # of its job, at its last report
        self._since: float | None = None  # the time of that report; None while it does not train

    @abstractmethod
    def send_job(self, job: Job) -> None:
        """Have the worker begin a job."""

    @abstractmethod
    def send_answers(self, answers: Sequence[bool]) -> None:
        """Send the answers to a report, in its order."""

    @abstractmethod
    def end(self) -> None:
        """Kill the worker."""

    def begin(self, job: Job) -> None:
        """Hand a job to a worker that has none."""
        self.job, self._answers, self._since = job, {}, None
        self.in_progress = {each.key: can_be_pruned(each) for each in members_of(job)}
        self.send_job(job)

    def answer(self, key: str, go_on: bool) -> None:
        """Answer one that waits; the worker goes on once all of its group are answered."""
        if key not in self._answers or self._answers[key] is not None:
            return  # it does not wait
        self._answers[key] = go_on
        answers = [each for each in self._answers.values() if each is not None]
        if len(answers) == len(self._answers):
            self._answers, self._since = {}, time.monotonic()
            self.send_answers(answers)

    def trains(self, trained_s: float, reported: Sequence[str] = ()) -> None:
        """Note for how long the job has trained, and that these members have reported now.

        Those that can be pruned wait for an answer.
        """
        self._trained_s = trained_s
        self._answers = {key: None for key in reported if self.in_progress.get(key)}
        self._since = None if self._answers else time.monotonic()

    def left_s(self) -> float:
        """Return how many seconds the worker may start or its job train; inf without a limit."""
        if not self.ready:
            return self.start_limit_s - (time.monotonic() - self._began)
        limit = self.job.timeout_s if isinstance(self.job, TrainJob) else None
        if limit is None or self._since is None:
            return math.inf
        return limit - self._trained_s - (time.monotonic() - self._since)


class JobSource(Protocol):
    """Where a pool of workers gets its jobs."""

    def __len__(self) -> int:
        """Return how many jobs could begin now if there were a worker for each."""

    def take(self) -> Job | None:
        """Return the next job for a worker that is free now; None if there is none."""

    def left(self, key: str) -> None:
        """Note that a job which was taken has left its worker, whichever way: a group as one."""


class JobQueue(deque[Job]):
    """Jobs in the order of their submission."""

    def take(self) -> Job | None:
        """Return the first job, or None."""
        return self.popleft() if self else None

    def left(self, key: str) -> None:
        """Nothing depends on it."""


class Alarm:
    """Wakes a thread that waits in `multiprocessing.connection.wait`."""

    def __init__(self) -> None:
        self._receiver, self._sender = Pipe(duplex=False)
        self._lock = threading.Lock()
        self._is_set = False

    def fileno(self) -> int:
        """Return the file descriptor to wait for."""
        return self._receiver.fileno()

    def set(self) -> None:
        """Wake the thread, or have its next wait return at once; called from any thread."""
        with self._lock:
            if not self._is_set and not self._sender.closed:
                self._is_set = True
                self._sender.send_bytes(b"!")

    def clear(self) -> None:
        """Let the next wait last."""
        with self._lock:
            if self._is_set:
                self._is_set = False
                self._receiver.recv_bytes()

    def close(self) -> None:
        """Close it; it wakes nobody any more."""
        with self._lock:
            self._receiver.close()
            self._sender.close()


_START_AGAIN_S = 10.0  # from failed starts in a shared pool to the next one

W = TypeVar("W", bound=PooledWorker)


class WorkerPool(ABC, Generic[W]):
    """An executor whose jobs run in workers that start when there are jobs for them.

    A worker that dies loses its job alone; another takes its place when one is needed. A job is
    assigned only to a worker that is ready, so none waits for a worker that never starts.

    Args:
        n_workers: workers at a time, at least 1.

    Raises:
        ValueError: `n_workers` is below 1.
    """

    def __init__(self, n_workers: int) -> None:
        if n_workers < 1:
            raise ValueError(f"n_workers must be at least 1, got {n_workers}")
        self._n_workers = n_workers
        self._queue = JobQueue()
        self._source: JobSource = self._queue
        self._workers: list[W] = []
        self._failed_starts = 0  # since the last worker that became ready
        self._start_at = -math.inf  # no worker starts before

    @abstractmethod
    def _start_worker(self) -> W:
        """Start a worker, and return without waiting for it."""

    @abstractmethod
    def _listen(self, timeout_s: float) -> list[tuple[W, Message]]:
        """Return messages of workers, waiting up to `timeout_s` for the first, or for `wake`."""

    @property
    def n_workers(self) -> int:
        """Workers at a time."""
        return self._n_workers

    @property
    def has_gpus(self) -> bool:
        """Whether workers train on GPUs unless a job says otherwise; by default none does."""
        return False

    @property
    def busy(self) -> int:
        """Workers that have a job."""
        return sum(worker.job is not None for worker in self._workers)

    def take_from(self, source: JobSource) -> None:
        """Take jobs from a source in place of `submit`; called before the first `poll`.

        The pool is then shared: while some workers are ready, it goes on with them if others
        cannot be started, and tries again later.
        """
        self._source = source

    def wake(self) -> None:
        """Have a `poll` that waits in another thread return soon; the one method for any thread.

        A pool that has no way to do it returns when the time of its `poll` is over.
        """

    def forget(self, folders: Iterable[str]) -> None:
        """Release what is kept of the data in these folders: no job will refer to it."""

    def expect(self) -> None:
        """Have what takes long at the start of workers begin now: there will be jobs soon."""

    def submit(self, job: Job) -> None:
        """Queue a job, and hand it to a worker if one is free."""
        self._queue.append(job)
        self._assign()

    def poll(self, timeout_s: float) -> list[Event]:
        """Return the events of all workers, waiting up to `timeout_s` for the first.

        Raises:
            RunError: no worker can be started any more.
        """
        self._assign()
        next_limit_s = max(0.0, min((w.left_s() for w in self._workers), default=timeout_s))
        events: list[Event] = []
        for worker, message in self._listen(min(timeout_s, next_limit_s)):
            if worker in self._workers:  # else it has died, and that has been reported
                events += self._handle(worker, message)
        for worker in [w for w in self._workers if w.left_s() <= 0]:
            self._remove(worker)
            if worker.ready:
                assert isinstance(worker.job, TrainJob)
                self._source.left(worker.job.key)
                events.append(Finished(worker.job.key, timed_out(worker.job)))
            else:
                self._count_failed_start(f"it was not ready after {worker.start_limit_s:g} s")
        self._assign()
        return events

    def answer(self, key: str, go_on: bool) -> None:
        """Answer a job that waits, unless its worker has died."""
        for worker in self._workers:
            worker.answer(key, go_on)

    def end_job(self, key: str) -> None:
        """End a job at once, a group as one, with its worker if it has begun; no event follows."""
        for job in [job for job in self._queue if job.key == key]:
            self._queue.remove(job)
        for worker in [w for w in self._workers if w.job is not None and w.job.key == key]:
            self._remove(worker)
            self._source.left(key)

    def withdraw(self) -> list[str]:
        """Drop the jobs that no worker has begun, and return their keys."""
        keys = [each.key for job in self._queue for each in members_of(job)]
        self._queue.clear()
        return keys

    def close(self) -> None:
        """End the workers; the journal has everything that cannot be computed again."""
        self._queue.clear()
        for worker in list(self._workers):
            self._remove(worker)

    def _assign(self) -> None:
        """Hand jobs to free workers, and start workers for the other jobs."""
        while True:
            free = next((w for w in self._workers if w.ready and w.job is None), None)
            if free is not None:
                if (job := self._source.take()) is None:
                    return
                free.begin(job)
                continue
            n_starting = sum(not w.ready for w in self._workers)
            if n_starting >= len(self._source) or len(self._workers) >= self.n_workers:
                return
            if time.monotonic() < self._start_at:
                return
            try:
                self._workers.append(self._start_worker())
            except RunError:
                if not self._goes_on():
                    raise

    def _handle(self, worker: W, message: Message) -> list[Event]:
        match message:
            case Ready():
                worker.ready, self._failed_starts = True, 0
            case Started():
                worker.trains(0.0)
            case Reported():
                worker.trains(message.trained_s, [message.key])
                return [message]
            case Finished():
                return self._end([message], worker)
            case OfGroup(said):
                reports = [each for each in said if isinstance(each, Reported)]
                if reports:
                    worker.trains(reports[0].trained_s, [each.key for each in reports])
                return [*reports, *self._end([e for e in said if isinstance(e, Finished)], worker)]
            case Died():
                self._remove(worker)
                if worker.job is not None:
                    self._source.left(worker.job.key)
                    return [Lost(key, message.reason) for key in worker.in_progress]
                if not worker.ready:
                    self._count_failed_start(message.reason)
        return []

    def _end(self, ended: list[Finished], worker: W) -> list[Event]:
        """Note the ends of members; the worker is free once all of its job have ended."""
        for each in ended:
            worker.in_progress.pop(each.key, None)
        if worker.job is not None and not worker.in_progress:
            self._source.left(worker.job.key)
            worker.job = None
        return list(ended)

    def _count_failed_start(self, reason: str) -> None:
        """Give up once too many workers in a row fail to start."""
        self._failed_starts += 1
        if self._failed_starts > 2 * self.n_workers and not self._goes_on():
            rule = f"no worker can be started: {reason}"
            raise RunError(rule, remedy="the same command resumes when one can be")

    def _goes_on(self) -> bool:
        """Postpone further starts, and return True, if a shared pool has workers that are ready."""
        if self._source is self._queue or not any(w.ready for w in self._workers):
            return False
        self._failed_starts, self._start_at = 0, time.monotonic() + _START_AGAIN_S
        return True

    def _remove(self, worker: W) -> None:
        self._workers.remove(worker)
        worker.end()


STOPPING = "stopping when the trials in progress have ended; Ctrl-C again stops now"
STOPPED = "stopped; what was finished is kept, and the same command resumes"
_POLL_S = 1.0  # at most so long until a stop request is seen


def run_jobs(
    executor: Executor,
    jobs: Sequence[Job],
    *,
    retries: int = 2,
    stop: threading.Event | None = None,
    note: Callable[[str], None] = lambda text: None,
    ended: Callable[[str, Outcome], None] = lambda key, outcome: None,
    may_fail: bool = False,
) -> list[Outcome]:
    """Run jobs and return their outcomes in order.

    Args:
        executor: where they run.
        jobs: with keys that differ.
        retries: how often a lost job runs again.
        stop: once set, no further job starts; running jobs end.
        note: receives a message when `stop` is set.
        ended: receives each job's key and outcome.
        may_fail: whether the outcome of a failed job is returned like any other.

    Raises:
        RunError: a job failed that may not, or was lost more than `retries` times.
        Interrupted: `stop` was set before all had ended.
    """
    waiting = {job.key: job for job in jobs}
    losses = dict.fromkeys(waiting, 0)
    outcomes: dict[str, Outcome] = {}
    for job in jobs:
        executor.submit(job)
    stopped = False
    while waiting:
        if not stopped and stop is not None and stop.is_set():
            stopped = True
            note(STOPPING)
            for key in executor.withdraw():
                del waiting[key]
            continue
        for event in executor.poll(_POLL_S):
            if isinstance(event, Lost):
                losses[event.key] += 1
                if losses[event.key] > retries:
                    raise RunError(event.reason, where=event.key)
                if stopped:
                    del waiting[event.key]
                else:
                    executor.submit(waiting[event.key])
            elif isinstance(event, Finished):
                if event.outcome.state is not OutcomeState.COMPLETE and not may_fail:
                    raise RunError(event.outcome.reason, where=event.key)
                outcomes[event.key] = event.outcome
                ended(event.key, event.outcome)
                del waiting[event.key]
    if len(outcomes) < len(jobs):
        raise Interrupted(STOPPED)
    return [outcomes[job.key] for job in jobs]
