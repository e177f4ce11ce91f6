"""Jobs made from an experiment, and jobs run outside of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuner.data import DataRef
from tuner.errors import RunError
from tuner.executors.base import Executor, Finished, Lost
from tuner.experiment import Experiment
from tuner.jobs import Job, Outcome, OutcomeState, TrainJob

__all__ = ["run_jobs", "train_job"]


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
        keep_weights=keep_weights,
    )


def run_jobs(executor: Executor, jobs: Sequence[Job], retries: int = 2) -> list[Outcome]:
    """Run jobs that must all succeed and return their outcomes in order.

    Raises:
        RunError: one failed, or was lost more than `retries` times.
    """
    waiting = {job.key: job for job in jobs}
    losses = dict.fromkeys(waiting, 0)
    outcomes: dict[str, Outcome] = {}
    for job in jobs:
        executor.submit(job)
    while waiting:
        for event in executor.poll(1.0):
            if isinstance(event, Lost):
                losses[event.key] += 1
                if losses[event.key] > retries:
                    raise RunError(f"{event.key}: {event.reason}")
                executor.submit(waiting[event.key])
            elif isinstance(event, Finished):
                if event.outcome.state is not OutcomeState.COMPLETE:
                    raise RunError(f"{event.key}: {event.outcome.reason}")
                outcomes[event.key] = event.outcome
                del waiting[event.key]
    return [outcomes[job.key] for job in jobs]
