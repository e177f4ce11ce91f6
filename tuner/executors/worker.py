"""A worker process: receives jobs, trains, reports. Started as `python -m`, never imported."""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing.connection import Connection

from tuner.executors.base import Finished, Reported
from tuner.jobs import Epoch, Job, TrainJob


def main(file_descriptor: int) -> None:
    """Serve the coordinator at the other end of the connection until it goes away."""
    connection = Connection(file_descriptor)
    threading.Thread(target=_die_with_parent, daemon=True).start()

    import torch

    from tuner.training import run_job, warm_up

    torch.set_num_threads(1)
    warm_up()
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return

        def report(epoch: Epoch, job: Job = job) -> bool:
            try:
                connection.send(Reported(job.key, epoch))
                waits = isinstance(job, TrainJob) and job.can_be_pruned
                return bool(connection.recv()) if waits else True
            except (EOFError, OSError):
                os._exit(1)  # nobody is left to train for

        outcome = run_job(job, report)
        try:
            connection.send(Finished(job.key, outcome))
        except OSError:
            return


def _die_with_parent() -> None:
    """End this process when the coordinator was killed: an epoch may take hours."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
