"""The interface of executors, the messages of their workers, and jobs run outside of a study."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tuner.errors import Interrupted, RunError
from tuner.jobs import Epoch, Job, Outcome, OutcomeState, TrainJob

__all__ = [
    "STOPPED",
    "STOPPING",
    "Died",
    "Event",
    "Executor",
    "Finished",
    "Lost",
    "Message",
    "Ready",
    "Reported",
    "RunJob",
    "Started",
    "run_jobs",
    "serve",
]


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


Event = Reported | Finished | Lost


class Executor(Protocol):
    """Runs jobs in the order in which they were submitted, some at a time.

    All methods are called from one thread. An executor never runs a lost job again by itself.
    A job that trains for longer than its `timeout_s` is ended with its worker, and finishes with
    the outcome of `tuner.jobs.timed_out`; its waits, for a worker or an answer, do not count.
    """

    n_workers: int

    def submit(self, job: Job) -> None:
        """Queue a job; returns at once. Keys must differ among the jobs in progress."""

    def poll(self, timeout_s: float) -> list[Event]:
        """Return what has happened since, waiting up to `timeout_s` for something to happen."""

    def answer(self, key: str, go_on: bool) -> None:
        """Tell a job that waits after a report whether to train on."""

    def withdraw(self) -> list[str]:
        """Drop the jobs that no worker has begun, and return their keys."""

    def close(self) -> None:
        """Stop all workers now; jobs in progress are given up."""


@dataclass(frozen=True)
class Ready:
    """A worker has started and can begin a job."""

    version: str  # of tuner, where the worker runs


@dataclass(frozen=True)
class Started:
    """A worker begins to train a job; until then it was queued, sent or unpacked."""

    key: str


@dataclass(frozen=True)
class Died:
    """The worker died; sent on its behalf by the executor."""

    reason: str


Message = Ready | Started | Reported | Finished | Died


RunJob = Callable[[Job, Callable[[Epoch], bool]], Outcome]

"""Does a job; calls back after every epoch and stops if the answer is False.

An exception means that the worker is broken: it ends, and its job is lost.
"""


def serve(
    job: Job, run_job: RunJob, say: Callable[[Message], None], hear: Callable[[], bool]
) -> None:
    """Do a job from its `Started` to its `Finished`.

    Args:
        job: what is to be done.
        run_job: does it.
        say: takes messages for the executor.
        hear: waits for the answer to a report; called only where the job can be pruned.
    """
    say(Started(job.key))
    waits = isinstance(job, TrainJob) and job.can_be_pruned
    begun, waited_s = time.monotonic(), 0.0

    def report(epoch: Epoch) -> bool:
        nonlocal waited_s
        now = time.monotonic()
        say(Reported(job.key, epoch, trained_s=now - begun - waited_s))
        if not waits:
            return True
        go_on = hear()
        waited_s += time.monotonic() - now
        return go_on

    say(Finished(job.key, run_job(job, report)))


STOPPING = "stopping when the trials in progress have ended; Ctrl-C again stops now"

STOPPED = "stopped; what was finished is kept, and the same command resumes"

_POLL_S = 1.0  # and at most so long until it is seen that a search is to stop


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
