"""The program of the template: imports what a worker needs, then forks one for each order.

`tuner.template.Template` starts it and describes it. A fork inherits one thread of several, with
whatever locks the others held, and none of what CUDA has begun; so the template has a single thread
and no GPU when it forks, or says that it is unfit.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from tuner import template

_WORKER = "tuner.executors.worker"
_LOOK_S = 0.5  # between looks, while it imports, at whether it is still wanted

# What scores of classes need, imported when there is nothing to fork, and in parts: an order waits
# for one of them at most. Not at once: a short search needs the processor for its trials.
_LATER_S = 5.0
_LATER = ("scipy.special", "scipy.sparse.linalg", "scipy.stats", "sklearn.metrics")


def main(file_descriptor: int) -> str:
    """Fork until nobody can order any more, and exit; in a fork, return the module to run."""
    connection = socket.socket(fileno=file_descriptor)
    connection.set_inheritable(False)
    template.searching = searching = os.pidfd_open(os.getppid())
    _import_while(searching)
    _check_fit(connection)
    _tell(connection, {"ready": True})
    later, later_at = list(_LATER), time.monotonic() + _LATER_S
    waiting, forks = select.poll(), dict[int, int]()  # process ids by their descriptors
    for descriptor in (searching, file_descriptor):
        waiting.register(descriptor, select.POLLIN)
    while True:
        until_ms = max(0.0, 1000 * (later_at - time.monotonic())) if later else None
        if not (heard := waiting.poll(until_ms)):
            importlib.import_module(later.pop(0))
            gc.freeze()
            continue
        for descriptor, _ in heard:
            if descriptor == searching:
                os._exit(0)
            if descriptor != file_descriptor:
                waiting.unregister(descriptor)
                pid = forks.pop(descriptor)
                _, status = os.waitpid(pid, 0)
                os.close(descriptor)
                _tell(connection, {"pid": pid, "status": os.waitstatus_to_exitcode(status)})
                continue
            try:
                order, files = template.receive(connection)
            except (OSError, EOFError):
                os._exit(0)
            _check_fit(connection)
            try:
                pid = os.fork()
            except OSError as error:
                _close(*files)
                _tell(connection, {"refused": error.strerror})
                continue
            if pid == 0:
                connection.close()
                _close(*forks)
                return _become(order, *files)
            process = os.pidfd_open(pid)
            forks[process] = pid
            waiting.register(process, select.POLLIN)
            _close(*files)
            _tell(connection, {"pid": pid}, process)


def _import_while(searching: int) -> None:
    """Import what workers need, and exit if the process that wants them ends meanwhile."""
    wanted = select.poll()
    wanted.register(searching, select.POLLIN)

    def look(*_: Any) -> None:
        if wanted.poll(0):
            os._exit(0)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_S, _LOOK_S)
    gc.disable()  # imports make objects that stay: looking among them for garbage takes a fifth
    importlib.import_module(_WORKER).prepare()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    gc.collect()
    gc.freeze()  # a collection would write to every object, and have its page copied
    gc.enable()


def is_fit(process: Path = Path("/proc/self")) -> bool:
    """Return whether a process has one thread, and no GPU: both would be broken in its forks.

    Args:
        process: its folder of the system's.
    """
    if len(list((process / "task").iterdir())) > 1:
        return False
    for file in (process / "fd").iterdir():
        try:
            if str(file.readlink()).startswith("/dev/nvidia"):
                return False
        except FileNotFoundError:  # that of the folder itself
            continue
    return True


def _check_fit(connection: socket.socket) -> None:
    """Exit where forks of this process are not safe, after telling so."""
    if not is_fit():
        _tell(connection, {"ready": False})
        sys.exit("forks of this process are not safe")


def _tell(connection: socket.socket, message: dict[str, Any], *files: int) -> None:
    try:
        template.send(connection, message, files)
    except OSError:
        os._exit(0)  # nobody wants forks any more


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _become(order: dict[str, Any], connection: int, output: int) -> str:
    """Be the process that was ordered, but for its module, which is returned."""
    os.setpgid(0, 0)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.environ.clear()
    os.environ.update(order["environment"])
    if "folder" in order:
        os.chdir(order["folder"])
    handed = order["path"]
    sys.path[:] = handed + [entry for entry in sys.path if entry not in handed]
    importlib.invalidate_caches()
    sys.argv[1:] = [str(connection)]
    module: str = order["module"]
    sys.modules.pop(module, None)  # it is run as a script, with what else there is
    return module


if __name__ == "__main__":
    runpy.run_module(main(int(sys.argv[1])), run_name="__main__", alter_sys=True)
