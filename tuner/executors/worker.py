"""A worker process: receives jobs, trains, reports. The only importer of torch here."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection

import torch

from tuner import __version__, template
from tuner.executors.base import Message, Ready, Work, serve
from tuner.jobs import Job
from tuner.training import run_job, train_group, warm_up


def prepare() -> Work:
    """Make the first job as fast as any other, and return the functions that do jobs."""
    torch.set_num_threads(1)
    warm_up()
    return Work(run_job, train_group)


def main(file_descriptor: int) -> None:
    """Serve the executor at the other end of a connection until it closes; sends `Ready` first.

    An exception that escapes a job ends the process; its traceback is the last output.
    """
    connection = Connection(file_descriptor)
    threading.Thread(target=_die_with_search, daemon=True).start()
    work = prepare()

    def send(message: Message) -> None:
        try:
            connection.send(message)
        except OSError:
            os._exit(1)  # nobody is left to train for

    def receive() -> list[bool]:
        try:
            answers: list[bool] = connection.recv()
            return answers
        except (EOFError, OSError):
            os._exit(1)

    send(Ready(__version__))
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            serve(job, work, send, receive)
        except Exception:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # a broken CUDA could print more, or hang


def _die_with_search() -> None:
    """End this process when that of the search was killed: an epoch may take hours."""
    if template.searching is not None:  # this is a fork, whose parent is the template
        ended = select.poll()
        ended.register(template.searching, select.POLLIN)
        ended.poll()
        os._exit(1)
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
