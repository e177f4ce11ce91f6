"""Processes: how worker processes start, and how a search stops on a signal.

Python puts the folder of a script, or with `-m` the current one, before its own library. A worker
would import a `statistics.py` of the user's from there in place of Python's. The coordinator gets
the command of a worker from this file, and the worker runs this file as a script.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType

_PACKAGE = Path(__file__).absolute().parent


def start_command(module: str, argument: str) -> list[str]:
    """Return the command that runs a module in a new process, with one argument.

    The process imports this tuner, and all else from the `sys.path` of this process without the
    folder that Python added.
    """
    return [sys.executable, "-P", __file__, module, argument, json.dumps(_import_path())]


def _import_path() -> list[str]:
    path = [entry for entry in sys.path if isinstance(entry, str)]
    added = _added_by_python()
    for entry in added:
        path.remove(entry)  # the first one alone: PYTHONPATH may have it too
    folder = _PACKAGE.parent
    if any(Path(entry).resolve() == folder.resolve() for entry in added):
        path.append(str(folder))  # tuner's dependencies may be beside it
    return path


def _added_by_python() -> list[str]:
    """Return the entries of `sys.path` that Python added by itself."""
    added = [entry for entry in sys.path if entry == ""]  # the current folder, in notebooks say
    main = sys.modules["__main__"]
    if sys.flags.safe_path:
        return added
    if getattr(main, "__spec__", None) is not None:  # started with -m
        first = Path.cwd()
    elif file := getattr(main, "__file__", None):
        first = Path(file).resolve().parent
    else:
        return added
    return [*added, str(first)] if str(first) in sys.path else added


def _main(module: str, argument: str, import_path: str) -> None:
    handed = json.loads(import_path)
    sys.path[:] = handed + [entry for entry in sys.path if entry not in handed]
    sys.argv[1:] = [argument]
    # By its path: another tuner may be first in sys.path.
    spec = spec_from_file_location("tuner", _PACKAGE / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["tuner"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["tuner"])
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@contextmanager
def stopped_by_signals(
    stop: threading.Event | None = None, *, process_ends: bool = True
) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets: `stop`, or a new one.

    The second one, SIGTERM (of a batch system) or SIGHUP (of a closed terminal) end the search at
    once. Later signals are ignored during the clean-up, which takes seconds, or, if the process
    ends, until its end.

    Raises:
        Interrupted: on the second Ctrl-C with status 130, on another signal with 128 and its
            number, as shells and batch systems expect.
    """
    from tuner.errors import Interrupted  # not above: as a script, this file finds tuner itself

    stop = stop or threading.Event()
    ended_by: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        if ended_by:
            return
        if signum == signal.SIGINT and not stop.is_set():
            stop.set()  # the search prints it: a handler must not
            return
        ended_by.append(signum)
        raise KeyboardInterrupt

    handled = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        handled.append(signal.SIGHUP)
    before = {signum: signal.signal(signum, handle) for signum in handled}
    try:
        yield stop
    except KeyboardInterrupt:
        stopped = Interrupted(
            "stopped at once", remedy="what was finished is kept, and the same command resumes"
        )
        stopped.exit_status = 128 + (ended_by or [signal.SIGINT])[0]
        raise stopped from None
    finally:
        for signum, handler in before.items():  # at its end, Python would reset its own handlers
            signal.signal(signum, signal.SIG_IGN if ended_by and process_ends else handler)


if __name__ == "__main__":
    _main(*sys.argv[1:])
