"""A worker process: receives jobs, trains, reports. The only importer of torch here."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection

import torch

from tuner import __version__
from tuner.executors.base import Message, Ready, RunJob, serve
from tuner.jobs import Job
from tuner.training import run_job, warm_up

__all__ = ["prepare"]


def prepare() -> RunJob:
    """Make the first job as fast as any other, and return what does jobs."""
    torch.set_num_threads(1)
    warm_up()
    return run_job


def main(file_descriptor: int) -> None:
    """Serve the coordinator at the other end of the connection until it goes away.

    Says `Ready` first. What escapes a job ends the process, and is the last that it writes.
    """
    connection = Connection(file_descriptor)
    threading.Thread(target=_die_with_parent, daemon=True).start()

    run_job = prepare()

    def say(message: Message) -> None:
        try:
            connection.send(message)
        except OSError:
            os._exit(1)  # nobody is left to train for

    def hear() -> bool:
        try:
            return bool(connection.recv())
        except (EOFError, OSError):
            os._exit(1)

    say(Ready(__version__))
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            serve(job, run_job, say, hear)
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # a broken CUDA would have the last word, and may never let go


def _die_with_parent() -> None:
    """End this process when the coordinator was killed: an epoch may take hours."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
