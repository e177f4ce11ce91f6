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
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import IO, TYPE_CHECKING, Any

from tuner.errors import RunError, one_line
from tuner.executors.base import Alarm, Died, Executor, Message, PooledWorker, WorkerPool
from tuner.executors.choice import Machines, n_cores
from tuner.jobs import Job
from tuner.processes import start_command
from tuner.template import ONE_THREAD, Fork, Template, can_fork, take_expected

if TYPE_CHECKING:
    from tuner.experiment.schema import Resources

_LISTED = re.compile(r"^(?P<part>\s+MIG )?.*\(UUID: (?P<uuid>[\w/-]+)\)\s*$")


def find_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    They are those of that variable if it is set, else those that nvidia-smi lists; none if that
    is missing or fails. For a GPU that is cut into MIG instances, its instances are returned.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:  # CUDA reads no further than the first name that it does not know
        names = map(str.strip, visible.split(","))
        return tuple(takewhile(re.compile(r"\d+|(GPU|MIG)-[\w/-]+").fullmatch, names))
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ()
    return _by_uuid(listed.splitlines())


def _by_uuid(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the UUIDs that nvidia-smi lists: CUDA counts GPUs in another order."""
    found: list[str] = []
    whole: str | None = None  # the GPU that the next lines may be parts of
    for match in filter(None, map(_LISTED.match, lines)):
        if match["part"] is None:
            whole = match["uuid"]
        elif whole in found:
            found.remove(whole)
        found.append(match["uuid"])
    return tuple(found)


def trains_on(gpus: Sequence[str]) -> bool:
    """Return whether workers train on these GPUs where a job leaves the device to them.

    That takes one, and a PyTorch that is no build for CPUs; it is not imported to find out.
    """
    try:
        return bool(gpus) and not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


_START_S = 120.0  # after that a worker that is still starting counts as one that cannot
_END_S = 30.0  # wait for a killed process; one that the kernel holds may never end


class _Process(PooledWorker):
    """A process that runs `tuner.executors.worker`, and the connection to it.

    Args:
        module: run in place of that one.
        gpus: the GPUs that it sees; all that this process sees if there are none.
        template: forks it; None starts it.

    Raises:
        OSError: there is no room for the process, or a file that it needs is missing.
    """

    def __init__(self, module: str, gpus: Sequence[str], template: Template | None) -> None:
        super().__init__(_START_S)
        self.gpus = gpus
        pinned = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
        with ExitStack() as undone_on_failure:
            self.connection, theirs = Pipe()
            undone_on_failure.callback(self.connection.close)
            with theirs:
                self.errors: IO[bytes] = undone_on_failure.enter_context(tempfile.TemporaryFile())
                self.process = self._begun(module, theirs.fileno(), pinned, template)
            undone_on_failure.pop_all()

    def _begun(
        self, module: str, connection: int, pinned: dict[str, str], template: Template | None
    ) -> subprocess.Popen[bytes] | Fork:
        environment = os.environ | ONE_THREAD | pinned
        if template is not None:
            return template.fork(module, connection, self.errors.fileno(), environment)
        return subprocess.Popen(
            start_command(module, str(connection)),
            pass_fds=[connection],
            stdin=subprocess.DEVNULL,
            stdout=self.errors,
            stderr=self.errors,
            env=environment,
            process_group=0,  # of its own: Ctrl-C is for the coordinator alone
        )

    def send_job(self, job: Job) -> None:
        self._send(job)

    def send_answers(self, answers: Sequence[bool]) -> None:
        self._send(list(answers))

    def _send(self, content: Any) -> None:
        with suppress(OSError):  # it died: `receive` reports that
            self.connection.send(content)

    def receive(self) -> Message:
        """Return the next message; called when there is one."""
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

    def _how_it_died(self) -> str:
        """Return the exit status in words, with the last line of output."""
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed the connection and lives
            self.process.kill()
            status = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        if status is None:
            how = "its exit status is unknown"
        else:
            how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        if status == -signal.SIGKILL:
            how += "; out of memory, perhaps"
        who = "its worker" if self.ready else "it"  # `its`: the job's
        return f"{who} died ({how})" + (f": {one_line(lines[-1])}" if lines else "")


class LocalExecutor(WorkerPool[_Process]):
    """Runs jobs in `n_workers` processes; a script that uses it needs no `__main__` guard.

    If there are GPUs, each process sees the one that the fewest others use. On Linux a `Template`
    forks the processes: the one of `tuner.template.workers_expected` if there is one, else its own.

    Args:
        n_workers: processes at a time; each starts when there is a job for it.
        module: run by a process; it must follow the protocol of `tuner.executors.worker`.
        gpus_each: number of the GPUs that a process sees.

    Raises:
        ValueError: `n_workers` is below 1.
    """

    def __init__(
        self, n_workers: int, module: str = "tuner.executors.worker", *, gpus_each: int = 1
    ) -> None:
        super().__init__(n_workers)
        self._module, self._gpus_each = module, gpus_each
        self._alarm = Alarm()
        self._forks = can_fork()
        self._template = take_expected()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers; one that a template is to fork has none yet."""
        return [w.process.pid for w in self._workers if w.process.pid is not None]

    def expect(self) -> None:
        """Have what takes long at the start of workers begin now."""
        with suppress(OSError):  # the start of a worker will report it
            self._ready_template()

    @property
    def has_gpus(self) -> bool:
        """Whether there are GPUs here that PyTorch uses, of which each process sees one."""
        return trains_on(self._gpus)

    def wake(self) -> None:
        """Have a `poll` that waits return at once."""
        self._alarm.set()

    def close(self) -> None:
        """End the workers."""
        super().close()
        if self._template is not None:
            self._template.close()
        self._alarm.close()

    @cached_property
    def _gpus(self) -> tuple[str, ...]:
        return find_gpus()

    def _start_worker(self) -> _Process:
        users = Counter(gpu for worker in self._workers for gpu in worker.gpus)
        least_used = sorted(self._gpus, key=lambda gpu: users[gpu])[: self._gpus_each]
        try:
            return _Process(self._module, least_used, self._ready_template())
        except OSError as error:
            why = error.strerror or one_line(error)
            what = f": {error.filename}" if error.filename else ""
            remedy = "the same command resumes, with fewer --workers say"
            raise RunError(f"no worker can be started: {why}{what}", remedy=remedy) from None

    def _ready_template(self) -> Template | None:
        """Return a template that forks, now or soon; None where processes are to be started."""
        if self._template is not None and self._template.has_ended:
            self._forks, self._template = not self._template.is_unfit, None
        if self._forks and self._template is None:
            self._template = Template()
        return self._template

    def _listen(self, timeout_s: float) -> list[tuple[_Process, Message]]:
        by_connection = {w.connection: w for w in self._workers}
        alarm, template = self._alarm.fileno(), self._template
        heard: list[Any] = [] if template is None or template.has_ended else [template]
        ready: list[Any] = wait([*by_connection, alarm, *heard], timeout_s)
        if alarm in ready:
            self._alarm.clear()
            ready.remove(alarm)
        for each in heard:
            if each in ready:
                each.hear()
                ready.remove(each)
        return [(by_connection[c], by_connection[c].receive()) for c in ready]


def open_local(
    name: str, resources: Resources, note: Callable[[str], None]
) -> tuple[Machines, Callable[[int], Executor]]:
    """Return this machine, and the maker of the executor; see `tuner.executors.choice.Opener`."""
    gpus_each = max(1, int(resources.gpus))
    return this_machine(resources), partial(LocalExecutor, gpus_each=gpus_each)


def this_machine(resources: Resources) -> Machines:
    """Return this machine; its GPUs are looked up only if workers take some."""
    n_gpus = len(find_gpus()) if resources.gpus else 0
    return Machines([{"CPU": n_cores(), "GPU": n_gpus}], is_cluster=False)
