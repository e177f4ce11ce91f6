"""Forecasts: of a model in training, and of trained weights."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Outcome, OutcomeState, PredictJob
from tuner.training.device import peak_memory_mb, pick_device
from tuner.training.forecaster import Forecaster
from tuner.training.seeding import seeded
from tuner.training.windows import Windows

__all__ = ["forecast", "predict"]

_BATCH = 1024  # never the job's batch_size, so that a score can be had again bit for bit


@torch.inference_mode()
def forecast(model: Forecaster, windows: Windows, starts: Tensor) -> Tensor:
    """Return scaled forecasts, (windows, horizon, targets), made without dropout."""
    model.eval()
    return torch.cat([model(windows.before(batch)) for batch in torch.split(starts, _BATCH)])


def predict(job: PredictJob) -> Outcome:
    """Forecast every window of the evaluation part, in the data's units."""
    started = time.perf_counter()
    parameters = Hyperparameters(**job.hyperparameters)
    device = pick_device()
    windows = Windows(job.data, device)
    with seeded(0, device):  # first weights are drawn before the trained ones replace them
        model = Forecaster(parameters, **windows.shape).to(device)
    model.load_weights(job.weights)
    starts = job.data.starts(job.data.evaluate)
    scaled = forecast(model, windows, windows.index(starts))
    return Outcome(
        OutcomeState.COMPLETE,
        seconds=time.perf_counter() - started,
        finished_at=time.time(),
        peak_memory_mb=peak_memory_mb(),
        predictions=job.data.invert(scaled.cpu().numpy(), starts),
    )
