"""A worker that says which GPUs it sees, in place of training."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import tuner.executors.worker
from helpers.one_by_one import one_by_one
from tuner.executors import worker
from tuner.executors.base import Work
from tuner.jobs import Outcome, OutcomeState


def run_job(job: Any, report: Any) -> Outcome:
    """Fail, for the reason that these GPUs are visible."""
    return Outcome(OutcomeState.FAILED, reason=os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))


def prepare() -> Any:
    """As `tuner.executors.worker.prepare`."""
    return Work(run_job, partial(one_by_one, run_job))


if __name__ == "__main__":
    tuner.executors.worker.prepare = prepare
    worker.main(int(sys.argv[1]))
