"""Which job is next: a fair share of the workers for every owner, and for every study of one.

Start-time fair queueing (Goyal, Vin and Cheng, 1997) in two levels, in worker-seconds. Owners
compete with each other, and the studies of one owner that have the same priority. Each has a
*virtual time*: the worker-seconds that it received while another one had to wait, divided by its
weight. Of those that can begin a job, the one with the least virtual time is next.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_FIRST_JOB_S = 1.0  # assumed length of a job before one has ended
_N_RECENT = 8  # jobs, over whose lengths the mean is smoothed


@dataclass(eq=False)
class _Account:
    """What one competitor has received."""

    limit: int | None  # of running jobs
    weight: float = 1.0
    virtual_s: float = 0.0
    n_running: int = 0
    waits: bool = False  # it has jobs that could begin now if there were workers

    @property
    def room(self) -> float:
        return float("inf") if self.limit is None else self.limit - self.n_running

    def at_boundary(self, job_s: float) -> float:
        """Return the virtual time at which its running jobs are expected to have been paid."""
        return self.virtual_s + self.n_running * job_s / self.weight


A = TypeVar("A", bound=_Account)


class _Level(Generic[A]):
    """Accounts that compete with each other."""

    def __init__(self, now: float) -> None:
        self.accounts: list[A] = []
        self.virtual_s = 0.0  # at which an account that begins to wait starts
        self._now = now

    def pass_time(self, now: float) -> None:
        """Charge the running jobs, if anybody had to wait; else let debts pass.

        Called before anything of an account changes.
        """
        seconds, self._now = now - self._now, now
        if seconds <= 0:
            return
        waiting = [a for a in self.accounts if a.waits]
        if not waiting:
            self.virtual_s += seconds
            return
        for account in self.accounts:
            account.virtual_s += account.n_running * seconds / account.weight
        self.virtual_s = max(self.virtual_s, min(a.virtual_s for a in waiting))

    def note(self, account: A, waits: bool) -> None:
        """Note whether an account waits now. One that begins to has no credit."""
        if waits and not account.waits:
            account.virtual_s = max(account.virtual_s, self.virtual_s)
        account.waits = waits

    def next(self, job_s: float, only: A | None = None) -> A | None:
        """Return the account that is next; of equals, the one that came first."""
        waiting = [a for a in self.accounts if a.waits and only in (None, a)]
        return min(waiting, key=lambda a: a.at_boundary(job_s), default=None)


@dataclass(eq=False)
class StudyShare(_Account, Generic[T]):
    """A study among those that share the workers; made by `FairShare.join`."""

    owner: str = ""
    priority: int = 0
    queue: deque[T] = field(default_factory=deque)
    has_left: bool = False
    n_ready: int = 0  # jobs that could begin now, if the owner's limit allows it


@dataclass(eq=False)
class _OwnerShare(_Account, Generic[T]):
    levels: dict[int, _Level[StudyShare[T]]] = field(default_factory=dict)  # by priority
    n_ready: int = 0  # of all studies

    @property
    def ready(self) -> int:
        return int(max(0.0, min(self.n_ready, self.room)))

    def next(self, now: float, job_s: float) -> StudyShare[T] | None:
        for priority in sorted(self.levels, reverse=True):
            self.levels[priority].pass_time(now)
            if (study := self.levels[priority].next(job_s)) is not None:
                return study
        return None


@dataclass(frozen=True)
class _Running(Generic[T]):
    study: StudyShare[T]
    began: float


class FairShare(Generic[T]):
    """A queue of jobs that gives every owner, and every study of one, a fair share of workers.

    Shares are weighted and max-min fair, by worker-seconds, at the boundaries of jobs: no job is
    interrupted. A running job is charged while it runs, so its length need not be known. Nobody
    is charged for workers that nobody else wanted. Who comes new, or was idle, starts at the
    virtual time of those who wait: without credit for the past, and without a debt that lasts
    longer than it took to run up. Among the studies of one owner, those of the highest priority
    are first, whatever they have received.

    It is deterministic: the same calls at the same times give the same order. It is not
    thread-safe.

    Args:
        clock: returns the time in seconds, never less than before.
        owner_limit: returns how many jobs of an owner may run at a time; None is without limit.
        owner_weight: returns the weight of an owner, above 0: with 2 it gets twice the share.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        owner_limit: Callable[[str], int | None] = lambda owner: None,
        owner_weight: Callable[[str], float] = lambda owner: 1.0,
    ) -> None:
        self._clock, self._owner_limit, self._owner_weight = clock, owner_limit, owner_weight
        self._now = clock()
        self._owners: dict[str, _OwnerShare[T]] = {}
        self._level: _Level[_OwnerShare[T]] = _Level(self._now)
        self._running: dict[T, _Running[T]] = {}
        self._job_s = _FIRST_JOB_S  # mean length of recent jobs
        self._n_ended = 0

    def join(
        self, owner: str, *, priority: int = 0, max_workers: int | None = None
    ) -> StudyShare[T]:
        """Add a study without jobs.

        Args:
            owner: of the study.
            priority: higher ones are first among the studies of the owner.
            max_workers: at most so many of its jobs run at a time, at least 1; None is without
                limit.

        Raises:
            ValueError: `max_workers` is below 1.
        """
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, got {max_workers}")
        self._pass_time()
        share = self._owners.get(owner)
        if share is None:
            share = _OwnerShare(self._owner_limit(owner), self._owner_weight(owner))
            self._owners[owner] = share
            self._level.accounts.append(share)
        share.limit = self._owner_limit(owner)  # it may have changed
        study: StudyShare[T] = StudyShare(max_workers, owner=owner, priority=priority)
        share.levels.setdefault(priority, _Level(self._now)).accounts.append(study)
        return study

    def leave(self, study: StudyShare[T]) -> list[T]:
        """Remove a study and return its jobs that have not begun; running jobs are to be ended."""
        if study.has_left:
            return []
        dropped = self.withdraw(study)
        study.has_left = True
        self._remove_if_over(study)
        return dropped

    def submit(self, study: StudyShare[T], job: T) -> None:
        """Add a job to a study; its jobs begin in the order of submission."""
        self._pass_time()
        study.queue.append(job)
        self._update(study)

    def withdraw(self, study: StudyShare[T]) -> list[T]:
        """Drop the jobs of a study that have not begun, and return them."""
        self._pass_time()
        dropped = list(study.queue)
        study.queue.clear()
        self._update(study)
        return dropped

    def take(self, owner_name: str | None = None) -> T | None:
        """Return the next job, of an owner or of all; it begins now. None: there is none."""
        self._pass_time()
        only = None
        if owner_name is not None and (only := self._owners.get(owner_name)) is None:
            return None
        owner = self._level.next(self._job_s, only)
        study = None if owner is None else owner.next(self._now, self._job_s)
        if owner is None or study is None:
            return None
        job = study.queue.popleft()
        self._running[job] = _Running(study, self._now)
        self._count(study, 1)
        return job

    def put_back(self, job: T) -> None:
        """Note that a running job has ended, and is the first of its study to begin again."""
        running = self._running.get(job)
        self.end(job)
        if running is not None and not running.study.has_left:
            running.study.queue.appendleft(job)
            self._update(running.study)

    def end(self, job: T) -> None:
        """Note that a running job has ended, whichever way; others are ignored."""
        self._pass_time()
        if (running := self._running.pop(job, None)) is None:
            return
        self._n_ended = min(self._n_ended + 1, _N_RECENT)
        self._job_s += (self._now - running.began - self._job_s) / self._n_ended
        self._count(running.study, -1)
        self._remove_if_over(running.study)

    def __len__(self) -> int:
        """Return how many jobs could begin now if there were a worker for each."""
        return sum(owner.ready for owner in self._owners.values())

    def counts(self, study: StudyShare[T]) -> tuple[int, int]:
        """Return how many jobs of a study run, and how many wait."""
        return study.n_running, len(study.queue)

    def limit(self, study: StudyShare[T]) -> int | None:
        """Return how many jobs of a study may run at a time: the least of its limits."""
        limits = [study.limit, self._owners[study.owner].limit]
        return min((limit for limit in limits if limit is not None), default=None)

    def _pass_time(self) -> None:
        self._now = max(self._now, self._clock())
        self._level.pass_time(self._now)

    def _count(self, study: StudyShare[T], change: int) -> None:
        owner = self._owners[study.owner]
        owner.levels[study.priority].pass_time(self._now)
        study.n_running += change
        owner.n_running += change
        self._update(study)

    def _update(self, study: StudyShare[T]) -> None:
        """Note whether a study and its owner wait, after a change of their jobs."""
        owner = self._owners[study.owner]
        n_ready = int(max(0.0, min(len(study.queue), study.room)))
        owner.n_ready += n_ready - study.n_ready
        study.n_ready = n_ready
        level = owner.levels[study.priority]
        level.pass_time(self._now)
        level.note(study, n_ready > 0)
        self._level.note(owner, owner.ready > 0)

    def _remove_if_over(self, study: StudyShare[T]) -> None:
        """Remove a study that has left, once none of its jobs runs; its owner keeps the account."""
        levels = self._owners[study.owner].levels
        if study.has_left and not study.n_running and study in levels[study.priority].accounts:
            levels[study.priority].accounts.remove(study)
