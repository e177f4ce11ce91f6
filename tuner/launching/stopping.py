"""What Ctrl-C and the signals that end a process do to a search."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tuner.errors import Interrupted

__all__ = ["stopped_by_signals"]


@contextmanager
def stopped_by_signals(
    stop: threading.Event | None = None, *, process_ends: bool = True
) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets: `stop`, or one of its own.

    The second one, SIGTERM (a batch system's) or SIGHUP (a terminal that is closed) end the
    search at once. After that no signal disturbs the clearing up, which takes seconds, or, where
    the process is to end, its end.

    Raises:
        Interrupted: on the second Ctrl-C with status 130, on another signal with 128 and its
            number, as shells and batch systems know it.
    """
    stop = stop or threading.Event()
    ended_by: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        if ended_by:
            return
        if signum == signal.SIGINT and not stop.is_set():
            stop.set()  # the search says so: a handler must not print
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
        text = "stopped at once; what was finished is kept, and the same command resumes"
        stopped = Interrupted(text)
        stopped.exit_status = 128 + (ended_by or [signal.SIGINT])[0]
        raise stopped from None
    finally:
        for signum, handler in before.items():  # a process that ends sets its own to the default
            signal.signal(signum, signal.SIG_IGN if ended_by and process_ends else handler)
