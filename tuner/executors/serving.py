"""What every worker does with a job, however it and the executor reach each other."""

from __future__ import annotations

import time
from collections.abc import Callable

from tuner.executors.base import Finished, Reported
from tuner.executors.messages import Message, Started
from tuner.jobs import Epoch, Job, Outcome, TrainJob

__all__ = ["RunJob", "serve"]

RunJob = Callable[[Job, Callable[[Epoch], bool]], Outcome]
"""Does a job; calls back after every epoch and stops where the answer is False.

What it raises says that the worker is of no use any more: that ends, and its job is lost.
"""


def serve(
    job: Job, run_job: RunJob, say: Callable[[Message], None], hear: Callable[[], bool]
) -> None:
    """Do a job from its `Started` to its `Finished`.

    Args:
        job: what is to be done.
        run_job: does it.
        say: takes messages for the executor.
        hear: waits for the answer to a report; called only where the job can be pruned.
    """
    say(Started(job.key))
    waits = isinstance(job, TrainJob) and job.can_be_pruned
    begun, waited_s = time.monotonic(), 0.0

    def report(epoch: Epoch) -> bool:
        nonlocal waited_s
        now = time.monotonic()
        say(Reported(job.key, epoch, trained_s=now - begun - waited_s))
        if not waits:
            return True
        go_on = hear()
        waited_s += time.monotonic() - now
        return go_on

    say(Finished(job.key, run_job(job, report)))
