"""The template of workers: a process that has imported what they need, and forks them.

A worker that is started imports torch and scikit-learn, seconds of work; one that is forked has
them. This file is the end of whoever wants workers. It imports little, so that a command starts
the template before all else; `tuner.executors.forking` is the template's program.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from tuner.processes import import_path, start_command

# One thread a worker: several workers beat several threads on models of this size, and the
# order of floating-point sums no longer depends on how many cores there are.
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}

# Only a process of one thread is forked, and the allocator of Arrow, which pandas brings, has one.
_NO_THREAD_OF_ARROW = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}

_PROGRAM = "tuner.executors.forking"
_ANSWER_S = 30.0  # a fork takes milliseconds: after that the template counts as gone
_SIZE = 4  # bytes before a message that hold its length

searching: int | None = None
"""In a fork: the descriptor of the process that wants it, which can be read once that has ended."""


@functools.cache
def can_fork() -> bool:
    """Return whether this system has what templates need: Linux, with descriptors of processes."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # an old kernel, or a sandbox that forbids it
        return False
    return True


def send(connection: socket.socket, message: dict[str, Any], files: Sequence[int] = ()) -> None:
    """Send a message with descriptors of files; raises OSError."""
    payload = json.dumps(message).encode()
    data = len(payload).to_bytes(_SIZE, "big") + payload
    connection.sendall(data[socket.send_fds(connection, [data], files) :])


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the next message and its descriptors; raises OSError, or EOFError at the end."""
    begun, files, _, _ = socket.recv_fds(connection, _SIZE, 4, socket.MSG_CMSG_CLOEXEC)
    if not begun:
        raise EOFError
    size = begun + _exactly(connection, _SIZE - len(begun))
    return json.loads(_exactly(connection, int.from_bytes(size, "big"))), files


def _exactly(connection: socket.socket, n_bytes: int) -> bytes:
    found = bytearray()
    while len(found) < n_bytes:
        if not (more := connection.recv(n_bytes - len(found))):
            raise EOFError
        found += more
    return bytes(found)


class Fork:
    """A process that a template forks as soon as it can; a `subprocess.Popen` in what it offers."""

    def __init__(self, template: Template, order: dict[str, Any], files: Sequence[int]) -> None:
        """Note what to fork, with copies of the files that it gets; raises OSError."""
        self.pid: int | None = None
        """None before the fork, and where there was none."""
        self.order, self.files = order, list[int]()
        self._template = template
        self.returncode: int | None = None
        """Its exit status, negative for a signal; None while it lives, or where it is unknown."""
        self._process: int | None = None  # its descriptor, while it may live
        try:
            for file in files:
                self.files.append(os.dup(file))
        except OSError:
            self.let_go()
            raise

    def let_go(self) -> None:
        """Close the copies of the files; without them there will be no fork."""
        while self.files:
            os.close(self.files.pop())

    def begin(self, pid: int, process: int) -> None:
        """Note the process, which has the files: its id and its descriptor."""
        self.pid, self._process = pid, process
        self.let_go()

    def fail(self, why: bytes) -> None:
        """Have there be no fork, and the last output of what would have been one say why."""
        if self.files:
            os.write(self.files[-1], why)
            self.returncode = 1
        self.let_go()

    def kill(self) -> None:
        """Kill the process, or have there be none."""
        if self.files:
            self.let_go()
            self.returncode = -signal.SIGKILL
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit status when it has ended; None if its template ended before it.

        Raises:
            subprocess.TimeoutExpired: it has not ended after so many seconds.
        """
        if self._process is not None:
            ended = select.poll()
            ended.register(self._process, select.POLLIN)
            if not ended.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
            os.close(self._process)
            self._process = None
            while self.returncode is None and not self._template.has_ended:
                self._template.hear()
        return self.returncode


class Template:
    """A process from which workers are forked.

    It ends with the process that made it. When it is killed, its forks go on, and another one has
    to fork what is wanted next. All methods are called from one thread.
    """

    def __init__(self) -> None:
        """Start it, and return at once: it is ready after some seconds.

        Raises:
            OSError: there is no room for the process, or Python is gone.
        """
        self.has_ended = False
        self.is_unfit = False
        """Whether forks of such a process would not be safe here."""
        self._is_ready = False
        self._waiting: list[Fork] = []  # until it is ready
        self._ordered: Fork | None = None  # and not yet answered
        self._forks: dict[int, Fork] = {}  # that have not ended, by process id
        with ExitStack() as undone_on_failure:
            self._connection, theirs = socket.socketpair()
            undone_on_failure.callback(self._connection.close)
            with theirs:
                self._output: IO[bytes] = undone_on_failure.enter_context(tempfile.TemporaryFile())
                # In a process group of its own: Ctrl-C is for the coordinator alone.
                self._process = subprocess.Popen(
                    start_command(_PROGRAM, str(theirs.fileno())),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    env=_NO_THREAD_OF_ARROW | os.environ | ONE_THREAD,
                    process_group=0,
                )
            undone_on_failure.pop_all()
        self._connection.settimeout(_ANSWER_S)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fileno(self) -> int:
        """Return the descriptor that can be read when `hear` has something to take in."""
        return self._connection.fileno()

    def fork(self, module: str, connection: int, output: int, environment: dict[str, str]) -> Fork:
        """Fork a process that runs a module, as soon as that is possible.

        It sees what a process that is started now would see: folder, import path, environment.

        Args:
            module: run with the number of the connection as its argument.
            connection: descriptor, which the process gets under another number.
            output: descriptor of the file for its output.
            environment: all of it.

        Raises:
            OSError: too many files are open.
        """
        order = {"module": module, "environment": environment, "path": import_path()}
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it
            order["folder"] = str(Path.cwd())
        fork = Fork(self, order, (connection, output))
        if self._is_ready and not self.has_ended:
            self._order(fork)
        else:
            self._waiting.append(fork)
        return fork

    def hear(self) -> None:
        """Take in a message, waiting for it; of forks that ended, or that forking can begin."""
        try:
            message, files = receive(self._connection)
        except (OSError, EOFError):
            self._end()
            return
        match message:
            case {"pid": pid, "status": status}:
                if (ended := self._forks.pop(pid, None)) is not None:
                    ended.returncode = status
            case {"pid": pid}:
                self._begin(pid, files)
            case {"refused": why}:
                self._answered().fail(why.encode())
            case {"ready": False}:
                self.is_unfit = True
                self._end()
            case {"ready": True}:
                self._is_ready = True
                waiting, self._waiting = self._waiting, []
                for fork in waiting:
                    self._order(fork)

    def _begin(self, pid: int, files: Sequence[int]) -> None:
        """Note the process of the fork that was ordered."""
        fork = self._answered()
        if not files:  # no room here for its descriptor
            os.kill(pid, signal.SIGKILL)
            fork.fail(os.strerror(errno.EMFILE).encode())
            return
        fork.begin(pid, files[0])
        self._forks[pid] = fork

    def _answered(self) -> Fork:
        """Return the fork that was ordered."""
        assert self._ordered is not None
        fork, self._ordered = self._ordered, None
        return fork

    def close(self) -> None:
        """End it; its forks live on."""
        if not self.has_ended:
            self._end()

    def _order(self, fork: Fork) -> None:
        if not fork.files:  # it was killed before it could be forked
            return
        self._ordered = fork
        try:
            if not self.has_ended:
                send(self._connection, fork.order, fork.files)
        except OSError:
            self._end()
        while self._ordered is fork and not self.has_ended:
            self.hear()
        if self._ordered is fork:
            self._answered().fail(self._last_output)

    def _end(self) -> None:
        self.has_ended = True
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._output.seek(0)
        self._last_output = self._output.read() or b"the process that forks workers has ended"
        self._output.close()
        waiting, self._waiting = self._waiting, []
        for fork in waiting:
            fork.fail(self._last_output)


_expected: list[Template] = []  # started for an executor that is not made yet


@contextlib.contextmanager
def workers_expected(expected: bool = True) -> Iterator[None]:
    """Have a template start beside what the caller does before it makes an executor.

    The executor takes it; one that nobody has taken ends with the block. On a single core there is
    nothing to win, and within another such block there is one already.
    """
    if not expected or _expected or not can_fork() or len(os.sched_getaffinity(0)) < 2:
        yield
        return
    try:
        template = Template()
    except OSError:  # the executor will say so
        yield
        return
    _expected.append(template)
    try:
        yield
    finally:
        if template in _expected:
            _expected.remove(template)
            template.close()


def take_expected() -> Template | None:
    """Return the template that was started for an executor; None if there is none."""
    return _expected.pop() if _expected else None
