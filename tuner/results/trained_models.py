"""The models behind a study's scores: kept since this run trained them, or trained again."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from tuner.coordination.observer import Observer
from tuner.coordination.records import TrialRecord
from tuner.coordination.seeds import training_name
from tuner.coordination.work import run_jobs, train_job
from tuner.data.dataset import Prepared
from tuner.executors import Executor
from tuner.experiment import Experiment
from tuner.jobs import Outcome, TrainJob, Weights

__all__ = ["Models", "TrainedModels"]

Models = Sequence[tuple[TrainJob, Weights]]
"""Trained models: of each the job that trained it, and its weights."""


class TrainedModels:
    """The models of finalists and of the default, by their records.

    A journal keeps scores, not models: those that another run of the search trained are trained
    again when somebody asks for them.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Prepared,
        executor: Executor,
        observer: Observer,
        stop: threading.Event,
    ) -> None:
        self._experiment, self._data = experiment, data
        self._executor, self._observer, self._stop = executor, observer, stop
        self._weights: dict[str, Weights] = {}  # by the key of the job
        self._scores: dict[str, float | None] = {}  # of what was trained again

    def job(self, run: TrialRecord) -> TrainJob:
        """Return the job that trains a model of which the weights are kept."""
        key, params = f"{run.role} {run.number}", dict(run.params)
        folds = self._data.of(params).folds
        return train_job(self._experiment, folds, key, params, run.seed, keep_weights=True)

    def keep(self, weights: Mapping[str, Weights]) -> None:
        """Take over what was trained, by the keys of its jobs."""
        self._weights.update(weights)

    def weights_of(self, run: TrialRecord) -> Weights | None:
        """Return the weights behind a recorded score; None where they are not known."""
        return None if self.differs(run) else self._weights.get(self.job(run).key)

    def differs(self, run: TrialRecord) -> bool:
        """Return whether a model was trained again and came to another score than is recorded."""
        key = self.job(run).key
        return key in self._scores and self._scores[key] != run.value

    def of(self, runs: Sequence[TrialRecord]) -> Models:
        """Return what some trainings came to, each with its job.

        Raises:
            RunError: a training failed that had not failed before.
            Interrupted: the search was stopped meanwhile.
        """
        jobs = [self.job(run) for run in runs]
        missing = {
            job.key: run
            for job, run in zip(jobs, runs, strict=True)
            if job.key not in self._weights
        }
        if missing:
            models = "1 model" if len(missing) == 1 else f"{len(missing)} models"
            self._observer.note(
                f"training {models} again for the test part: a journal keeps scores, not models"
            )

        def ended(key: str, outcome: Outcome) -> None:
            assert outcome.weights is not None
            self._weights[key], self._scores[key] = outcome.weights, outcome.objective
            n_done = sum(key in self._weights for key in missing)
            self._observer.note(f"[{n_done}/{len(missing)}] {self._said(missing[key])}")

        again = [job for job in jobs if job.key in missing]
        run_jobs(self._executor, again, stop=self._stop, note=self._observer.note, ended=ended)
        return [(job, self._weights[job.key]) for job in jobs]

    def _said(self, run: TrialRecord) -> str:
        name = training_name(run.role, run.number, run.configuration, run.repeat)
        if not self.differs(run):
            return f"{name} trained again"
        score = self._scores[self.job(run).key]
        return f"{name} trained again, to {score} and not to {run.value}: another CPU or version?"
