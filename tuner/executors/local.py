"""Worker processes on this machine, one job each at a time."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections import deque
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import IO

from tuner.errors import one_line
from tuner.executors.base import Event, Finished, Lost
from tuner.jobs import Job

__all__ = ["LocalExecutor"]

# One thread a worker: several workers beat several threads on models of this size, and the
# order of floating-point sums no longer depends on how many cores there are.
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}


class _Worker:
    """One process and the connection to it."""

    def __init__(self, module: str) -> None:
        self.connection, theirs = Pipe()
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        # A process group of its own: Ctrl-C is for the coordinator, which decides what ends.
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self.errors,
            stderr=self.errors,
            env=os.environ | _ONE_THREAD,
            process_group=0,
        )
        theirs.close()
        self.job: Job | None = None

    def begin(self, job: Job) -> None:
        self.job = job
        try:
            self.connection.send(job)
        except OSError:
            return  # it died: the connection's end, read next, says so

    def how_it_died(self) -> str:
        """Return the exit status in words, with the last thing that the process wrote."""
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed the connection but lives: end it
            self.process.kill()
            status = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        return f"its worker died ({how})" + (f": {one_line(lines[-1])}" if lines else "")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.errors.close()


class LocalExecutor:
    """Runs jobs in `n_workers` processes, started as `python -m` so that any script can use it.

    A worker that dies loses its job alone; another is started in its place when one is needed.
    """

    def __init__(self, n_workers: int, module: str = "tuner.executors.worker") -> None:
        """Start no worker yet: each starts when there is a job for it.

        Args:
            n_workers: processes at a time.
            module: what a process runs; it must speak as `tuner.executors.worker` does.

        Raises:
            ValueError: `n_workers` is below 1.
        """
        if n_workers < 1:
            raise ValueError(f"n_workers must be at least 1, got {n_workers}")
        self.n_workers = n_workers
        self._queue: deque[Job] = deque()
        self._module = module
        self._workers: list[_Worker] = []

    def submit(self, job: Job) -> None:
        """Queue a job, and hand it to a worker if one is free."""
        self._queue.append(job)
        self._assign()

    def poll(self, timeout_s: float) -> list[Event]:
        """Return the events of all workers, waiting up to `timeout_s` for the first."""
        self._assign()
        by_connection = {w.connection: w for w in self._workers}
        events: list[Event] = []
        for connection in wait(list(by_connection), timeout_s):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            try:
                event: Event = connection.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                events += self._bury(worker)
                continue
            if isinstance(event, Finished):
                worker.job = None
            events.append(event)
        self._assign()
        return events

    def answer(self, key: str, go_on: bool) -> None:
        """Tell a waiting job whether to train on; a worker that has died meanwhile is no error."""
        for worker in self._workers:
            if worker.job is not None and worker.job.key == key:
                try:
                    worker.connection.send(go_on)
                except OSError:
                    return

    def withdraw(self) -> list[str]:
        """Drop the jobs that no worker has begun."""
        keys = [job.key for job in self._queue]
        self._queue.clear()
        return keys

    def close(self) -> None:
        """Kill the workers: they hold nothing that is not in the journal or to be made again."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [w.process.pid for w in self._workers]

    def _assign(self) -> None:
        while self._queue:
            free = next((w for w in self._workers if w.job is None), None)
            if free is None:
                if len(self._workers) >= self.n_workers:
                    return
                free = _Worker(self._module)
                self._workers.append(free)
            free.begin(self._queue.popleft())

    def _bury(self, worker: _Worker) -> list[Event]:
        self._workers.remove(worker)
        reason = worker.how_it_died()
        worker.end()
        return [Lost(worker.job.key, reason)] if worker.job is not None else []
