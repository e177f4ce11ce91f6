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
import subprocess
import sys
import threading
import traceback
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tuner.errors import DataError, ExperimentError, InputError, TunerError, one_line
from tuner.processes import start_command
from tuner.service.hiding import for_clients
from tuner.service.problems import Problem

TASKS = "tuner.service.reading"
"""The module whose functions are the tasks; each takes one JSON object and returns another."""

_STARTED, _START_S = b"+", 120.0
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
        n_at_once: tasks at a time; two for each core by default. An owner has half of them.
    """

    def __init__(self, root: Path, n_at_once: int | None = None) -> None:
        n_at_once = n_at_once or max(2, 2 * (os.cpu_count() or 1))
        self._root, self._of_one = root, max(1, n_at_once // 2)
        self._lock, self._free = threading.Lock(), threading.Condition()
        self._n_free, self._running, self._waiting = n_at_once, Counter[str](), Counter[str]()
        self._template: _Template | None = None

    def run(
        self, task: str, given: Mapping[str, Any], *, owner: str, what: str, allowed: Allowed
    ) -> Any:
        """Run a task and return its result.

        Args:
            task: the name of a function in `TASKS`.
            given: its argument, as JSON.
            owner: for whom it runs.
            what: the file that it reads, for messages.
            allowed: what it may take.

        Raises:
            InputError: as the task raised it, or because it exceeded a limit or failed.
            Problem: 429 if too many tasks of the owner wait, 503 if it did not start.
        """
        request = {"task": task, "given": given, "allowed": dataclasses.asdict(allowed)}
        content = json.dumps(request).encode()
        with self._turn(owner):
            reply = self._ask(content, allowed)
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

    @contextlib.contextmanager
    def _turn(self, owner: str) -> Iterator[None]:
        """Wait until a task of the owner may run."""
        with self._free:
            if self._waiting[owner] >= _WAITING:
                detail = f"{_WAITING} files of yours are being read, the limit; try again"
                raise Problem(429, detail, headers={"Retry-After": "2"})
            self._waiting[owner] += 1
            try:
                may_run = self._free.wait_for(
                    lambda: self._n_free > 0 and self._running[owner] < self._of_one, _WAIT_S
                )
                if not may_run:
                    detail = "the service reads other files; try again"
                    raise Problem(503, detail, headers={"Retry-After": "10"})
                self._n_free -= 1
                self._running[owner] += 1
            except BaseException:
                self._waiting[owner] -= 1
                raise
        try:
            yield
        finally:
            with self._free:
                self._n_free += 1
                self._running[owner] -= 1
                self._waiting[owner] -= 1
                self._free.notify_all()

    def _ask(self, content: bytes, allowed: Allowed) -> bytes:
        """Return the reply of a fork; nothing if it was killed."""
        for _ in range(2):  # the process that forks may have been killed
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    self._hand_over(theirs)
                ours.settimeout(_START_S)
                with contextlib.suppress(OSError):
                    if ours.recv(1) == _STARTED:
                        return _answered(ours, content, 3 * allowed.seconds + 10)
            self.close()
        raise Problem(503, "the service cannot read files now", headers={"Retry-After": "10"})

    def _hand_over(self, connection: socket.socket) -> None:
        with self._lock:
            if self._template is None or not self._template.hand_over(connection):
                if self._template is not None:
                    self._template.close()
                self._template = _Template()
                self._template.hand_over(connection)

    def _error(self, fields: dict[str, Any]) -> InputError:
        fields = {name: for_clients(text, self._root) for name, text in fields.items()}
        kind = ExperimentError if fields.pop("kind", "") == "experiment" else DataError
        return kind(fields.pop("rule"), **fields)


def _answered(connection: socket.socket, content: bytes, seconds: float) -> bytes:
    """Send a request and return the reply; nothing if there is no whole one."""
    connection.settimeout(seconds)
    parts = list[bytes]()
    with contextlib.suppress(OSError):
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(1 << 20):
            parts.append(part)
            if sum(map(len, parts)) > _MOST_REPLY:
                return b""
    reply = b"".join(parts)
    return reply[:-1] if reply.endswith(b"\n") else b""


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

    def hand_over(self, connection: socket.socket) -> bool:
        """Have a fork serve a connection; return whether the process is there to do it."""
        try:
            socket.send_fds(self._connection, [b"."], [connection.fileno()])
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
            message, descriptors, *_ = socket.recv_fds(control, 1, 1)
        except OSError:
            return
        if not message:
            return
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
        connection.sendall(_STARTED)
        with connection.makefile("rb") as file:
            request = json.loads(file.read())
        allowed = Allowed(**request["allowed"])
        _limit(allowed)
        reply = _done(request["task"], request["given"], allowed)
        connection.sendall(json.dumps(reply).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def _limit(allowed: Allowed) -> None:
    """Have the kernel kill this process when it takes too much."""
    seconds, file_bytes = int(allowed.seconds), allowed.file_bytes
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    signal.alarm(3 * seconds)
    statm = Path("/proc/self/statm")
    if allowed.memory is not None and statm.exists():
        used = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + allowed.memory, used + allowed.memory))


def _done(task: str, given: dict[str, Any], allowed: Allowed) -> dict[str, Any]:
    tasks = importlib.import_module(TASKS)
    try:
        return {"result": getattr(tasks, task)(given)}
    except TunerError as error:
        return {"error": _fields(error)}
    except MemoryError:
        rule = f"takes more than {_mib(allowed.memory or 0)} of memory to be {allowed.use}"
        return {"error": {"rule": rule, "remedy": allowed.smaller}}
    except Exception as error:  # whatever a library does with a damaged file
        failed = one_line(f"{type(error).__name__}: {error}")[:_LONGEST_TEXT]
        return {"failed": failed, "traceback": traceback.format_exc()[-4000:]}


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
