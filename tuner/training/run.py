"""What a worker calls: a job in, an outcome out, whatever happens."""

from __future__ import annotations

import time

import numpy as np
import torch

from tuner.data import SeriesRef, Shape
from tuner.data.metrics import score
from tuner.errors import Interrupted, one_line
from tuner.jobs import ExportJob, Job, Outcome, OutcomeState, PredictJob
from tuner.training.device import peak_memory_mb
from tuner.training.errors import TrainingError
from tuner.training.predict import predict
from tuner.training.trainer import Report, train

__all__ = ["run_job", "warm_up"]


def run_job(job: Job, report: Report) -> Outcome:
    """Do `job`. What it raises becomes a failed outcome; an interruption is passed on.

    Raises:
        RuntimeError: the job failed, and with it CUDA in this process, where every later job
            would fail too. Another process may do it: the error is not the job's, or not it alone.
    """
    started = time.perf_counter()
    try:
        outcome = _do(job, report)
    except Interrupted:
        raise
    except Exception as error:
        kind = "" if isinstance(error, TrainingError) else f"{type(error).__name__}: "
        outcome = Outcome(
            OutcomeState.FAILED,
            reason=kind + one_line(error),
            seconds=time.perf_counter() - started,
            finished_at=time.time(),
            peak_memory_mb=peak_memory_mb(),
        )
    if outcome.state is OutcomeState.FAILED:
        _check_cuda()
    return outcome


def _do(job: Job, report: Report) -> Outcome:
    match job:
        case PredictJob():
            return predict(job)
        case ExportJob():
            from tuner.training.export import export  # onnx and its runtime: seldom needed

            return export(job)
    return train(job, report)


def _check_cuda() -> None:
    """Raise RuntimeError where CUDA was used and has broken: then nothing on it works any more.

    Short memory does not break it, nor does what CUDA refuses to do.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        what, _, _ = str(error).partition("\n")  # advice follows
    else:
        return
    # Of no class of torch's: Ray would import torch where the search runs to show it.
    raise RuntimeError(f"CUDA does not work in this process any more: {what}")


def warm_up() -> None:
    """Import what the first job would otherwise wait for, and count as its own time."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    torch.optim.Adam([parameter])  # imports half of torch when the first one is made
    nothing = SeriesRef("", Shape("forecast", 1))
    score("rmse", np.zeros((2, 1, 1)), np.zeros((2, 1, 1)), nothing)
