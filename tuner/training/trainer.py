"""The training loop: one configuration, from its seed to its score."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tuner.errors import one_line
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.experiment.metrics import METRICS
from tuner.jobs import Epoch, Outcome, OutcomeState, TrainJob, Weights
from tuner.training.device import describe_device, give_memory_back, peak_memory_mb, pick_device
from tuner.training.errors import TrainingError
from tuner.training.fit import Fit
from tuner.training.latency import latency_ms
from tuner.training.seeding import seeded

__all__ = ["Report", "train"]

Report = Callable[[Epoch], bool]
"""Hears of every epoch when it has ended, and answers whether to go on."""


class _RefusedError(Exception):
    """`report` said no."""


@dataclass(frozen=True)
class _Best:
    """The best epoch of a fold; where nothing is validated, the last."""

    epoch: int
    metric: float | None
    weights: Weights | None


def train(job: TrainJob, report: Report) -> Outcome:
    """Train, fold after fold, until epochs are used up, nothing improves, or `report` says no.

    A job that does not validate trains its epochs, and has neither score nor history.

    A pure function of the job, but for the times in it. A model that diverges or does not fit
    into memory gives a failed outcome with the epochs that it finished; no number in an
    outcome's history is infinite or not a number.
    """
    trainer = _Trainer(job, report)
    state, reason = OutcomeState.COMPLETE, None
    best: list[_Best] = []  # of every fold
    try:
        for fold in range(len(job.folds)):
            best.append(trainer.train_fold(fold))
            give_memory_back()
    except _RefusedError:
        state = OutcomeState.PRUNED
    except TrainingError as error:
        state, reason = OutcomeState.FAILED, str(error)
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError when memory is short
        state, reason = OutcomeState.FAILED, f"{type(error).__name__}: {one_line(error)}"
    give_memory_back()

    complete = state is OutcomeState.COMPLETE
    scores = [b.metric for b in best if b.metric is not None]
    return Outcome(
        state,
        objective=statistics.fmean(scores) if complete and scores else None,
        best_epoch=best[-1].epoch if complete else None,
        history=tuple(trainer.history),
        reason=reason,
        seconds=trainer.watch.seconds(),
        finished_at=time.time(),
        peak_memory_mb=peak_memory_mb(),
        device=trainer.device,
        n_weights=trainer.n_weights if complete else None,
        latency_ms=trainer.latency_ms if complete else None,
        weights=best[-1].weights if complete else None,
    )


class _Trainer:
    """Trains the folds of a job one by one, and keeps the history of them all."""

    def __init__(self, job: TrainJob, report: Report) -> None:
        self.job, self.report = job, report
        self.parameters = Hyperparameters(**job.hyperparameters)
        self.sign = METRICS[job.metric].sign  # sign * metric is what gets smaller
        self.history: list[Epoch] = []
        self.watch = _Stopwatch()
        self.device = ""  # what calculates
        self.n_weights: int | None = None  # of the latest fold, as the next
        self.latency_ms: float | None = None

    def train_fold(self, fold: int) -> _Best:
        """Train a model on one fold until it ends; what is left of it is its best epoch.

        Raises:
            _RefusedError: `report` said no.
            TrainingError: a number is not finite, or the job cannot be done here.
        """
        device = pick_device(self.job.device)
        self.device = describe_device(device)
        with seeded(self.job.seed, device, fold=fold) as generators:
            fit = Fit(self.job, self.parameters, self.job.folds[fold], device, generators)
            best = self._validate(fit, fold) if self.job.validates else self._train_all(fit)
            self.n_weights = sum(parameter.numel() for parameter in fit.weights)
            if self.job.validates and fold == len(self.job.folds) - 1:
                with self.watch.paused():
                    self.latency_ms = latency_ms(fit)
            return best

    def _validate(self, fit: Fit, fold: int) -> _Best:
        """Train until the score has not improved for a while; of equal ones the loss decides."""
        job, first = self.job, len(self.history)
        best: _Best | None = None
        best_so_far = (math.inf, math.inf)  # metric, and loss: a metric of few rows stands still
        for number in range(first, first + job.epochs):
            train_loss = self._finite("train_loss", fit.train_epoch(), number)
            val_loss, metric = fit.evaluate()
            self._finite("val_loss", val_loss, number)
            self._finite(job.metric, metric, number)
            fit.schedule(val_loss)

            if best is None or (self.sign * metric, val_loss) < best_so_far:
                best_so_far = self.sign * metric, val_loss
                best = _Best(number, metric, fit.trained.weights() if job.keep_weights else None)
            last = number == first + job.epochs - 1 or number - best.epoch >= job.patience
            self._tell(
                Epoch(
                    number,
                    train_loss,
                    val_loss,
                    metric,
                    time=time.time(),
                    fold=fold,
                    fold_score=best.metric if last and len(job.folds) > 1 else None,
                )
            )
            if last:
                break
        assert best is not None, "a job has epochs"
        return best

    def _train_all(self, fit: Fit) -> _Best:
        """Train every epoch; a schedule that follows the validation loss follows training's."""
        for number in range(self.job.epochs):
            fit.schedule(self._finite("train_loss", fit.train_epoch(), number))
        return _Best(
            self.job.epochs - 1, None, fit.trained.weights() if self.job.keep_weights else None
        )

    def _finite(self, name: str, value: float, epoch: int) -> float:
        """Return `value`, or raise where nothing can be learned from it."""
        if not math.isfinite(value):
            rate = f"learning_rate {self.parameters.learning_rate:g}"
            raise TrainingError(f"{name} is {value} at epoch {epoch} ({rate})")
        return value

    def _tell(self, epoch: Epoch) -> None:
        """Add an epoch to the history and report it; raise if that was the last one."""
        self.history.append(epoch)
        with self.watch.paused():  # it may wait for an answer
            go_on = self.report(epoch)
        if not go_on:
            raise _RefusedError


class _Stopwatch:
    """Counts seconds from when it is made, but for those when it was paused."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def seconds(self) -> float:
        """Return how many seconds were counted."""
        return time.perf_counter() - self._since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing in the block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - begun
