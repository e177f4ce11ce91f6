"""`tuner worker`."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import typer

from tuner.cli.app import Worker
from tuner.client.connection import SERVER, TOKEN
from tuner.errors import InputError
from tuner.executors.choice import n_cores
from tuner.service.pull_worker import PullAgent
from tuner.service.workers import MOST_SLOTS
from tuner.signals import ending_signals


def worker(command: Worker) -> None:
    """Run trials of a service until a signal."""
    server = command.server or os.environ.get(SERVER)
    if not server:
        remedy = f"give --server http://HOST:8080, or set {SERVER}"
        raise InputError("the URL of a service is missing", where="--server", remedy=remedy)
    n_workers = n_cores() if command.workers is None else command.workers
    if not 1 <= n_workers <= MOST_SLOTS:
        rule, remedy = f"must be from 1 to {MOST_SLOTS}", "write --workers 2"
        raise InputError(rule, where="--workers", got=n_workers, remedy=remedy)
    token = os.environ.get(TOKEN) or None
    agent = PullAgent(server, token, n_workers, lambda text: typer.echo(text, err=True))
    with _stopped_by_signals() as stop:
        agent.run(stop)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that the first signal sets; the second one ends the process at once."""
    stop = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + signum)  # its worker processes end with it
        stop.set()

    before = {signum: signal.signal(signum, handle) for signum in ending_signals()}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
