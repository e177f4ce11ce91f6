"""The training loop: one configuration, from its seed to its score."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tuner.data.metrics import score
from tuner.errors import one_line
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Epoch, Outcome, OutcomeState, TrainJob, Weights
from tuner.training.device import peak_memory_mb, pick_device
from tuner.training.forecaster import Forecaster
from tuner.training.predict import forecast
from tuner.training.seeding import seeded
from tuner.training.windows import Windows

__all__ = ["Report", "train"]

Report = Callable[[Epoch], bool]
"""Hears of every epoch when it has ended, and answers whether to go on."""

_MAXIMIZED = frozenset({"r2"})


class _NotFiniteError(Exception):
    """Training came to a number that nothing can be learned from."""


def train(job: TrainJob, report: Report) -> Outcome:
    """Train until the epochs are used up, the metric stops improving, or `report` says no.

    A pure function of the job, but for the times in it. A model that diverges or does not fit
    into memory gives a failed outcome with the epochs that it finished; no number in an
    outcome's history is infinite or not a number.
    """
    parameters = Hyperparameters(**job.hyperparameters)
    sign = -1.0 if job.metric in _MAXIMIZED else 1.0  # sign * metric is what gets smaller
    device = pick_device()
    foreach = device.type != "cpu"  # for a few small tensors on a CPU one by one is faster

    def finite(name: str, value: float) -> float:
        if not math.isfinite(value):
            at = f"epoch {len(history)} (learning_rate {parameters.learning_rate:g})"
            raise _NotFiniteError(f"{name} is {value} at {at}")
        return value

    state, reason = OutcomeState.COMPLETE, None
    history: list[Epoch] = []
    best: Epoch | None = None
    best_weights: Weights | None = None
    seconds, resumed = 0.0, time.perf_counter()  # `report` may wait for an answer: not counted

    try:
        with seeded(job.seed, device) as shuffling:
            windows = Windows(job.data, device)
            train_starts = windows.index(job.data.starts(job.data.train))  # (train windows,)
            starts = job.data.starts(job.data.evaluate)  # (evaluation windows,)
            evaluate_starts = windows.index(starts)
            evaluate_targets = windows.after(evaluate_starts)  # (windows, horizon, targets)
            truth = job.data.truth()[starts[:, None] + np.arange(job.data.horizon)]  # the same

            model = Forecaster(parameters, **windows.shape).to(device)
            weights = list(model.parameters())
            optimizer = torch.optim.Adam(weights, lr=parameters.learning_rate, fused=True)

            for number in range(job.epochs):
                model.train()
                total = torch.zeros((), dtype=torch.float64, device=device)
                order = torch.randperm(len(train_starts), generator=shuffling).to(device)
                for batch in torch.split(train_starts[order], parameters.batch_size):
                    optimizer.zero_grad(set_to_none=True)
                    forecasts = model(windows.before(batch))  # (batch, horizon, targets)
                    loss = functional.mse_loss(forecasts, windows.after(batch))
                    torch.autograd.backward(loss)
                    nn.utils.clip_grad_norm_(weights, parameters.gradient_clip, foreach=foreach)
                    optimizer.step()
                    total.add_(loss.detach(), alpha=len(batch))  # read once, after the epoch

                train_loss = finite("train_loss", total.item() / len(train_starts))

                scaled = forecast(model, windows, evaluate_starts)  # (windows, horizon, targets)
                val_loss = functional.mse_loss(scaled, evaluate_targets).item()
                val_loss = finite("val_loss", val_loss)
                in_units = job.data.invert(scaled.cpu().numpy(), starts)
                metric = finite(job.metric, score(job.metric, truth, in_units))

                epoch = Epoch(number, train_loss, val_loss, metric, time=time.time())
                history.append(epoch)
                if best is None or sign * epoch.metric < sign * best.metric:
                    best = epoch
                    if job.keep_weights:
                        best_weights = model.weights()

                seconds += time.perf_counter() - resumed
                go_on = report(epoch)
                resumed = time.perf_counter()
                if not go_on:
                    state = OutcomeState.PRUNED
                    break
                if number - best.epoch >= job.patience:
                    break
    except _NotFiniteError as error:
        state, reason = OutcomeState.FAILED, str(error)
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError when memory is short
        state, reason = OutcomeState.FAILED, f"{type(error).__name__}: {one_line(error)}"

    seconds += time.perf_counter() - resumed
    if state is not OutcomeState.COMPLETE:
        best, best_weights = None, None
    return Outcome(
        state,
        objective=best.metric if best else None,
        best_epoch=best.epoch if best else None,
        history=tuple(history),
        reason=reason,
        seconds=seconds,
        finished_at=time.time(),
        peak_memory_mb=peak_memory_mb(),
        weights=best_weights,
    )
