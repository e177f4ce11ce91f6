"""The member of a group: the course of its training, and its outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tuner.errors import Interrupted
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Epoch, Outcome, OutcomeState, TrainJob, Weights
from tuner.metrics import METRICS
from tuner.training.device import describe_device, lacks_memory, peak_memory_mb, reason_of, seeded
from tuner.training.samples import Split
from tuner.training.stack import Sizes
from tuner.training.trainer import Fit, check_finite, latency_ms


class Member:
    """The course of one training in a group, and its outcome."""

    def __init__(self, job: TrainJob) -> None:
        self.job = job
        self.parameters = Hyperparameters(**job.hyperparameters)
        self.state: OutcomeState | None = None  # once it has ended
        self.reason: str | None = None
        self.history: list[Epoch] = []
        self.reported = 0  # epochs
        self.best: Epoch | None = None
        self.weights: Weights | None = None  # of the best epoch, if the job keeps them
        self.seconds = 0.0
        self.device = ""
        self.latency_ms: float | None = None
        self.n_weights: int | None = None
        self._fit: Fit | None = None
        self._sign = METRICS[job.metric].sign  # sign * metric is what gets smaller

    def prepare(self, device: torch.device, opened: Split) -> None:
        """Make the model, on the split that all members read; the member may fail."""
        started = time.perf_counter()
        self.device = describe_device(device)
        with self.fails_alone(), seeded(self.job.seed, device) as generators:
            data = self.job.folds[0]
            fit = Fit(self.job, self.parameters, data, device, generators, opened)
            # Dropout goes on where the first weights end, as in a training alone.
            self.dropout = torch.Generator(device)
            if device.type == "cpu":
                self.dropout.set_state(torch.default_generator.get_state())
            else:
                self.dropout.set_state(torch.cuda.get_rng_state(device))
            self._fit = fit
            self.sizes = Sizes.of(fit.model)
            self.n_weights = sum(parameter.numel() for parameter in fit.model.parameters())
        self.seconds += time.perf_counter() - started

    @property
    def fit(self) -> Fit:
        """The model with its data and optimizer, until the training has ended."""
        assert self._fit is not None
        return self._fit

    def release(self) -> None:
        """Free the memory of a training that has ended; its outcome stays."""
        self._fit = None

    @contextmanager
    def fails_alone(self) -> Iterator[None]:
        """Let an error in the block fail this member, unless it is a lack of memory."""
        try:
            yield
        except Interrupted:
            raise
        except Exception as error:
            if lacks_memory(error):
                raise
            self.fail(error)

    @property
    def learning_rate(self) -> float:
        """Of the next epoch."""
        return float(self.fit.optimizer.param_groups[0]["lr"])

    def fail(self, error: Exception) -> None:
        """End the training as failed."""
        self.state, self.reason = OutcomeState.FAILED, reason_of(error)

    def add(self, train_loss: float, val_loss: float, metric: float) -> Epoch:
        """Add an epoch, and return it.

        Raises:
            TrainingError: a number is not finite.
        """
        number = len(self.history)
        numbers = {"train_loss": train_loss, "val_loss": val_loss, self.job.metric: metric}
        check_finite(self.parameters, number, **numbers)
        self.fit.schedule(val_loss)
        epoch = Epoch(number, train_loss, val_loss, metric, time.time())
        self.history.append(epoch)
        if self.best is None or self._rank(epoch) < self._rank(self.best):
            self.best = epoch
        return epoch

    def _rank(self, epoch: Epoch) -> tuple[float, float]:
        return self._sign * epoch.metric, epoch.val_loss

    def answered(self, go_on: bool) -> None:
        """Note that the newest epoch was reported, and whether the training was pruned."""
        self.reported += 1
        if not go_on:
            self.state = OutcomeState.PRUNED

    def end_if_done(self) -> None:
        """End the training if the newest epoch was its last one."""
        assert self.best is not None, "an epoch was added"
        if self.state is not None:
            return
        number = self.history[-1].epoch
        if number == self.job.epochs - 1 or number - self.best.epoch >= self.job.patience:
            self.latency_ms = latency_ms(self.fit)
            self.state = OutcomeState.COMPLETE

    def outcome(self) -> Outcome:
        """Return the outcome of the training, which has ended."""
        assert self.state is not None
        complete = self.state is OutcomeState.COMPLETE
        best = self.best if complete else None
        return Outcome(
            self.state,
            objective=None if best is None else best.metric,
            best_epoch=None if best is None else best.epoch,
            history=tuple(self.history),
            reason=self.reason,
            seconds=self.seconds,
            finished_at=time.time(),
            peak_memory_mb=peak_memory_mb(),
            device=self.device,
            n_weights=self.n_weights if complete else None,
            latency_ms=self.latency_ms,
            weights=self.weights if complete else None,
        )
