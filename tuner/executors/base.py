"""What the coordinator asks of an executor, and the events that it gets back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tuner.jobs import Epoch, Job, Outcome

__all__ = ["Event", "Executor", "Finished", "Lost", "Reported"]


@dataclass(frozen=True)
class Reported:
    """A job ended an epoch. Where the job can be pruned, it now waits for `answer`."""

    key: str
    epoch: Epoch
    trained_s: float = 0.0  # seconds spent on the job so far, without its waits for answers


@dataclass(frozen=True)
class Finished:
    """A job came to its end, well or badly."""

    key: str
    outcome: Outcome


@dataclass(frozen=True)
class Lost:
    """The machine took a job away (its worker died); the job itself is not to blame."""

    key: str
    reason: str


Event = Reported | Finished | Lost


class Executor(Protocol):
    """Runs jobs in the order in which they were submitted, some at a time.

    All methods are called from one thread. An executor never runs a lost job again by itself.
    A job that trains for longer than its `timeout_s` is ended with its worker, and finishes with
    what `tuner.jobs.timed_out` says of it; its waits, for a worker or an answer, do not count.
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
