"""Worker processes on this machine, one job each at a time, and its GPUs."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import IO, TYPE_CHECKING, Any

from tuner.errors import RunError, one_line
from tuner.executors.base import Died, Executor, Message
from tuner.executors.choice import Machines, n_cores
from tuner.executors.pool import PooledWorker, WorkerPool
from tuner.jobs import Job
from tuner.processes import start_command

if TYPE_CHECKING:
    from tuner.experiment.schema import Resources

__all__ = ["LocalExecutor", "find_gpus", "least_used", "open_local", "this_machine"]

_LISTED = re.compile(r"^(?P<part>\s+MIG )?.*\(UUID: (?P<uuid>[\w/-]+)\)\s*$")


def find_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    Those of that variable where it is set, else those that nvidia-smi lists; none where that is
    missing or fails. Of a GPU that is cut into MIG instances its instances are returned.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return _usable(visible.split(","))
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ()
    return _parse(listed.splitlines())


def least_used(gpus: Sequence[str], in_use: Iterable[str], n: int) -> list[str]:
    """Return the `n` GPUs that stand least often in `in_use`, the first ones of equals."""
    users = Counter(in_use)
    return sorted(gpus, key=lambda gpu: users[gpu])[:n]


def _usable(names: list[str]) -> tuple[str, ...]:
    """Return the names before the first that CUDA would not understand: it reads no further."""
    found: list[str] = []
    for name in map(str.strip, names):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name):
            break
        found.append(name)
    return tuple(found)


def _parse(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the GPUs by UUID, as CUDA counts them in another order than nvidia-smi."""
    found: list[str] = []
    whole: str | None = None  # the GPU that the next lines may be parts of
    for match in filter(None, map(_LISTED.match, lines)):
        if match["part"] is None:
            whole = match["uuid"]
            found.append(whole)
        else:
            if whole in found:
                found.remove(whole)
            found.append(match["uuid"])
    return tuple(found)


# One thread a worker: several workers beat several threads on models of this size, and the
# order of floating-point sums no longer depends on how many cores there are.
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}

_START_S = 120.0  # after which a worker that is still starting counts as one that cannot

_END_S = 30.0  # that a killed process is waited for; one that the kernel holds may never end


class _Process(PooledWorker):
    """One process and the connection to it, at whose other end is `tuner.executors.worker`."""

    def __init__(self, module: str, gpus: Sequence[str]) -> None:
        """Start the process.

        Raises:
            OSError: there is no room for it, or no file that it needs.
        """
        super().__init__(ready=False, start_limit_s=_START_S)
        self.gpus = gpus
        pinned = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
        with ExitStack() as undone_on_failure:
            self.connection, theirs = Pipe()
            undone_on_failure.callback(self.connection.close)
            with theirs:
                self.errors: IO[bytes] = undone_on_failure.enter_context(tempfile.TemporaryFile())
                # A process group of its own: Ctrl-C is for the coordinator, which decides what
                # ends.
                self.process = subprocess.Popen(
                    start_command(module, str(theirs.fileno())),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=self.errors,
                    stderr=self.errors,
                    env=os.environ | _ONE_THREAD | pinned,
                    process_group=0,
                )
            undone_on_failure.pop_all()

    def send_job(self, job: Job) -> None:
        self._send(job)

    def send_answer(self, go_on: bool) -> None:
        self._send(go_on)

    def receive(self) -> Message:
        """Return what the process has said; called where there is something."""
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return Died(self._how_it_died())
        return message

    def end(self) -> None:
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_S)
        self.connection.close()
        self.errors.close()

    def _send(self, what: Any) -> None:
        try:
            self.connection.send(what)
        except OSError:
            return  # it died: the connection's end, read next, says so

    def _how_it_died(self) -> str:
        """Return the exit status in words, with the last thing that the process wrote."""
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed the connection but lives: end it
            self.process.kill()
            status = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        if status == -signal.SIGKILL:
            how += "; out of memory, perhaps"
        who = "its worker" if self.ready else "it"  # a job's, or one that was to have one
        return f"{who} died ({how})" + (f": {one_line(lines[-1])}" if lines else "")


class LocalExecutor(WorkerPool[_Process]):
    """Runs jobs in `n_workers` processes; a script that uses it needs no `__main__` guard.

    Where there are GPUs each process sees the one that the fewest others use.
    """

    def __init__(
        self, n_workers: int, module: str = "tuner.executors.worker", *, gpus_each: int = 1
    ) -> None:
        """Start no worker yet: each starts when there is a job for it.

        Args:
            n_workers: processes at a time.
            module: what a process runs; it must speak as `tuner.executors.worker` does.
            gpus_each: how many of the GPUs a process sees.

        Raises:
            ValueError: `n_workers` is below 1.
        """
        super().__init__(n_workers)
        self._module, self._gpus_each = module, gpus_each

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [w.process.pid for w in self._workers]

    @cached_property
    def _gpus(self) -> tuple[str, ...]:
        return find_gpus()

    def _start_worker(self) -> _Process:
        in_use = [gpu for worker in self._workers for gpu in worker.gpus]
        try:
            return _Process(self._module, least_used(self._gpus, in_use, self._gpus_each))
        except OSError as error:
            why = error.strerror or one_line(error)
            what = f": {error.filename}" if error.filename else ""
            remedy = "the same command goes on, with fewer --workers say"
            raise RunError(f"no worker can be started: {why}{what}", remedy=remedy) from None

    def _listen(self, timeout_s: float) -> list[tuple[_Process, Message]]:
        by_connection = {w.connection: w for w in self._workers}
        said: list[tuple[_Process, Message]] = []
        for connection in wait(list(by_connection), timeout_s):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            said.append((worker, worker.receive()))
        return said


def open_local(
    name: str, resources: Resources, note: Callable[[str], None]
) -> tuple[Machines, Callable[[int], Executor]]:
    """Return this machine, and what makes the executor; see `tuner.executors.choice.Opener`."""
    gpus_each = max(1, int(resources.gpus))
    return this_machine(resources), partial(LocalExecutor, gpus_each=gpus_each)


def this_machine(resources: Resources) -> Machines:
    """Return this machine; its GPUs are looked up only if a worker takes some."""
    n_gpus = len(find_gpus()) if resources.gpus else 0
    return Machines([{"CPU": n_cores(), "GPU": n_gpus}], is_cluster=False)
