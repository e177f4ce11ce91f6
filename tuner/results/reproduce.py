"""Trains one configuration, and says whether an exported score came out again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuner.data.dataset import Prepared
from tuner.data.preparing import prepare
from tuner.data.scratch import scratch_folder
from tuner.executors import LocalExecutor
from tuner.experiment import Experiment
from tuner.jobs import Outcome, PredictJob, TrainJob
from tuner.results.attention import Attention
from tuner.search.opening import library_versions
from tuner.search.work import run_jobs, train_job

__all__ = ["Training", "train_again"]


@dataclass(frozen=True)
class Training:
    """One training run of an experiment's fixed hyperparameters."""

    experiment: Experiment
    data: Prepared
    outcome: Outcome
    attention: Attention | None = None  # on the validation part, of a model that has it

    @property
    def reproduced(self) -> bool | None:
        """Whether the recorded score came out, to the last digit; None if there is none."""
        recorded = self.experiment.recorded
        return None if recorded is None else self.outcome.objective == recorded.score

    def differences(self) -> list[str]:
        """Return what is not as it was when the score was recorded."""
        recorded = self.experiment.recorded
        if recorded is None:
            return []
        found = []
        if self.data.facts.sha256 != recorded.data_sha256:
            then, now = recorded.rows, self.data.facts.rows
            how = (
                f"{then} rows then, {now} now" if then != now else f"other values in its {now} rows"
            )
            found.append(f"the data has changed ({how})")
        installed = library_versions()
        found += [
            f"{name} is {installed.get(name, 'missing')}, was {version}"
            for name, version in recorded.versions.items()
            if installed.get(name) != version
        ]
        return found


def train_again(experiment: Experiment) -> Training:
    """Train an experiment's hyperparameters once, on its recorded seed if it has one.

    Raises:
        DataError: the data cannot be used.
        RunError: the training failed.
    """
    seed = experiment.recorded.seed if experiment.recorded else experiment.seed
    with scratch_folder() as folder:
        data = prepare(experiment, folder)
        executor = LocalExecutor(1)
        try:
            job = train_job(experiment, data.folds, "training", {}, seed, keep_weights=True)
            (outcome,) = run_jobs(executor, [job])
            attention = None
            if experiment.hyperparameters.pooling == "attention":
                attention = _attention(executor, job, outcome, data.name_of)
        finally:
            executor.close()
    return Training(experiment, data, outcome, attention)


def _attention(
    executor: LocalExecutor, job: TrainJob, outcome: Outcome, name_of: Callable[[int], str]
) -> Attention:
    """Return what the trained model looks at in the samples that it was validated on."""
    assert outcome.weights is not None
    data = job.folds[-1]
    asked = PredictJob("attention", job.hyperparameters, outcome.weights, data, device=job.device)
    weights = run_jobs(executor, [asked])[0].attention
    assert weights is not None
    return Attention([name_of(sample) for sample in data.evaluate_samples().tolist()], weights)
