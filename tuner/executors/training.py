"""What a worker trains with. It brings torch along: only worker processes import it."""

from __future__ import annotations

import torch

from tuner.executors.serving import RunJob
from tuner.training import run_job, warm_up

__all__ = ["prepare"]


def prepare() -> RunJob:
    """Make the first job as fast as any other, and return what does jobs."""
    torch.set_num_threads(1)
    warm_up()
    return run_job
