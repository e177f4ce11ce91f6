"""Jobs made from an experiment, and jobs run outside of a study."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tuner.data import DataRef, SeriesRef
from tuner.errors import Interrupted, RunError
from tuner.executors.base import Executor, Finished, Lost
from tuner.experiment import Experiment
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Job, Outcome, OutcomeState, TrainJob

__all__ = ["STOPPED", "STOPPING", "cost", "run_jobs", "train_job", "without_score"]

STOPPING = "stopping when the trials in progress have ended; Ctrl-C again stops now"
STOPPED = "stopped; what was finished is kept, and the same command resumes"

_POLL_S = 1.0  # and at most so long until it is seen that a search is to stop

_STEP = 800_000
"""What a step of the optimizer costs twice, and once more a layer: in products of weights.

Measured on a CPU with one thread: 0.43 ms for one layer, 0.58 ms for two, and 0.16 ms for a
million products, forwards and backwards.
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
    """Return the job that trains the searched `params` with what the experiment fixes."""
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
    """Return the job for so many epochs of the ones that its learning rate is scheduled for."""
    return dataclasses.replace(job, epochs=epochs, schedule_epochs=job.epochs, validates=False)


def cost(job: TrainJob) -> float:
    """Estimate how long a job takes beside others of the same search; only the order counts.

    A step of the optimizer costs as much as some arithmetic whatever it computes; the rest
    grows with the products of the recurrent layers' widths, for each step that they read:
    a segment is one.
    """
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


def run_jobs(
    executor: Executor,
    jobs: Sequence[Job],
    *,
    retries: int = 2,
    stop: threading.Event | None = None,
    note: Callable[[str], None] = lambda text: None,
    ended: Callable[[str, Outcome], None] = lambda key, outcome: None,
    may_fail: bool = False,
) -> list[Outcome]:
    """Run jobs that must all come to an end and return their outcomes in order.

    Args:
        executor: where they run.
        jobs: with keys that differ.
        retries: how often a job is run again that the machine took away.
        stop: once set, no further job starts; those in progress end.
        note: is told, once, that it was set.
        ended: is told each outcome, by the job's key, when it comes.
        may_fail: whether one that failed is an outcome like any other.

    Raises:
        RunError: one failed that may not, or was lost more than `retries` times.
        Interrupted: `stop` was set before all had ended.
    """
    waiting = {job.key: job for job in jobs}
    losses = dict.fromkeys(waiting, 0)
    outcomes: dict[str, Outcome] = {}
    for job in jobs:
        executor.submit(job)
    stopped = False
    while waiting:
        if not stopped and stop is not None and stop.is_set():
            stopped = True
            note(STOPPING)
            for key in executor.withdraw():
                del waiting[key]
            continue
        for event in executor.poll(_POLL_S):
            if isinstance(event, Lost):
                losses[event.key] += 1
                if losses[event.key] > retries:
                    raise RunError(f"{event.key}: {event.reason}")
                if stopped:
                    del waiting[event.key]
                else:
                    executor.submit(waiting[event.key])
            elif isinstance(event, Finished):
                if event.outcome.state is not OutcomeState.COMPLETE and not may_fail:
                    raise RunError(f"{event.key}: {event.outcome.reason}")
                outcomes[event.key] = event.outcome
                ended(event.key, event.outcome)
                del waiting[event.key]
    if len(outcomes) < len(jobs):
        raise Interrupted(STOPPED)
    return [outcomes[job.key] for job in jobs]
