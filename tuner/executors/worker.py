"""A worker process: receives jobs, trains, reports. Started as `python -m`, never imported."""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing.connection import Connection

from tuner.executors.messages import Message
from tuner.executors.serving import serve
from tuner.jobs import Job


def main(file_descriptor: int) -> None:
    """Serve the coordinator at the other end of the connection until it goes away."""
    connection = Connection(file_descriptor)
    threading.Thread(target=_die_with_parent, daemon=True).start()

    from tuner.executors.training import prepare

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

    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return
        serve(job, run_job, say, hear)


def _die_with_parent() -> None:
    """End this process when the coordinator was killed: an epoch may take hours."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
