"""What a worker calls: a job in, an outcome out, whatever happens."""

from __future__ import annotations

import time

import numpy as np
import torch

from tuner.data import SeriesRef, Shape
from tuner.data.metrics import score
from tuner.errors import Interrupted, one_line
from tuner.jobs import Job, Outcome, OutcomeState, PredictJob
from tuner.training.device import peak_memory_mb
from tuner.training.errors import TrainingError
from tuner.training.predict import predict
from tuner.training.trainer import Report, train

__all__ = ["run_job", "warm_up"]


def run_job(job: Job, report: Report) -> Outcome:
    """Do `job`. What it raises becomes a failed outcome; an interruption is passed on."""
    started = time.perf_counter()
    try:
        return predict(job) if isinstance(job, PredictJob) else train(job, report)
    except Interrupted:
        raise
    except Exception as error:
        kind = "" if isinstance(error, TrainingError) else f"{type(error).__name__}: "
        return Outcome(
            OutcomeState.FAILED,
            reason=kind + one_line(error),
            seconds=time.perf_counter() - started,
            finished_at=time.time(),
            peak_memory_mb=peak_memory_mb(),
        )


def warm_up() -> None:
    """Import what the first job would otherwise wait for, and count as its own time."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    torch.optim.Adam([parameter])  # imports half of torch when the first one is made
    nothing = SeriesRef("", Shape("forecast", 1))
    score("rmse", np.zeros((2, 1, 1)), np.zeros((2, 1, 1)), nothing)
