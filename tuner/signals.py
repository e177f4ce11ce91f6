"""What ends a search early: signals, and an output that nobody reads."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from tuner.errors import Interrupted
from tuner.outputs import to_nowhere


def ending_signals() -> list[signal.Signals]:
    """Return the signals that end a command, but for those that its caller ignores (nohup)."""
    every = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [s for s in every if s != signal.SIGHUP or signal.getsignal(s) is not signal.SIG_IGN]


@contextlib.contextmanager
def stopped_by_signals(
    stop: threading.Event | None = None, *, process_ends: bool = True
) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets: `stop`, or a new one.

    The second one, SIGTERM (of a batch system) or SIGHUP (of a closed terminal) end the search at
    once. Later signals are ignored while it cleans up or, if the process ends, until its end.

    Raises:
        Interrupted: on the second Ctrl-C with status 130, on others with 128 and their number.
    """
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

    before = {signum: signal.signal(signum, handle) for signum in ending_signals()}
    try:
        yield stop
    except KeyboardInterrupt:
        remedy = "what was finished is kept, and the same command resumes"
        stopped = Interrupted("stopped at once", remedy=remedy)
        stopped.exit_status = 128 + (ended_by or [signal.SIGINT])[0]
        raise stopped from None
    finally:
        for signum, handler in before.items():  # at its end, Python would reset its own handlers
            signal.signal(signum, signal.SIG_IGN if ended_by and process_ends else handler)


@contextlib.contextmanager
def stopped_without_reader() -> Iterator[None]:
    """Raise Interrupted if standard output has no reader any more."""
    try:
        yield
    except BrokenPipeError:
        to_nowhere(sys.stdout)  # a note may follow
        rule = "stopped: nobody reads its output"
        raise Interrupted(rule, remedy="the same command resumes") from None
