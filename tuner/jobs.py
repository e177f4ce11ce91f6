"""Jobs: what the search sends to a worker, and what comes back.

Search and training do not import each other; they meet in these records. A job is a pure
function of its fields: the same job gives the same outcome on the same kind of CPU.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from tuner.data import DataRef, SeriesRef, Shape
from tuner.experiment import Experiment
from tuner.experiment.hyperparameters import Hyperparameters

Weights = dict[str, np.ndarray]
"""A model's parameters by name, as numpy arrays."""

LARGEST_ONNX = 2**31 - 2**20
"""Bytes of weights in an ONNX file, at most: it is limited to 2 GB with its graph."""


class OutcomeState(StrEnum):
    """How a job ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class Epoch:
    """Losses and metric of one pass over the training windows."""

    epoch: int  # from 0, over all folds
    train_loss: float  # mean over the training samples, in scaled units
    val_loss: float  # over the validation samples, in scaled units
    metric: float  # the objective's metric on the validation set, in the data's units
    time: float  # of its end, seconds since 1970
    fold: int = 0
    fold_score: float | None = None  # of the fold that ends with this epoch; None without folds


@dataclass(frozen=True)
class TrainJob:
    """Train one configuration and score it on the validation set."""

    key: str  # unique among the jobs of one run
    hyperparameters: dict[str, Any]
    seed: int
    epochs: int
    patience: int
    metric: str
    folds: tuple[DataRef, ...]  # trained one after another; the score is the mean over them
    device: str = "auto"  # auto (CUDA if there is one) | cpu | cuda
    mixed_precision: bool = False  # on CUDA
    can_be_pruned: bool = False  # the worker then waits for an answer after every epoch
    timeout_s: float | None = None  # the executor ends the job after that; see `timed_out`
    keep_weights: bool = False
    validates: bool = True  # if not, it trains all epochs without a score, and keeps the last
    schedule_epochs: int | None = None  # length of the learning rate's schedule; None is `epochs`


@dataclass(frozen=True)
class GroupJob:
    """Train several configurations at once, as one batched model.

    What comes of it is reported for each of its jobs, under that job's key.
    """

    key: str  # unique among the jobs of one run, and among the keys of their members
    jobs: tuple[TrainJob, ...]  # two or more, without a time limit


@dataclass(frozen=True)
class PredictJob:
    """Predict the evaluation part of `data` with trained weights."""

    key: str
    hyperparameters: dict[str, Any]
    weights: Weights
    data: DataRef
    device: str = "auto"
    others: tuple[Weights, ...] = ()  # of further models, for the mean of all predictions


@dataclass(frozen=True)
class ExportJob:
    """Write trained weights as an ONNX model, and compare its outputs with torch's."""

    key: str
    hyperparameters: dict[str, Any]
    weights: Weights
    shape: Shape
    steps: int  # of the sequences on which they are compared
    others: tuple[Weights, ...] = ()  # of further models, for the mean of all outputs


@dataclass(frozen=True)
class ExternalJob:
    """Train one configuration elsewhere: a client asks for it and reports its values."""

    key: str  # unique among the jobs of one study
    trial_id: int  # in the journal
    number: int  # of the trial
    params: dict[str, Any]
    seed: int
    can_be_pruned: bool = False  # the client is then answered after every report


Job = TrainJob | GroupJob | PredictJob | ExportJob
"""What a worker does."""

TrialJob = TrainJob | ExternalJob
"""What the training of a trial is."""


def group_job(jobs: Sequence[TrainJob]) -> TrainJob | GroupJob:
    """Return one job for several: a group, without their time limits, or the only one of them."""
    if len(jobs) == 1:
        return jobs[0]
    unlimited = tuple(dataclasses.replace(job, timeout_s=None) for job in jobs)
    return GroupJob(f"{jobs[0].key} and {len(jobs) - 1} more", unlimited)


def members_of(job: Job) -> tuple[TrainJob | PredictJob | ExportJob, ...]:
    """Return the jobs under whose keys a job is reported: those of a group, or itself."""
    return job.jobs if isinstance(job, GroupJob) else (job,)


def renamed(job: Job, prefix: str) -> Job:
    """Return a job whose key, and those of its members, begin with a prefix."""
    if isinstance(job, GroupJob):
        jobs = tuple(dataclasses.replace(each, key=prefix + each.key) for each in job.jobs)
        return GroupJob(prefix + job.key, jobs)
    return dataclasses.replace(job, key=prefix + job.key)


def data_of(job: Job) -> tuple[DataRef, ...]:
    """Return the data that a job reads, one reference for each fold."""
    match job:
        case TrainJob():
            return job.folds
        case GroupJob():
            return tuple(dict.fromkeys(ref for each in job.jobs for ref in each.folds))
        case PredictJob():
            return (job.data,)
    return ()


@dataclass(frozen=True)
class Exported:
    """A model as ONNX."""

    file: bytes
    difference: float  # largest one from torch's outputs, relative to the largest output


@dataclass(frozen=True)
class Outcome:
    """The result of a job.

    `objective` is the metric of the best epoch, in the data's units, or its mean over the folds. It
    is None for a failed or pruned job (see `history` and `reason`), and without validation. Of
    epochs with the same metric, the best one has the least validation loss.
    """

    state: OutcomeState
    objective: float | None = None
    best_epoch: int | None = None  # of the last fold
    history: tuple[Epoch, ...] = ()
    reason: str | None = None
    seconds: float = 0.0  # spent training
    finished_at: float = 0.0  # seconds since 1970
    peak_memory_mb: float = 0.0  # of the worker process
    device: str = ""  # kind of processor, which can change the last digit
    n_weights: int | None = None  # learned parameters of a complete training
    latency_ms: float | None = None  # to predict one sample, in torch
    weights: Weights | None = None  # of the last fold, if the job keeps them
    predictions: np.ndarray | None = None  # of a PredictJob; see DataRef.to_units
    attention: np.ndarray | None = None  # (samples, steps), of a PredictJob with attention pooling
    exported: Exported | None = None  # of an ExportJob

    def val_loss(self, sign: int) -> float:
        """Return the validation loss, which decides between trainings with the same objective.

        It is that of the best epoch, or its mean over the folds; infinite without a history.

        Args:
            sign: of the metric, 1 or -1: sign * metric is minimized.
        """
        losses = [loss for _, loss in _best_epochs(self.history, sign)]
        return statistics.fmean(losses) if losses else math.inf

    def cost(self, name: str) -> float:
        """Return one of `tuner.metrics.COSTS`; infinite if it is not known."""
        costs = {"weights": self.n_weights, "seconds": self.seconds, "latency": self.latency_ms}
        return math.inf if (value := costs[name]) is None else float(value)

    def to_json(self) -> dict[str, Any]:
        """Return the record that the journal keeps: everything but the arrays."""
        arrays = ("weights", "predictions", "attention", "exported")
        names = [f.name for f in dataclasses.fields(self) if f.name not in arrays]
        record = {name: getattr(self, name) for name in names}
        record["state"] = self.state.value
        record["history"] = [
            [e.train_loss, e.val_loss, e.metric, round(e.time, 3)]
            + ([e.fold, e.fold_score] if e.fold or e.fold_score is not None else [])
            for e in self.history
        ]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Outcome:
        """Return the outcome of a record by `to_json`."""
        history = tuple(Epoch(i, *row) for i, row in enumerate(record["history"]))
        return cls(**record | {"state": OutcomeState(record["state"]), "history": history})


def intermediate_values(history: Iterable[Epoch], n_folds: int) -> dict[int, float]:
    """Return the values that a pruner compares: metrics by epoch, or scores by fold.

    The score of a fold is the mean over the folds so far, as one may be harder than another.

    Args:
        history: epochs, in order.
        n_folds: of the job; 1 without folds.
    """
    if n_folds == 1:
        return {e.epoch: e.metric for e in history}
    scores = [e.fold_score for e in history if e.fold_score is not None]
    return {fold: statistics.fmean(scores[: fold + 1]) for fold in range(len(scores))}


def intermediate_losses(history: Iterable[Epoch], n_folds: int, sign: int) -> dict[int, float]:
    """Return the validation losses at the steps of `intermediate_values`.

    The loss of a fold is the mean over the folds so far, each at its best epoch.

    Args:
        history: epochs, in order.
        n_folds: of the job; 1 without folds.
        sign: of the metric, 1 or -1: sign * metric is minimized.
    """
    if n_folds == 1:
        return {e.epoch: e.val_loss for e in history}
    history = list(history)
    ended = {e.fold for e in history if e.fold_score is not None}
    losses = [loss for fold, loss in _best_epochs(history, sign) if fold in ended]
    return {fold: statistics.fmean(losses[: fold + 1]) for fold in range(len(losses))}


def _best_epochs(history: Iterable[Epoch], sign: int) -> list[tuple[int, float]]:
    """Return each fold with the validation loss at its best epoch, by metric, then by loss."""
    best: dict[int, tuple[float, float]] = {}
    for e in history:
        best[e.fold] = min(best.get(e.fold, (math.inf, math.inf)), (sign * e.metric, e.val_loss))
    return [(fold, loss) for fold, (_, loss) in best.items()]


_STEP = 800_000
"""Fixed cost of an optimizer step (2x) and of each layer (1x), in multiply-accumulates.

Measured on a CPU with one thread: 0.43 ms for one layer, 0.58 ms for two, and 0.16 ms for a
million multiply-accumulates, forwards and backwards.
"""


def train_job(
    experiment: Experiment,
    folds: tuple[DataRef, ...],
    key: str,
    params: dict[str, Any],
    seed: int,
    *,
    can_be_pruned: bool = False,
    keep_weights: bool = False,
) -> TrainJob:
    """Return the job that trains one configuration of an experiment.

    Args:
        experiment: gives the fixed hyperparameters, the budget and the device.
        folds: the prepared data.
        key: unique among the jobs of one run.
        params: the searched hyperparameters.
        seed: of the training.
        can_be_pruned: whether the worker waits for an answer after every epoch.
        keep_weights: whether the outcome has the weights.
    """
    return TrainJob(
        key=key,
        hyperparameters=experiment.configuration(params),
        seed=seed,
        epochs=experiment.budget.epochs,
        patience=experiment.budget.patience,
        metric=experiment.objective.metric,
        folds=folds,
        device=experiment.training.device,
        mixed_precision=experiment.training.mixed_precision,
        can_be_pruned=can_be_pruned,
        timeout_s=experiment.budget.trial_timeout,
        keep_weights=keep_weights,
    )


def without_score(job: TrainJob, epochs: int) -> TrainJob:
    """Return the job for fewer epochs, without validation, on its own learning-rate schedule."""
    return dataclasses.replace(job, epochs=epochs, schedule_epochs=job.epochs, validates=False)


def cost(job: TrainJob | GroupJob) -> float:
    """Estimate a job's training time, relative to other jobs of the same search.

    An optimizer step has a fixed cost. The rest grows with the products of the recurrent layers'
    widths, for each step that they read; a segment is one step. A group has the sum of its jobs:
    what it saves is much the same for all.
    """
    if isinstance(job, GroupJob):
        return sum(map(cost, job.jobs))
    parameters = Hyperparameters(**job.hyperparameters)
    data = job.folds[0].with_window(parameters.window)
    steps = data.window if isinstance(data, SeriesRef) else 1
    directions, segment = 2 if parameters.bidirectional else 1, parameters.segment
    before, inputs = 0, data.shape.inputs or parameters.embedding_size  # the layers
    if channels := parameters.conv_channels:
        before += channels * inputs * parameters.conv_kernel
        inputs = channels
    if segment > 1:
        before += parameters.widths[0] * inputs
        inputs = parameters.widths[0]
    products = 0
    for width in parameters.widths:
        products += directions * width * (inputs + width)
        inputs = directions * width
    # A gate is one of four: the products are of one.
    total = steps * (products / segment + before / 4)
    if data.shape.task == "forecast" and parameters.decoder != "direct":
        horizon, width = data.shape.horizon, parameters.widths[-1]
        at_once = 1 if parameters.decoder == "recursive" else segment
        total += horizon / at_once * 2 * width**2
    overhead = _STEP * (2 + directions * len(parameters.widths)) / parameters.batch_size
    return len(job.folds) * job.epochs * (total + overhead)


def timed_out(job: TrainJob) -> Outcome:
    """Return the outcome of a job that its executor has ended after `timeout_s`.

    A slow job ends like one that hangs: its score by then would differ on a faster machine.
    """
    limit = f"{job.timeout_s:g} s"
    return Outcome(
        OutcomeState.FAILED,
        reason=f"it trained for longer than budget.trial_timeout, {limit}",
        seconds=job.timeout_s or 0.0,
        finished_at=time.time(),
    )
