"""One pool of workers for many searches: each gets an executor, and a fair share of the workers."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tuner.errors import InputError, Interrupted, RunError, TunerError, one_line
from tuner.executors.base import Event, Lost, Reported, WorkerPool
from tuner.experiment.schema import Resources
from tuner.jobs import Job, data_of, members_of, renamed
from tuner.service.fair_share import FairShare, StudyShare
from tuner.service.hiding import public_event

_log = logging.getLogger(__name__)
_POLL_S = 1.0  # at most so long until time limits are looked at; a new job or answer wakes it
_RETRY_S = 10.0  # from a failure of the pool to the next attempt
_ALONE_S = 5.0  # without workers, until a search hears of it; those of before a restart come back

NO_WORKERS = "waits for workers: none is connected; start `tuner worker --server URL`"
"""Why the jobs of a study do not begin."""


class Workers(Protocol):
    """Workers of one kind, which take jobs of the pool.

    All methods return at once, and are called from any thread, with the lock of the pool held.
    """

    @property
    def n_workers(self) -> int:
        """Workers at a time; 0 if there are none now."""

    def serves(self, owner: str) -> bool:
        """Return whether there are workers now that take jobs of an owner."""

    def wake(self) -> None:
        """Take jobs, if workers are free: a job can begin that could not before."""

    def answer(self, key: str, go_on: bool) -> None:
        """Answer a job that waits after a report."""

    def end_job(self, key: str) -> None:
        """End a job soon, and call `SharedPool.left`; no event of it is of interest any more."""

    def forget(self, folders: Iterable[str]) -> None:
        """Release the data in these folders: no job will refer to it."""


@dataclass(eq=False)
class _Member:
    """A training whose events go to a study: a job, or one of a group."""

    key: str  # in the pool, where it differs from all others
    key_in_study: str
    task: _Task
    n_reported: int = 0  # epochs that its search knows
    n_repeated: int = 0  # epochs that were reported since it began last
    answers: list[bool] = field(default_factory=list)  # of its search, by epoch
    has_ended: bool = False


@dataclass(eq=False)
class _Task:
    """A job of a study, on its way through the pool."""

    job: Job  # under keys that differ from those of all other jobs of the pool
    study: StudyExecutor
    members: list[_Member] = field(default_factory=list)
    holder: Workers | None = None  # None until it has begun


@dataclass(frozen=True)
class PoolUsage:
    """How the workers are used, at one moment."""

    n_workers: int
    busy: int  # jobs that workers have
    waiting: int  # jobs for a worker
    running_by_study: dict[tuple[str, str], int]  # by owner and study
    waiting_by_study: dict[tuple[str, str], int]


class SharedPool:
    """Workers that many searches share.

    A job begins when a worker is free and `share` selects it. A worker that dies loses its job
    alone. If the workers on this machine, or the cluster, fail as a whole, every search that has
    jobs in progress gets a `RunError`; the pool is made again for later jobs, and after 10 s at
    the earliest.

    Args:
        make: makes the workers from their number; called in the pool's own thread.
        n_workers: made by `make`; 0 for none, if all workers are of another kind: see `add`.
        share: decides which job is next.
        resources: of each worker; see `check`.
        has_gpus: whether workers train on GPUs unless a job says otherwise.
    """

    def __init__(
        self,
        make: Callable[[int], WorkerPool[Any]],
        n_workers: int,
        share: FairShare[str] | None = None,
        *,
        resources: Resources | None = None,
        has_gpus: bool = False,
    ) -> None:
        self.resources, self.has_gpus = resources or Resources(), has_gpus
        self.lock = threading.RLock()  # of all that follows, and of every study
        self._share = FairShare() if share is None else share  # one without jobs is falsy
        self._tasks: dict[str, _Task] = {}  # by the key of the job
        self._members: dict[str, _Member] = {}  # of these, by their keys
        self._studies: list[StudyExecutor] = []
        self._numbers = itertools.count()
        self._is_closed = False
        self._own = _OwnWorkers(self, make, n_workers) if n_workers else None
        self._kinds: list[Workers] = [self._own] if self._own is not None else []

    @property
    def n_workers(self) -> int:
        """Workers at a time, of all kinds."""
        with self.lock:
            return sum(kind.n_workers for kind in self._kinds)

    def serves(self, owner: str) -> bool:
        """Return whether there are workers now that take jobs of an owner."""
        with self.lock:
            return any(kind.serves(owner) for kind in self._kinds)

    @property
    def busy(self) -> int:
        """Workers that have a job."""
        with self.lock:
            return sum(task.holder is not None for task in self._tasks.values())

    @property
    def usage(self) -> PoolUsage:
        """How the workers are used now."""
        with self.lock:
            counts = [(s.owner, s.study, *self._share.counts(s.share)) for s in self._studies]
            running: dict[tuple[str, str], int] = {}
            waiting: dict[tuple[str, str], int] = {}
            for owner, study, n_running, n_waiting in counts:
                running[owner, study] = running.get((owner, study), 0) + n_running
                waiting[owner, study] = waiting.get((owner, study), 0) + n_waiting
            n_waiting = sum(waiting.values())
            return PoolUsage(self.n_workers, self.busy, n_waiting, running, waiting)

    def check(self, resources: Resources) -> None:
        """Raise InputError if a trial needs more than a worker of this pool has."""
        for key, word in (("gpus", "GPUs"), ("cpus", "CPUs")):
            wanted, most = getattr(resources, key), getattr(self.resources, key)
            if wanted > most:
                rule = f"must be at most {most:g}, the {word} of each worker of the service"
                remedy = f"write resources.{key}: {most:g}"
                raise InputError(rule, key=f"resources.{key}", got=f"{wanted:g}", remedy=remedy)

    def executor(
        self, owner: str, study: str, *, priority: int = 0, max_workers: int | None = None
    ) -> StudyExecutor:
        """Return the executor of one study; called from any thread.

        Args:
            owner: of the study.
            study: its name.
            priority: higher ones are first among the studies of the owner.
            max_workers: at most so many of its jobs run at a time, at least 1.

        Raises:
            ValueError: `max_workers` is below 1.
            Interrupted: the pool is closed.
        """
        with self.lock:
            if self._is_closed:
                raise _stopped()
            share = self._share.join(owner, priority=priority, max_workers=max_workers)
            if self._own is not None:
                self._own.expect()
            self._studies.append(StudyExecutor(self, owner, study, share))
            return self._studies[-1]

    def close(self) -> None:
        """End all workers. The executors of searches that still run raise `Interrupted`."""
        with self.lock:
            self._is_closed = True
            for study in list(self._studies):
                study.abort(_stopped())
        if self._own is not None:
            self._own.close()

    # What follows is for the kinds of workers.

    def add(self, kind: Workers) -> None:
        """Add a kind of workers, which `take` their jobs."""
        with self.lock:
            self._kinds.append(kind)
            kind.wake()

    def n_ready(self) -> int:
        """Return how many jobs could begin now if there were a worker for each."""
        with self.lock:
            return len(self._share)

    def take(self, holder: Workers, owner: str | None = None) -> Job | None:
        """Return the next job, of an owner or of all, which the holder begins; None: none can."""
        with self.lock:
            if (key := self._share.take(owner)) is None:
                return None
            task = self._tasks[key]
            task.holder = holder
            for member in task.members:
                member.n_repeated = 0
            return task.job

    def deliver(self, events: Iterable[Event]) -> None:
        """Hand events of jobs to their searches."""
        with self.lock:
            for event in events:
                if (member := self._members.get(event.key)) is None:
                    continue  # its search does not wait for it any more
                if isinstance(event, Reported):
                    if self._is_known(member):
                        continue
                elif not self._ends(member):
                    continue
                task = member.task
                task.study._receive(dataclasses.replace(event, key=member.key_in_study))

    def _is_known(self, member: _Member) -> bool:
        """Count a report, and return whether it is of an epoch that was reported before.

        A job that was handed back begins again, and its search does not notice.
        """
        member.n_repeated += 1
        if member.n_repeated > member.n_reported:
            member.n_reported = member.n_repeated
            return False
        holder = member.task.holder
        if member.n_repeated <= len(member.answers) and holder is not None:
            holder.answer(member.key, member.answers[member.n_repeated - 1])
        return True

    def _ends(self, member: _Member) -> bool:
        """Note that a member has ended, and return whether it had not before.

        It is remembered until all of its group have: a group that was handed back begins again
        with all of them.
        """
        if member.has_ended:
            return False
        member.has_ended, task = True, member.task
        del task.study._members[member.key_in_study]
        if all(each.has_ended for each in task.members):
            self.left(task.job.key)
            self._drop(task)
        return True

    def _answer(self, member: _Member, go_on: bool) -> None:
        if len(member.answers) == member.n_reported:
            return  # it does not wait
        member.answers.append(go_on)
        holder = member.task.holder
        if holder is not None and member.n_repeated == len(member.answers):
            holder.answer(member.key, go_on)

    def left(self, key: str) -> None:
        """Note that a job has left its worker, whichever way."""
        with self.lock:
            self._share.end(key)
            self.wake_all()

    def put_back(self, key: str) -> None:
        """Hand a job back that has begun, through no fault of its own: it begins again elsewhere.

        As a job is a pure function, its search gets the events that it has not had, and no more.
        """
        with self.lock:
            if (task := self._tasks.get(key)) is None:
                self.left(key)
                return
            task.holder = None
            self._share.put_back(key)
            self.wake_all()

    def wake_all(self) -> None:
        """Have free workers take the jobs that can begin."""
        with self.lock:
            for kind in self._kinds if len(self._share) else ():
                kind.wake()

    def fail(self, holder: Workers, error: TunerError) -> None:
        """End the jobs of a kind of workers that failed as a whole.

        Without workers of another kind, every search with jobs in progress gets the error; else
        jobs that wait go on waiting, and those that ran are lost.
        """
        with self.lock:
            tasks = list(self._tasks.values())
            if any(kind.n_workers for kind in self._kinds if kind is not holder):
                lost = [task for task in tasks if task.holder is holder]
                self.deliver(Lost(m.key, one_line(error)) for task in lost for m in task.members)
                return
            for study in dict.fromkeys(task.study for task in tasks):
                study._fail(error)

    def _submit(self, study: StudyExecutor, job: Job) -> None:
        task = _Task(renamed(job, f"{next(self._numbers)}:"), study)
        self._tasks[task.job.key] = task
        for own, given in zip(members_of(task.job), members_of(job), strict=True):
            member = _Member(own.key, given.key, task)
            task.members.append(member)
            self._members[own.key] = study._members[given.key] = member
        self._share.submit(study.share, task.job.key)
        self.wake_all()

    def _withdraw(self, study: StudyExecutor) -> list[str]:
        dropped = [self._tasks[key] for key in self._share.withdraw(study.share)]
        return [key for task in dropped for key in self._drop(task)]

    def _end_all(self, study: StudyExecutor) -> None:
        """Drop the jobs of a study, and end those that run."""
        self._withdraw(study)
        for task in dict.fromkeys(member.task for member in study._members.values()):
            self._drop(task)
            assert task.holder is not None
            task.holder.end_job(task.job.key)

    def _drop(self, task: _Task) -> list[str]:
        """Forget a job, and return the keys in the study of its members that have not ended."""
        del self._tasks[task.job.key]
        for member in task.members:
            del self._members[member.key]
        dropped = [member.key_in_study for member in task.members if not member.has_ended]
        for key in dropped:
            del task.study._members[key]
        return dropped

    def _leave(self, study: StudyExecutor, folders: Iterable[str]) -> None:
        if study in self._studies:
            self._studies.remove(study)
            self._share.leave(study.share)
            for kind in self._kinds:
                kind.forget(folders)


class _OwnWorkers:
    """The workers that the pool starts itself: a thread that runs a `WorkerPool`.

    It is the source of that pool's jobs, and their holder.
    """

    def __init__(
        self, shared: SharedPool, make: Callable[[int], WorkerPool[Any]], n_workers: int
    ) -> None:
        self.n_workers = n_workers
        self._shared, self._make = shared, make
        self._pool: WorkerPool[Any] | None = None  # while there is one
        self._retry_at = 0.0
        self._is_expected = False  # that there are jobs soon
        self._commands: deque[Callable[[WorkerPool[Any]], None]] = deque()
        self._held: set[str] = set()  # keys of jobs that workers have
        self._is_closing = False
        self._woken = threading.Event()  # while there is no pool
        self._thread = threading.Thread(target=self._run, name="tuner-workers", daemon=True)
        self._thread.start()

    def serves(self, owner: str) -> bool:
        return True

    def wake(self) -> None:
        """Have the thread look for jobs and commands."""
        self._woken.set()
        if (pool := self._pool) is not None:
            pool.wake()

    def expect(self) -> None:
        """Have what takes long at the start of workers begin now, unless it has."""
        if self._pool is None:
            self._is_expected = True
            self.wake()

    def answer(self, key: str, go_on: bool) -> None:
        self._command(lambda pool: pool.answer(key, go_on))

    def end_job(self, key: str) -> None:
        self._command(lambda pool: pool.end_job(key))

    def forget(self, folders: Iterable[str]) -> None:
        """Release the data in these folders."""
        kept = frozenset(folders)
        self._command(lambda pool: pool.forget(kept))

    def close(self) -> None:
        """End the workers, and wait for that."""
        self._is_closing = True
        self.wake()
        self._thread.join()

    def __len__(self) -> int:
        return self._shared.n_ready()

    def take(self) -> Job | None:
        job = self._shared.take(self)
        if job is not None:
            self._held.add(job.key)
        return job

    def left(self, key: str) -> None:
        self._held.discard(key)
        self._shared.left(key)

    def _command(self, command: Callable[[WorkerPool[Any]], None]) -> None:
        self._commands.append(command)
        self.wake()

    def _run(self) -> None:
        while not self._is_closing:
            try:
                self._serve()
            except TunerError as error:
                self._fail(error)
            except Exception as error:
                _log.exception("the pool of workers failed")
                rule = f"the pool of workers failed: {type(error).__name__}: {one_line(error)}"
                self._fail(RunError(rule, remedy="the same search resumes"))
        self._close_pool()

    def _serve(self) -> None:
        """Execute commands, assign jobs, and deliver events: once."""
        if self._pool is None:
            self._woken.clear()
            if self._is_closing:  # it may have been set before that
                return
            left_s = self._retry_at - time.monotonic()
            if left_s > 0 or not (len(self) or self._is_expected):
                self._woken.wait(max(left_s, 0) or None)
                return
            self._is_expected = False
            try:
                pool = self._make(self.n_workers)
            except Exception:
                if len(self):
                    raise
                return  # the first job has it tried again
            pool.take_from(self)
            self._pool = pool
            pool.expect()
        while self._commands:
            self._commands.popleft()(self._pool)
        self._shared.deliver(self._pool.poll(_POLL_S))

    def _fail(self, error: TunerError) -> None:
        self._close_pool()
        self._retry_at = time.monotonic() + _RETRY_S
        if not isinstance(error, RunError):  # of a search that began, it is no bad input
            error = RunError(one_line(error))
        self._shared.fail(self, error)
        self._commands.clear()
        for key in list(self._held):
            self.left(key)

    def _close_pool(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            with contextlib.suppress(Exception):  # it may have failed
                pool.close()


def _stopped() -> Interrupted:
    return Interrupted("the service has stopped", remedy="the search goes on when it is started")


class StudyExecutor:
    """The executor of one study in a `SharedPool`: see `tuner.executors.Executor`.

    Its search calls all methods but `abort` from one thread.
    """

    def __init__(self, pool: SharedPool, owner: str, study: str, share: StudyShare[str]) -> None:
        self.owner, self.study, self.share = owner, study, share
        self.on_wait: Callable[[str], None] = lambda why: None
        """Called in `poll`, once each time, if there are no workers for the jobs that wait."""
        self._alone_since: float | None = None  # None: it has workers, or waits for nothing
        self._is_told = False  # of that
        self._pool = pool
        self._changed = threading.Condition(pool.lock)
        self._events: list[Event] = []
        self._error: BaseException | None = None
        self._members: dict[str, _Member] = {}  # that have not ended, by the key in the study
        self._folders: set[str] = set()  # with the data of its jobs

    @property
    def n_workers(self) -> int:
        """Workers at a time, at least 1: those of the pool within the limits of the study."""
        with self._pool.lock:
            limit = self._pool._share.limit(self.share)
            n_workers = self._pool.n_workers
        return max(1, n_workers if limit is None else min(limit, n_workers))

    @property
    def has_gpus(self) -> bool:
        """Whether workers of the pool train on GPUs unless a job says otherwise."""
        return self._pool.has_gpus

    def submit(self, job: Job) -> None:
        """Queue a job; raises as `poll` does."""
        with self._pool.lock:
            if self._error is not None:
                raise self._error
            self._folders |= {data.folder for data in data_of(job)}
            self._pool._submit(self, job)

    def poll(self, timeout_s: float) -> list[Event]:
        """Return the events since the last call, waiting up to `timeout_s` for the first.

        Raises:
            RunError: the workers failed as a whole; events of before are returned first.
            BaseException: the reason of `abort`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._error, timeout_s)
            if not self._events and self._error is not None:
                raise self._error
            events, self._events = self._events, []
            tells = self._notes_wait()
        if tells:
            self.on_wait(NO_WORKERS)
        return events

    def _notes_wait(self) -> bool:
        """Note whether there are workers, and return whether the search is to hear of none."""
        if not self._members or self._pool.serves(self.owner):
            self._alone_since, self._is_told = None, False
            return False
        if self._alone_since is None:
            self._alone_since = time.monotonic()
        tells = not self._is_told and time.monotonic() - self._alone_since >= _ALONE_S
        self._is_told |= tells
        return tells

    def answer(self, key: str, go_on: bool) -> None:
        """Answer a job that waits after a report: whether to train on."""
        with self._pool.lock:
            member = self._members.get(key)
            if member is not None:
                self._pool._answer(member, go_on)

    def withdraw(self) -> list[str]:
        """Drop the jobs that no worker has begun, and return their keys."""
        with self._pool.lock:
            dropped = self._pool._withdraw(self)
            # One that a worker handed back may have reported before.
            self._events = [event for event in self._events if event.key not in dropped]
            return dropped

    def abort(self, reason: BaseException) -> None:
        """End the jobs of the study, and have its search raise `reason`; called from any thread.

        The search raises it at its next `poll` or `submit`, at once if it waits in one. Workers
        of running jobs are killed. A second reason is ignored.
        """
        with self._changed:
            self._events.clear()
            self._fail(reason)

    def close(self) -> None:
        """End the jobs in progress, and give the share of the workers up."""
        with self._pool.lock:
            self._pool._end_all(self)
            self._pool._leave(self, self._folders)

    def _receive(self, event: Event) -> None:
        self._events.append(public_event(event))
        self._changed.notify()

    def _fail(self, error: BaseException) -> None:
        self._pool._end_all(self)
        self._error = self._error or error
        self._changed.notify()
