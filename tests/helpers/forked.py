"""Processes of the program by a fork of one that has imported everything, in place of a start.

A worker that is started imports torch, five seconds of work, and a command imports optuna and
MLflow. `fork_processes` has what is started as a worker or as `python -m tuner` forked from a
template instead: the same code runs in a process of its own, with the same arguments, environment,
folder, files and signals. Everything else is started as ever.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import inspect
import io
import json
import os
import pickle
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tuner.processes

TESTS = Path(__file__).parents[1]
WORKER = [sys.executable, "-P", tuner.processes.__file__]  # then module, argument, import path
COMMAND = [sys.executable, "-m", "tuner"]
_CAN_BE_CHANGED = {"PYTHONPATH", "PYTHONUNBUFFERED"}  # of what Python reads when it starts
_PR_SET_CHILD_SUBREAPER = 36
_HIGH = 300  # descriptors of the template are above, so that a child can have any below

_execute_child = subprocess.Popen._execute_child
_signature = inspect.signature(_execute_child)


@dataclass(frozen=True)
class Order:
    """What to fork; `files` are the numbers that the descriptors sent with it get."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    files: list[int]
    new_session: bool
    process_group: int


class Template:
    """The template as its parent sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def fork(self, order: Order, descriptors: list[int]) -> int:
        """Return the id of a child of this process.

        Raises:
            OSError: the template is gone.
        """
        payload = pickle.dumps(order)
        prctl = ctypes.CDLL(None).prctl
        with self._lock:
            prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # its child's orphan becomes ours
            try:
                socket.send_fds(self._connection, [len(payload).to_bytes(8, "big")], descriptors)
                self._connection.sendall(payload)
                answer = self._connection.recv(8)
            finally:
                prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        if len(answer) < 8:
            raise OSError("the template is gone")
        return int.from_bytes(answer, "big")


class LazyTemplate(Template):
    """A template that is started when something is forked, and ends with this process."""

    def __init__(self) -> None:
        """Start nothing yet."""
        ours, self._theirs = socket.socketpair()
        super().__init__(ours)
        self._process: subprocess.Popen[bytes] | None = None

    def fork(self, order: Order, descriptors: list[int]) -> int:
        with self._lock:
            if self._process is None:
                self._process = self._start()
        return super().fork(order, descriptors)

    def close(self) -> None:
        """End the template."""
        self._connection.close()
        self._theirs.close()
        if self._process is not None:
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        number = self._theirs.fileno()
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self._theirs:
            return subprocess.Popen(
                [sys.executable, "-c", f"from helpers.forked import serve; serve({number})"],
                env=os.environ | own,
                pass_fds=[number],
                process_group=0,
            )


@contextlib.contextmanager
def fork_processes(template: Template) -> Iterator[None]:
    """Have workers and commands forked from a template while this lasts."""
    with _executed_by(_executing(template)):
        yield


@contextlib.contextmanager
def start_processes() -> Iterator[None]:
    """Have every process started as ever while this lasts."""
    with _executed_by(_execute_child):
        yield


@contextlib.contextmanager
def _executed_by(execute: Any) -> Iterator[None]:
    before = subprocess.Popen._execute_child
    subprocess.Popen._execute_child = execute
    try:
        yield
    finally:
        subprocess.Popen._execute_child = before


def _executing(template: Template) -> Any:
    """Make what `subprocess.Popen` starts a process with."""

    def execute_child(self: Any, *arguments: Any, **keywords: Any) -> None:
        asked = _signature.bind(self, *arguments, **keywords).arguments
        if not _can_be_forked(asked):
            _execute_child(self, *arguments, **keywords)
            return
        own = [
            std if there == -1 else there
            for std, there in zip(
                (0, 1, 2), (asked["p2cread"], asked["c2pwrite"], asked["errwrite"]), strict=True
            )
        ]
        passed = list(asked["pass_fds"])
        environment = os.environ if asked["env"] is None else asked["env"]
        order = Order(
            [str(argument) for argument in asked["args"]],
            dict(environment),
            os.fspath(asked["cwd"] or Path.cwd()),
            [0, 1, 2, *passed],
            asked["start_new_session"],
            asked["process_group"],
        )
        self.pid = template.fork(order, [*own, *passed])
        self._child_created = True
        self._close_pipe_fds(
            *(
                asked[name]
                for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
            )
        )

    return execute_child


def _can_be_forked(asked: dict[str, Any]) -> bool:
    arguments, environment = asked["args"], asked["env"]
    if not isinstance(arguments, list) or asked["preexec_fn"] or asked["shell"]:
        return False
    words = [str(argument) for argument in arguments[:3]]
    if words == WORKER:
        return True
    given = os.environ if environment is None else environment
    ours = {k: v for k, v in os.environ.items() if k.startswith("PYTHON")}
    theirs = {k: v for k, v in given.items() if k.startswith("PYTHON")}
    changed = {k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)}
    return words == COMMAND and changed <= _CAN_BE_CHANGED


def serve(file_descriptor: int) -> None:
    """Be the template: import everything, then fork what is ordered until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in ("optuna", "mlflow", "pandas", "tuner.cli.app", "tuner.tracking"):
            importlib.import_module(module)
        importlib.import_module("tuner.executors.worker").prepare()
    gc.collect()
    gc.freeze()  # a collection would write to every object, and have its page copied
    _fork_as_ordered(socket.socket(fileno=file_descriptor))


def _fork_as_ordered(connection: socket.socket) -> None:
    """Fork what the other end orders, until it is gone; does not return."""
    high = socket.socket(fileno=fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, _HIGH))
    connection.close()
    while True:
        header, descriptors, _, _ = socket.recv_fds(high, 8, 32)
        if len(header) < 8:
            os._exit(0)
        n_bytes, payload = int.from_bytes(header, "big"), b""
        while len(payload) < n_bytes:
            payload += high.recv(n_bytes - len(payload))
        order: Order = pickle.loads(payload)
        adopted, let_go = os.pipe()
        told, tells = os.pipe()
        middle = os.fork()
        if middle == 0:
            os.close(let_go)
            if pid := os.fork():
                os.write(tells, pid.to_bytes(8, "big"))
                os._exit(0)
            os.read(adopted, 1)  # until the middle one's end has made it a child of the parent
            high.close()
            for each in (adopted, told, tells):
                os.close(each)
            _run(order, descriptors)
        os.waitpid(middle, 0)
        pid_bytes = os.read(told, 8)
        for each in (*descriptors, adopted, let_go, told, tells):
            os.close(each)
        high.sendall(pid_bytes)


def _become(order: Order, descriptors: list[int]) -> None:
    """Be the process that was ordered, and run its program."""
    above = [fcntl.fcntl(each, fcntl.F_DUPFD, _HIGH) for each in descriptors]
    for each in descriptors:
        os.close(each)
    for each, number in zip(above, order.files, strict=True):
        os.dup2(each, number, inheritable=True)
        os.close(each)
    if order.new_session:
        os.setsid()
    elif order.process_group >= 0:
        os.setpgid(0, order.process_group)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    random.seed()
    tempfile.tempdir = None  # it was chosen by the environment of the template
    buffered = not os.environ.get("PYTHONUNBUFFERED")
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout, sys.stderr = (_stream(number, buffered) for number in (1, 2))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    importlib.invalidate_caches()
    if order.arguments[:3] == WORKER:
        module, argument, import_path = order.arguments[3:]
        handed = json.loads(import_path)
        sys.path[:] = handed + [entry for entry in sys.path if entry not in handed]
        sys.argv[:] = [module, argument]
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    given = [e for e in os.environ.get("PYTHONPATH", "").split(os.pathsep) if e]
    sys.path[:] = [order.folder, *given, *(e for e in sys.path if e and e not in before)]
    sys.argv[:] = ["tuner", *order.arguments[3:]]
    with fork_processes(_template_of_its_own()):
        runpy.run_module("tuner", run_name="__main__", alter_sys=True)


def _run(order: Order, descriptors: list[int]) -> None:
    """Do what was ordered, and end as Python does, but without destroying every object."""
    status = 0
    try:
        _become(order, descriptors)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _stream(number: int, buffered: bool) -> io.TextIOWrapper:
    terminal = os.isatty(number)
    raw = io.FileIO(number, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if buffered else raw,
        encoding="utf-8",
        errors="backslashreplace" if number == 2 else "strict",
        line_buffering=terminal or number == 2,
        write_through=not buffered,
    )


def _template_of_its_own() -> Template:
    """Fork a template for the workers of this process, which has one thread as yet."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        os.close(nothing)
        _fork_as_ordered(theirs)
    theirs.close()
    return Template(ours)
