"""The process behind `tuner worker`: it fetches jobs of a service, and runs them here.

It opens no port and unpickles nothing. One thread polls for messages, one sends events, and the
main thread runs jobs in the processes of a `LocalExecutor`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import queue
import secrets
import shutil
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tuner import __version__
from tuner.client.connection import Connection, RefusedError
from tuner.errors import RunError, TunerError, one_line
from tuner.executors.base import Event, Reported
from tuner.executors.local import LocalExecutor
from tuner.jobs import Job, members_of
from tuner.outputs import scratch_folder
from tuner.service.job_records import Record, event_to_record, job_from_record, sha256_of

_POLL_S = 0.3  # at most so long until a signal is seen
_WAIT_S = 5.0  # of a request for messages; it renews the lease
_SILENT_S = 20.0  # without an answer to it
_AGAIN_S = 3.0  # from a failure to the next attempt
_MOST_BYTES = 150_000  # of the events in a request
_KEPT_BYTES = 2 << 30  # of data that no job has now, kept for further ones
_CONFLICT, _TOO_LARGE = 409, 413  # statuses: the job is over; it gives more than it may


class PullAgent:
    """Runs jobs of a service until it is stopped.

    Args:
        server: the URL of the service.
        token: of the caller, or None.
        n_workers: jobs at a time.
        note: shows a line to the user.
        make: makes the executor from the number of workers.
    """

    def __init__(
        self,
        server: str,
        token: str | None,
        n_workers: int,
        note: Callable[[str], None],
        make: Callable[[int], LocalExecutor] = LocalExecutor,
    ) -> None:
        self._server, self._token, self._n_workers = server, token, n_workers
        self._note, self._make = note, make
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._is_out = False  # the service does not answer, and that has been noted
        self._joining = ""  # the key of a request to join; the same until one was answered

    def run(self, stop: threading.Event) -> None:
        """Run jobs until `stop` is set; then running jobs are handed back.

        While the service does not answer, it tries again.

        Raises:
            InputError: the service refuses the worker.
            RunError: no worker process can be started.
        """
        with scratch_folder() as folder:
            while not stop.is_set():
                try:
                    self._run_once(folder, stop)
                except _Unreachable as error:
                    if not self._is_out:
                        self._note(f"{error}; trying again")
                    self._is_out = True
                    stop.wait(_AGAIN_S)

    def _run_once(self, folder: Path, stop: threading.Event) -> None:
        """Run jobs until the service forgets the worker, or does not answer."""
        with contextlib.closing(Connection(self._server, self._token)) as connection:
            about = {"name": self.name, "version": __version__, "slots": self._n_workers}
            self._joining = self._joining or secrets.token_hex(16)
            key = {"Idempotency-Key": self._joining}
            try:
                joined = connection.json("POST", "/v1/workers", body=about, headers=key)
                self._joining = ""
                path = f"/v1/workers/{joined['id']}"
            except RunError as error:
                raise _Unreachable(error) from None
            except (KeyError, TypeError):
                raise RunError("what answers there is no service", where=self._server) from None
            slots = f"{self._n_workers} job{'s' if self._n_workers > 1 else ''} at a time"
            self._note(f"{self.name} runs {slots} for {connection.server}; Ctrl-C hands them back")
            self._is_out = False
            with contextlib.closing(self._make(self._n_workers)) as executor:
                session = _Session(connection, path, executor, _Data(connection, path, folder))
                try:
                    session.run(stop)
                finally:
                    session.close()
                    if not session.is_forgotten:
                        self._leave(path)

    def _leave(self, path: str) -> None:
        # A new connection gives up within seconds.
        with (
            contextlib.suppress(TunerError),
            contextlib.closing(Connection(self._server, self._token)) as connection,
        ):
            connection.send("DELETE", path)


class _Unreachable(RunError):
    """The service does not answer, or has forgotten the worker."""

    def __init__(self, error: TunerError) -> None:
        super().__init__(one_line(error))


@dataclass(eq=False)
class _Folder:
    """Data of jobs, here."""

    path: Path
    fetching: threading.Lock = field(default_factory=threading.Lock)
    size: int | None = None  # bytes; None before it is fetched


class _Data:
    """The data and weights of jobs: fetched once, and kept for the next jobs.

    No lock is held while something is fetched, but that of the one folder.
    """

    def __init__(self, connection: Connection, path: str, folder: Path) -> None:
        self._connection, self._path, self._folder = connection, path, folder
        self._lock = threading.Lock()
        self._folders: dict[Path, _Folder] = {}  # the last used one is last
        for known in folder.iterdir():  # of before a restart of the service
            if known.suffix == ".new":
                shutil.rmtree(known, ignore_errors=True)
            else:
                self._folders[known] = _Folder(known, size=_size_of(known))
        self._users: dict[str, list[_Folder]] = {}  # folders by key of the job

    def hold(self, key: str, folders: dict[str, dict[str, str]]) -> dict[str, str]:
        """Fetch the data of a job, and keep it until `release`.

        Args:
            key: of the job.
            folders: SHA-256 of files, by folder on the service and name.

        Returns:
            The folders here, by folder on the service.

        Raises:
            RefusedError: the service does not have them any more.
            RunError: it does not answer.
            OSError: they cannot be written.
        """
        with self._lock:
            found = {folder: self._folder_of(files) for folder, files in folders.items()}
            self._users[key] = list(found.values())
        try:
            for folder, files in folders.items():
                self._fetch_folder(found[folder], files)
        except BaseException:
            self.release(key)
            raise
        return {folder: str(known.path) for folder, known in found.items()}

    def release(self, key: str) -> None:
        """Note that a job has ended; data beyond what is kept for the next ones is removed."""
        with self._lock:
            self._users.pop(key, None)
            used = {folder for folders in self._users.values() for folder in folders}
            idle = [known for known in self._folders.values() if known not in used]
            kept = sum(known.size or 0 for known in idle)
            for known in idle:
                if known.size is None or kept > _KEPT_BYTES:
                    kept -= known.size or 0
                    del self._folders[known.path]
                    shutil.rmtree(known.path, ignore_errors=True)

    def _folder_of(self, files: dict[str, str]) -> _Folder:
        path = self._folder / sha256_of(json.dumps(sorted(files.items())).encode())
        self._folders[path] = known = self._folders.pop(path, None) or _Folder(path)
        return known

    def _fetch_folder(self, known: _Folder, files: dict[str, str]) -> None:
        with known.fetching:
            if known.size is not None:
                return
            new = known.path.with_suffix(f".{secrets.token_hex(4)}.new")
            try:
                new.mkdir()
                for name, sha256 in files.items():
                    with (new / f"{Path(name).name}.npy").open("wb") as file:
                        self._fetch(sha256, file.write)
                with self._lock:
                    if self._folders.get(known.path) is known:  # else its jobs have ended
                        if not known.path.exists():  # by the session before
                            new.rename(known.path)
                        known.size = _size_of(known.path)
            finally:
                shutil.rmtree(new, ignore_errors=True)

    def blob(self, sha256: str) -> bytes:
        """Return weights; raises as `hold` does."""
        content = io.BytesIO()
        self._fetch(sha256, content.write)
        return content.getvalue()

    def put(self, key: str, content: bytes) -> str:
        """Send arrays of the outcome of a job, and return their name; raises RefusedError."""
        path, file = f"{self._path}/blobs/{sha256_of(content)}", io.BytesIO(content)
        self._connection.send("PUT", path, query={"job": key}, file=file)
        return sha256_of(content)

    def _fetch(self, sha256: str, write: Callable[[bytes], object]) -> None:
        digest = hashlib.sha256()
        answer = self._connection.send("GET", f"{self._path}/blobs/{sha256}", stream=True)
        with contextlib.closing(answer):
            for part in answer.iter_content(1 << 20):
                digest.update(part)
                write(part)
        if digest.hexdigest() != sha256:
            raise RunError("data arrived damaged")


def _size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


class _Session:
    """A worker as the service knows it, until it leaves or is forgotten."""

    def __init__(
        self, connection: Connection, path: str, executor: LocalExecutor, data: _Data
    ) -> None:
        self._connection, self._path = connection, path
        self._executor, self._data = executor, data
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._fetching: set[str] = set()  # keys of jobs that are to begin; of the main thread
        self._members: dict[str, str] = {}  # the job of each training in progress; as above
        self._outgoing: queue.SimpleQueue[Event | Record | None] = queue.SimpleQueue()
        self._is_over = threading.Event()
        self._failure: TunerError | None = None
        self.is_forgotten = False

    def run(self, stop: threading.Event) -> None:
        """Run jobs until `stop` is set.

        Raises:
            _Unreachable: the service does not answer, or has forgotten the worker.
            TunerError: it refuses a request, or no worker process can be started.
        """
        for target in (self._receive, self._send):
            threading.Thread(target=self._guarded, args=(target,), daemon=True).start()
        while not stop.is_set():
            if self._failure is not None:
                raise self._failure
            while not self._actions.empty():
                self._actions.get()()
            for event in self._executor.poll(_POLL_S):
                self._outgoing.put(event)
                if not isinstance(event, Reported):
                    self._release(self._members.pop(event.key, event.key))

    def close(self) -> None:
        """End the threads."""
        self._is_over.set()
        self._outgoing.put(None)

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except RefusedError as error:
            self.is_forgotten = error.status == 404
            rule = "the service does not know this worker any more"
            self._fail(_Unreachable(RunError(rule)) if self.is_forgotten else error)
        except TunerError as error:
            self._fail(_Unreachable(error))
        except Exception as error:
            self._fail(RunError(f"the worker failed: {type(error).__name__}: {one_line(error)}"))

    def _fail(self, error: TunerError) -> None:
        if not self._is_over.is_set():
            self._failure = self._failure or error
            self._executor.wake()

    def _receive(self) -> None:
        """Poll for messages."""
        n_arrived = 0
        while not self._is_over.is_set():
            body = {"after": n_arrived, "wait_s": _WAIT_S}
            answer = self._connection.json(
                "POST", f"{self._path}/lease", body=body, silent_s=_SILENT_S
            )
            for message in answer["messages"]:
                if message["number"] >= n_arrived:
                    n_arrived = message["number"] + 1
                    self._handle(message)

    def _handle(self, message: Record) -> None:
        key = message["key"]
        if "job" in message:
            self._act(lambda: self._fetching.add(key))
            # In a thread of its own: a large file delays no answer.
            threading.Thread(target=self._fetch, args=(key, message), daemon=True).start()
        elif "answer" in message:
            go_on = bool(message["answer"])
            self._act(lambda: self._executor.answer(key, go_on))
        elif "end" in message:
            self._act(lambda: self._end(key))

    def _act(self, action: Callable[[], None]) -> None:
        """Have the main thread do something."""
        if not self._is_over.is_set():
            self._actions.put(action)
            self._executor.wake()

    def _end(self, key: str) -> None:
        self._fetching.discard(key)
        self._executor.end_job(key)
        self._members = {m: job for m, job in self._members.items() if job != key}
        self._release(key)
        self._outgoing.put({"key": key, "ended": True})

    def _release(self, job: str) -> None:
        """Release the data of a job that has ended, of a group once all members have."""
        if job not in self._members.values():
            self._data.release(job)

    def _submit(self, job: Job) -> None:
        self._members |= {member.key: job.key for member in members_of(job)}
        self._executor.submit(job)

    def _fetch(self, key: str, message: Record) -> None:
        """Fetch the data of a job, and have it begun."""
        try:
            folders = self._data.hold(key, message["data"])
            job = job_from_record(message["job"], self._data.blob, folders)
        except Exception as error:
            self._data.release(key)
            reason = f"its data did not reach the worker: {one_line(error)}"
            lost = {"key": key, "lost": reason[:1000]}
            self._act(lambda: self._begin(key, lambda: self._outgoing.put(lost)))
            return
        self._act(lambda: self._begin(key, lambda: self._submit(job)))

    def _begin(self, key: str, action: Callable[[], None]) -> None:
        """Do something with a job whose data was fetched, unless it was ended meanwhile."""
        if key in self._fetching:
            self._fetching.discard(key)
            action()
        else:
            self._data.release(key)

    def _send(self) -> None:
        """Send events, as many at a time as there are."""
        n_sent, is_over = 0, False
        while not is_over:
            records, size = list[Record](), 0
            while not records or (size < _MOST_BYTES and not self._outgoing.empty()):
                if (event := self._outgoing.get()) is None:
                    is_over = True
                    break
                if (record := self._record(event)) is not None:
                    records.append(record)
                    size += len(json.dumps(record))
            body = {"first": n_sent, "events": records}
            if records and not self._is_over.is_set():
                self._connection.send("POST", f"{self._path}/events", body=body)
            n_sent += len(records)

    def _record(self, event: Event | Record) -> Record | None:
        """Return an event as JSON, its arrays sent; None if the service waits for it no more."""
        if isinstance(event, dict):
            return event
        try:
            return event_to_record(event, partial(self._data.put, event.key))
        except RefusedError as error:
            if error.status == _CONFLICT:
                return None
            if error.status == _TOO_LARGE:
                return {"key": event.key, "lost": f"its arrays are refused: {one_line(error)}"}
            raise
