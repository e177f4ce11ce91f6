"""Pull workers: processes elsewhere that fetch jobs over HTTP, and send back what became of them.

A pull worker has a number of slots, each of which runs a job at a time. It polls for messages
(jobs, answers, requests to end a job) and sends events; both are numbered, so that a cut
connection neither loses nor repeats any. It holds its jobs by a lease that every request renews:
the jobs of a worker that has vanished are lost, as those of a process that dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner import __version__
from tuner.executors.base import Finished, Lost, Reported, Returned
from tuner.jobs import Job, data_of, members_of
from tuner.outputs import scratch_folder
from tuner.service.access import Owner
from tuner.service.job_records import (
    Record,
    event_from_record,
    job_to_record,
    sha256_of,
    sha256_of_file,
)
from tuner.service.pool import SharedPool
from tuner.service.problems import Problem, not_found
from tuner.service.settings import Limits
from tuner.service.uploads import JobUploads, Upload

LEASE_S = 15.0
"""A worker that is not heard from for so long has vanished."""

MOST_SLOTS = 1024
"""Of a worker."""

_FRESH_S = 5.0  # jobs go to workers that were heard from so recently
_LOOK_S = 1.0  # between two looks for workers that have vanished


@dataclass(frozen=True)
class Message:
    """What a worker is to do."""

    number: int  # from 0, for each worker
    kind: str  # job | answer | end
    key: str  # of the job
    go_on: bool = False  # of an answer: whether to train on


@dataclass(eq=False)
class PullWorker:
    """A worker, from its first request until it leaves or vanishes.

    All that changes is used with the lock of the pool held.
    """

    id: str
    key: str | None  # under which it joined
    caller: str
    owner: str | None  # whose jobs it runs; None: those of all
    name: str
    slots: int
    heard: float  # when, on the clock
    lock: threading.RLock  # of the pool
    jobs: dict[str, Job] = field(default_factory=dict)  # that it has, or is about to get
    members: dict[str, str] = field(default_factory=dict)  # the job of each member in progress
    blobs: dict[str, dict[str, bytes | Path]] = field(default_factory=dict)  # by job and name
    uploads: dict[str, JobUploads] = field(default_factory=dict)  # that it sent, by job
    n_answered: int = 0  # requests that the service takes long to answer
    n_events: int = 0  # that were received, with the next lock held
    receiving: threading.Lock = field(default_factory=threading.Lock)
    _messages: deque[Message] = field(default_factory=deque)  # that may not have arrived
    _n_messages: int = 0
    _wakes: list[Callable[[], None]] = field(default_factory=list)

    def take(self, job: Job) -> None:
        """Give it a job."""
        self.jobs[job.key] = job
        self.members |= {member.key: job.key for member in members_of(job)}
        self.send("job", job.key)

    def of_job(self, key: str) -> list[str]:
        """Return the members of a job that have not ended."""
        return [member for member, job in self.members.items() if job == key]

    def send(self, kind: str, key: str, go_on: bool = False) -> None:
        """Send a message; one that waits in a request is woken."""
        self._messages.append(Message(self._n_messages, kind, key, go_on))
        self._n_messages += 1
        self.wake()

    def wake(self) -> None:
        """End the requests that wait for a message."""
        for wake in self._wakes:
            wake()

    def after(self, number: int) -> list[Message]:
        """Return the messages from `number` on; those before have arrived."""
        with self.lock:
            while self._messages and self._messages[0].number < number:
                self._messages.popleft()
            return list(self._messages)

    async def wait(self, number: int, seconds: float) -> None:
        """Wait until there is a message from `number` on; called in the event loop."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(woken.set)

        with self.lock:
            self._wakes.append(wake)
        try:
            if not self.after(number):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await woken.wait()
        finally:
            with self.lock:
                self._wakes.remove(wake)


class PullWorkers:
    """All pull workers: a kind of workers of a `SharedPool`.

    Args:
        pool: whose jobs they run.
        clock: returns the time in seconds.
        most_bytes: of the arrays of one job.
    """

    def __init__(
        self,
        pool: SharedPool,
        clock: Callable[[], float] = time.monotonic,
        most_bytes: int = Limits.upload_bytes,
    ) -> None:
        self._pool, self._clock, self._most_bytes = pool, clock, most_bytes
        self._workers: dict[str, PullWorker] = {}  # with the lock of the pool held
        self._data: dict[str, _Hashes] = {}  # by folder, with the lock of the pool held
        self._stack = contextlib.ExitStack()
        self._uploads = self._stack.enter_context(scratch_folder())
        self._is_closed = threading.Event()
        pool.add(self)
        self._watch = threading.Thread(target=self._look, name="tuner-leases", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """Lose all workers; what they still send is answered 404."""
        self._is_closed.set()
        self._watch.join()
        with self._pool.lock:
            for worker in list(self._workers.values()):
                self._remove(worker)
        self._stack.close()

    # Of a kind of workers, see `tuner.service.pool.Workers`.

    @property
    def n_workers(self) -> int:
        """Slots of all workers."""
        return sum(worker.slots for worker in self._workers.values())

    def serves(self, owner: str) -> bool:
        """Return whether there are workers now that take jobs of an owner."""
        return any(worker.owner in (None, owner) for worker in self._workers.values())

    def wake(self) -> None:
        """Hand jobs to workers that have free slots."""
        recently = self._clock() - _FRESH_S
        for worker in self._workers.values():
            while worker.heard >= recently and len(worker.jobs) < worker.slots:
                if (job := self._pool.take(self, worker.owner)) is None:
                    break
                worker.take(job)

    def answer(self, key: str, go_on: bool) -> None:
        """Send the answer to a report."""
        for worker in self._workers.values():
            if key in worker.members:
                worker.send("answer", key, go_on)

    def end_job(self, key: str) -> None:
        """Have a job ended; its slot is free when the worker has done so."""
        for worker in self._workers.values():
            if key in worker.jobs:
                worker.send("end", key)

    def forget(self, folders: Iterable[str]) -> None:
        """Forget the hashes of data."""
        for folder in folders:
            self._data.pop(folder, None)

    # Of the routes.

    def join(
        self, owner: Owner, name: str, version: str, slots: int, key: str | None = None
    ) -> PullWorker:
        """Return a new worker; the same key gives the same caller the same worker again.

        Raises:
            Problem: 409 if its tuner is of another version.
        """
        if version != __version__:
            versions = f"lstm-tuner {__version__} and the worker {version}"
            raise Problem(409, f"the service has {versions}; install the same")
        only = None if owner.role == "worker" else owner.name
        id_, lock = secrets.token_hex(16), self._pool.lock
        with lock:
            if self._is_closed.is_set():
                raise Problem(503, "the service stops", headers={"Retry-After": "5"})
            for known in self._workers.values() if key is not None else ():
                if (known.caller, known.key) == (owner.name, key):
                    known.heard = self._clock()
                    return known
            worker = PullWorker(id_, key, owner.name, only, name, slots, self._clock(), lock)
            self._workers[worker.id] = worker
            self._pool.wake_all()
        return worker

    def get(self, owner: Owner, id_: str) -> PullWorker:
        """Return a worker of the caller, and renew its lease.

        Raises:
            Problem: 404; also for a worker of another owner, or one that had vanished.
        """
        with self._pool.lock:
            worker = self._workers.get(id_)
            if worker is None or worker.caller != owner.name:
                raise not_found("worker", id_)
            worker.heard = self._clock()
            self._pool.wake_all()
        return worker

    @contextlib.contextmanager
    def answering(self, worker: PullWorker) -> Iterator[None]:
        """Keep the lease of a worker while the service takes long to answer it."""
        with self._pool.lock:
            worker.n_answered += 1
        try:
            yield
        finally:
            with self._pool.lock:
                worker.n_answered -= 1
                worker.heard = self._clock()

    def of(self, owner: Owner) -> list[PullWorker]:
        """Return the workers of the caller."""
        with self._pool.lock:
            return [worker for worker in self._workers.values() if worker.caller == owner.name]

    def leave(self, worker: PullWorker) -> None:
        """Remove a worker that ends, and hand its jobs to others."""
        with self._pool.lock:
            keys = list(worker.jobs)
            self._remove(worker)
            for key in keys:
                self._pool.put_back(key)

    def messages(self, worker: PullWorker, number: int) -> list[Record]:
        """Return the messages from `number` on, as JSON; reads the data of jobs."""
        with self._pool.lock:
            waiting = [(m, worker.jobs.get(m.key)) for m in worker.after(number)]
        records = []
        for message, job in waiting:
            record: Record = {"number": message.number, "key": message.key}
            if message.kind == "answer":
                record["answer"] = message.go_on
            elif message.kind == "end":
                record["end"] = True
            else:  # a job that has ended since is a message without content
                record |= self._job_record(worker, job) if job is not None else {}
            records.append(record)
        return records

    def receive(self, worker: PullWorker, first: int, records: Sequence[Record]) -> int:
        """Take events, numbered from `first`, and return how many have been received in all.

        Those that were received before are ignored.

        Raises:
            Problem: 409 if some are missing in between, 422 if one cannot be read.
        """
        with worker.receiving:
            if first > worker.n_events:
                detail = f"event {worker.n_events} is missing; begin with it"
                raise Problem(409, detail)
            for record in records[worker.n_events - first :]:
                self._receive(worker, record)
                worker.n_events += 1
            return worker.n_events

    def _receive(self, worker: PullWorker, record: Record) -> None:
        key = record["key"]  # of a member, or of the whole job where that ends at once
        with self._pool.lock:
            job = key if key in worker.jobs else worker.members.get(key)
            if job is None:
                return
            if record.get("ended"):  # it was aborted
                self._free(worker, job)
                self._pool.left(job)
                return

        def blob(name: str) -> bytes:
            with self._pool.lock:
                path = worker.uploads[job].path(name)
            return path.read_bytes()

        event, unreadable = None, ""
        try:
            event = event_from_record(record, blob)
        except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
            unreadable = f"an event of {key} cannot be read: {type(error).__name__}: {error}"
        with self._pool.lock:
            if job not in worker.jobs:
                return  # it was lost meanwhile, with its files
            if event is None:
                raise Problem(422, unreadable)
            match event:
                case Reported():
                    self._pool.deliver([event])
                case Returned():
                    self._free(worker, job)
                    self._pool.put_back(job)
                case Lost():
                    self._lose(worker, job, event.reason)
                case Finished():
                    worker.members.pop(key, None)
                    if is_over := not worker.of_job(job):
                        self._free(worker, job)
                    self._pool.deliver([event])
                    if is_over:
                        self._pool.left(job)  # its search may not wait for it any more
            self._pool.wake_all()

    def _lose(self, worker: PullWorker, job: str, reason: str) -> None:
        """Lose a job, of a group all members that have not ended."""
        keys = worker.of_job(job)
        self._free(worker, job)
        self._pool.deliver(Lost(key, reason) for key in keys)
        self._pool.left(job)

    def blob(self, worker: PullWorker, name: str) -> bytes | Path:
        """Return a blob of a job that the worker has.

        Raises:
            Problem: 404.
        """
        with self._pool.lock:
            for blobs in worker.blobs.values():
                if name in blobs:
                    return blobs[name]
        raise not_found("blob", name)

    @contextlib.contextmanager
    def uploading(self, worker: PullWorker, key: str, name: str) -> Iterator[Arriving]:
        """Yield what takes arrays of a job's outcome; they are kept if nothing is raised.

        They are removed with the job, whichever way it leaves its worker.

        Args:
            worker: that has the job.
            key: of the job, or of the member of a group.
            name: the SHA-256 of the arrays, which the caller checks.

        Raises:
            Problem: 409, the worker has no such job; 413, the job gives less.
        """
        with self._pool.lock:
            if (job := worker.jobs.get(worker.members.get(key, ""))) is None:
                raise Problem(409, "the worker has no such job any more; go on")
            if (files := worker.uploads.get(job.key)) is None:
                files = JobUploads(job, self._uploads, self._most_bytes)
                worker.uploads[job.key] = files
            arriving = Arriving(files, files.begin(name), self._pool.lock)
        try:
            yield arriving
            with self._pool.lock:
                files.end(arriving.upload)
        except BaseException:
            with self._pool.lock:
                files.drop(arriving.upload)
            raise

    def _job_record(self, worker: PullWorker, job: Job) -> Record:
        blobs: dict[str, bytes | Path] = {}

        def put(content: bytes) -> str:
            name = sha256_of(content)
            blobs[name] = content
            return name

        data: dict[str, Record] = {}
        try:
            for folder in sorted({ref.folder for ref in data_of(job)}):
                data[folder] = self._files(folder)
                blobs |= {sha: Path(folder, f"{name}.npy") for name, sha in data[folder].items()}
        except OSError as error:  # the search has ended, or its disk fails
            with self._pool.lock:
                if worker.jobs.get(job.key) is job:
                    self._lose(worker, job.key, f"its data cannot be read: {error}")
            return {}
        record = job_to_record(job, put)
        with self._pool.lock:
            if job.key in worker.jobs:
                worker.blobs[job.key] = blobs
        return {"job": record, "data": data}

    def _files(self, folder: str) -> dict[str, str]:
        """Return the SHA-256 of each array of a folder, by name."""
        with self._pool.lock:
            hashes = self._data.setdefault(folder, _Hashes(Path(folder)))
        try:
            return hashes.by_name()
        except OSError:
            with self._pool.lock:
                self._data.pop(folder, None)
            raise

    def _free(self, worker: PullWorker, key: str) -> None:
        worker.jobs.pop(key, None)
        for member in worker.of_job(key):
            del worker.members[member]
        worker.blobs.pop(key, None)
        if (files := worker.uploads.pop(key, None)) is not None:
            files.close()

    def _remove(self, worker: PullWorker) -> None:
        self._workers.pop(worker.id, None)
        worker.wake()
        for key in list(worker.jobs):
            self._free(worker, key)

    def _look(self) -> None:
        """Lose the jobs of workers that have vanished; runs in a thread of its own."""
        while not self._is_closed.wait(_LOOK_S):
            self.expire()

    def expire(self) -> None:
        """Remove the workers whose lease has expired; their jobs are lost."""
        with self._pool.lock:
            since = self._clock() - LEASE_S
            silent = [w for w in self._workers.values() if w.heard < since and not w.n_answered]
            for worker in silent:
                reason = f"its worker {worker.name} has not been heard from for {LEASE_S:g} s"
                keys, jobs = list(worker.members), list(worker.jobs)
                self._remove(worker)
                self._pool.deliver(Lost(key, reason) for key in keys)
                for key in jobs:
                    self._pool.left(key)


@dataclass(frozen=True)
class Arriving:
    """A file that arrives."""

    _files: JobUploads
    upload: Upload
    _lock: threading.RLock

    def grow(self, n_bytes: int) -> None:
        """Count bytes before they are written; raises as `JobUploads.grow` does."""
        with self._lock:
            self._files.grow(self.upload, n_bytes)


class _Hashes:
    """The SHA-256 of the arrays in a folder; read once, and none waits for another folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._known: dict[str, str] | None = None

    def by_name(self) -> dict[str, str]:
        """Return them; raises OSError."""
        with self._lock:
            if self._known is None:
                files = sorted(self._folder.glob("*.npy"))
                if not files:
                    raise FileNotFoundError(f"no arrays in {self._folder.name}")
                self._known = {file.stem: sha256_of_file(file) for file in files}
            return self._known


def to_json(worker: PullWorker) -> dict[str, Any]:
    """Return what the caller sees of a worker."""
    with worker.lock:
        busy = len(worker.jobs)
    return {"id": worker.id, "name": worker.name, "slots": worker.slots, "busy": busy}
