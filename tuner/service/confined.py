"""Reads what clients upload in processes of their own, with limits of memory and time.

A hostile file can then neither hold the service nor kill it. One process imports what reading
needs; each task is a fork of it, which takes milliseconds and answers in JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import json
import logging
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tuner.errors import (
    DataError,
    ExperimentError,
    InputError,
    Interrupted,
    TunerError,
    one_line,
)
from tuner.executors.base import STOPPED
from tuner.processes import start_command
from tuner.service.hiding import for_clients
from tuner.service.problems import Problem

TASKS, OF_SEARCHES = "tuner.service.reading", "tuner.service.preparing"
"""The modules whose functions are the tasks; each takes one JSON object and returns another."""

_STARTED, _START_S = struct.Struct("=I"), 120.0  # the process's number, once it is there
_OF_REQUEST, _OF_SEARCH = b"r", b"s"
_LOOK_S = 0.1  # between two looks at whether a task is still wanted
_MOST_REPLY = 16 << 20  # bytes
_LONGEST_TEXT = 1000  # characters of a part of a message
_WAITING = 16  # tasks of an owner that run or wait
_WAIT_S = 120.0
_PLAIN = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
_log = logging.getLogger("tuner.service")


@dataclass(frozen=True)
class Allowed:
    """What a task may take."""

    seconds: float
    """CPU time; it may last three times as long."""

    memory: int | None
    """Bytes of address space over those of an idle process; None: no limit."""

    file_bytes: int = 64 << 20
    """Bytes of a file that it writes."""

    use: str = "read"
    """What is done with the file, for messages: it takes too long to be *read*."""

    smaller: str = "give a smaller file"
    """The remedy where it takes more."""

    other: str = "write it again, as CSV say"
    """The remedy where the task fails."""


def most_memory() -> int:
    """Return the bytes that a task may take: 4 GiB, or a quarter of this machine's memory."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(4 << 30, machine // 4)


class Confined:
    """Runs tasks in processes with limits.

    Args:
        root: the service's folder; messages have the names of its files without their folders.
        n_at_once: tasks of requests at a time; two for each core by default. An owner has half of
            them. Searches have turns of their own, of which an owner has two.
    """

    def __init__(self, root: Path, n_at_once: int | None = None) -> None:
        n_cores = os.cpu_count() or 1
        n_at_once = n_at_once or max(2, 2 * n_cores)
        self._root, self._lock = root, threading.Lock()
        self._requests = _Turns(n_at_once, max(1, n_at_once // 2))
        self._searches = _Turns(max(6, 2 * n_cores), 2)
        self._template: _Template | None = None

    def run(
        self,
        task: str,
        given: Mapping[str, Any],
        *,
        owner: str,
        what: str,
        allowed: Allowed,
        stop: threading.Event | None = None,
    ) -> Any:
        """Run a task and return its result.

        Args:
            task: the name of a function in `TASKS`, or with `stop` in `OF_SEARCHES`.
            given: its argument, as JSON.
            owner: for whom it runs.
            what: the file that it reads, for messages.
            allowed: what it may take.
            stop: of a search: it waits for its turn as long as it takes, and once this is set the
                task is killed.

        Raises:
            InputError: as the task raised it, or because it exceeded a limit or failed.
            Interrupted: `stop` was set.
            Problem: 429 if too many tasks of the owner wait, 503 if it did not start.
        """
        module, turns = (TASKS, self._requests) if stop is None else (OF_SEARCHES, self._searches)
        request = {"task": [module, task], "given": given, "allowed": dataclasses.asdict(allowed)}
        content = json.dumps(request).encode()
        with turns.of(owner, stop):
            reply = self._ask(content, allowed, stop)
        if not reply:
            raise DataError(_exceeded(allowed), where=what, remedy=allowed.smaller)
        answer = json.loads(reply)
        if "error" in answer:
            raise self._error({"where": what} | answer["error"])
        if "failed" in answer:
            _log.warning("a task failed: %s", answer["traceback"])
            rule = f"cannot be {allowed.use}: {answer['failed']}"
            raise DataError(rule, where=what, remedy=allowed.other)
        return answer["result"]

    def close(self) -> None:
        """End the process that tasks are forked from; running tasks end by themselves."""
        with self._lock:
            if self._template is not None:
                self._template.close()
                self._template = None

    def _ask(self, content: bytes, allowed: Allowed, stop: threading.Event | None) -> bytes:
        """Return the reply of a fork; nothing if it was killed."""
        for _ in range(2):  # the process that forks may have been killed
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    self._hand_over(theirs, for_search=stop is not None)
                fork = _Fork(ours, stop)
                if fork.starts():
                    return fork.answer(content, 3 * allowed.seconds + 10)
            self.close()
        raise Problem(503, "the service cannot read files now", headers={"Retry-After": "10"})

    def _hand_over(self, connection: socket.socket, *, for_search: bool) -> None:
        with self._lock:
            if self._template is None or not self._template.hand_over(connection, for_search):
                if self._template is not None:
                    self._template.close()
                self._template = _Template()
                self._template.hand_over(connection, for_search)

    def _error(self, fields: dict[str, Any]) -> InputError:
        fields = {name: for_clients(text, self._root) for name, text in fields.items()}
        kind = ExperimentError if fields.pop("kind", "") == "experiment" else DataError
        return kind(fields.pop("rule"), **fields)


class _Turns:
    """Who may run a task: so many at a time, and so many of each owner.

    Args:
        n_at_once: tasks at a time.
        of_one: of these, those of one owner.
    """

    def __init__(self, n_at_once: int, of_one: int) -> None:
        self._changed, self._of_one = threading.Condition(), of_one
        self.n_free, self.running, self.waiting = n_at_once, Counter[str](), Counter[str]()

    @contextlib.contextmanager
    def of(self, owner: str, stop: threading.Event | None) -> Iterator[None]:
        """Wait until a task of the owner may run; see `Confined.run`."""
        with self._changed:
            if stop is None and self.waiting[owner] >= _WAITING:
                detail = f"{_WAITING} files of yours are being read, the limit; try again"
                raise Problem(429, detail, headers={"Retry-After": "2"})
            self.waiting[owner] += 1
            try:
                self._wait(owner, stop)
                self.n_free -= 1
                self.running[owner] += 1
            except BaseException:
                self.waiting[owner] -= 1
                raise
        try:
            yield
        finally:
            with self._changed:
                self.n_free += 1
                self.running[owner] -= 1
                self.waiting[owner] -= 1
                self._changed.notify_all()

    def _wait(self, owner: str, stop: threading.Event | None) -> None:
        def may_run() -> bool:
            return self.n_free > 0 and self.running[owner] < self._of_one

        if stop is None:
            if not self._changed.wait_for(may_run, _WAIT_S):
                detail = "the service reads other files; try again"
                raise Problem(503, detail, headers={"Retry-After": "10"})
            return
        while not self._changed.wait_for(may_run, _LOOK_S):
            _interrupt_if(stop)


def _interrupt_if(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise Interrupted(STOPPED)


class _Fork:
    """A process that does one task, at the other end of a connection.

    Args:
        connection: to it.
        stop: kills it.
    """

    def __init__(self, connection: socket.socket, stop: threading.Event | None) -> None:
        self._connection, self._stop, self._group = connection, stop, 0

    def starts(self) -> bool:
        """Wait until it is there; return whether it is."""
        started = self._receive(_STARTED.size, _START_S)
        if len(started) == _STARTED.size:
            (self._group,) = _STARTED.unpack(started)
        return self._group > 0

    def answer(self, content: bytes, seconds: float) -> bytes:
        """Send a request and return the reply; nothing if there is no whole one."""
        reply = b""
        try:
            self._connection.settimeout(seconds)
            with contextlib.suppress(OSError):
                self._connection.sendall(content + b"\n")
                reply = self._receive(_MOST_REPLY + 1, seconds)
        finally:
            if not reply.endswith(b"\n"):
                self._kill()
        return reply[:-1] if reply.endswith(b"\n") else b""

    def _receive(self, n_bytes: int, seconds: float) -> bytes:
        """Return what arrives until the end, the time or the number of bytes is reached."""
        parts, end = bytearray(), time.monotonic() + seconds
        self._connection.settimeout(_LOOK_S)
        while len(parts) < n_bytes and time.monotonic() < end:
            _interrupt_if(self._stop)
            try:
                part = self._connection.recv(min(n_bytes - len(parts), 1 << 20))
            except TimeoutError:
                continue
            except OSError:
                break
            if not part:
                break
            parts += part
        return bytes(parts)

    def _kill(self) -> None:
        """Kill it, and the processes that it has started."""
        with contextlib.suppress(OSError):  # it has ended
            os.killpg(self._group, signal.SIGKILL)


def _exceeded(allowed: Allowed) -> str:
    rule = f"takes more than {allowed.seconds:.0f} s to be {allowed.use}"
    return rule if allowed.memory is None else f"{rule}, or {_mib(allowed.memory)} of memory"


def _mib(n_bytes: int) -> str:
    return f"{n_bytes >> 20:,} MiB"


class _Template:
    """The process that tasks are forked from."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                start_command("tuner.service.confined", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | _PLAIN | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
                process_group=0,
            )
        self.close = weakref.finalize(self, _end, self._connection, self._process)

    def hand_over(self, connection: socket.socket, for_search: bool) -> bool:
        """Have a fork serve a connection; return whether the process is there to do it."""
        kind = _OF_SEARCH if for_search else _OF_REQUEST
        try:
            socket.send_fds(self._connection, [kind], [connection.fileno()])
        except OSError:
            return False
        return True


def _end(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    connection.close()  # at which the process ends
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:  # it is still importing
        process.kill()
        process.wait()


def _fork_for_each(control: socket.socket) -> None:
    """Fork a process for each connection that is handed over, until there are no more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    gc.freeze()
    while True:
        try:
            kind, descriptors, *_ = socket.recv_fds(control, 1, 1)
        except OSError:
            return
        if not kind:
            return
        if kind == _OF_SEARCH and OF_SEARCHES not in sys.modules:
            importlib.import_module(OF_SEARCHES).import_all()
            gc.freeze()
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                if os.fork() == 0:
                    control.close()
                    _serve(socket.socket(fileno=descriptor))
            os.close(descriptor)


def _serve(connection: socket.socket) -> NoReturn:
    """Do one task, within its limits, and end."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it may start processes itself
        os.setpgid(0, 0)
        connection.sendall(_STARTED.pack(os.getpid()))
        with connection.makefile("rb") as file:
            request = json.loads(file.readline())
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        allowed = Allowed(**request["allowed"])
        _limit(allowed)
        module, task = request["task"]
        connection.sendall(_done(module, task, request["given"], allowed) + b"\n")
        status = 0
    finally:
        os._exit(status)


def _end_with(connection: socket.socket) -> None:
    """End this process, and those that it has started, once nobody waits for its reply."""
    with contextlib.suppress(OSError):
        connection.recv(1)  # nothing comes after the request but the end
    os.killpg(0, signal.SIGKILL)


def _limit(allowed: Allowed) -> None:
    """Have the kernel kill this process when it takes too much."""
    seconds, file_bytes = int(allowed.seconds), allowed.file_bytes
    os.nice(5)
    with contextlib.suppress(OSError):  # Linux alone has it: where memory is short, tasks go first
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    signal.alarm(3 * seconds)
    statm = Path("/proc/self/statm")
    if allowed.memory is not None and statm.exists():
        used = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + allowed.memory, used + allowed.memory))


def _done(module: str, task: str, given: dict[str, Any], allowed: Allowed) -> bytes:
    """Return the answer of a task, as JSON."""
    tasks = importlib.import_module(module)
    answer: dict[str, Any]
    try:
        return json.dumps({"result": getattr(tasks, task)(given)}).encode()
    except TunerError as error:
        answer = {"error": _fields(error)}
    except MemoryError:
        rule = f"takes more than {_mib(allowed.memory or 0)} of memory to be {allowed.use}"
        answer = {"error": {"rule": rule, "remedy": allowed.smaller}}
    except Exception as error:  # whatever a library does with a damaged file
        failed = one_line(f"{type(error).__name__}: {error}")[:_LONGEST_TEXT]
        answer = {"failed": failed, "traceback": traceback.format_exc()[-4000:]}
    return json.dumps(answer).encode()


def _fields(error: TunerError) -> dict[str, str]:
    remedy = error.remedy
    if isinstance(error, DataError) and error.changes:
        remedy = ", or ".join(map(str, filter(None, (remedy, *error.changes))))
    fields = {"where": error.where, "key": error.key, "rule": error.rule, "got": error.got}
    texts = (fields | {"remedy": remedy}).items()
    found = {name: _short(text) for name, text in texts if text is not None}
    return found | {"kind": "experiment" if isinstance(error, ExperimentError) else "data"}


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


if __name__ == "__main__":
    importlib.import_module(TASKS).import_all()
    _fork_for_each(socket.socket(fileno=int(sys.argv[1])))
