"""Training that never lets go, or breaks its worker, in place of `tuner.executors.worker`."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import tuner.executors.worker
from helpers.one_by_one import one_by_one
from tuner.executors import worker
from tuner.executors.base import Work
from tuner.jobs import Epoch, Outcome, OutcomeState


def run_job(job: Any, report: Callable[[Epoch], bool]) -> Outcome:
    """Hang in C code, with Python's lock held, where the seed is 0; raise where it is 13."""
    if job.seed == 0:
        ctypes.PyDLL(None).sleep(1000)
    if job.seed == 13:
        raise RuntimeError("CUDA is broken for good")
    report(Epoch(0, 1.0, 1.0, 1.0, time=0.0))
    return Outcome(OutcomeState.COMPLETE, objective=1.0, best_epoch=0)


def prepare() -> Any:
    """As `tuner.executors.worker.prepare`."""
    return Work(run_job, partial(one_by_one, run_job))


if __name__ == "__main__":
    tuner.executors.worker.prepare = prepare
    worker.main(int(sys.argv[1]))
