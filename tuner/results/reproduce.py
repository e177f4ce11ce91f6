"""Trains one configuration, and says whether an exported score came out again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from tuner.coordination.opening import library_versions
from tuner.coordination.work import run_jobs, train_job
from tuner.data.dataset import Facts, Prepared
from tuner.data.preparing import prepare
from tuner.data.scratch import scratch_folder
from tuner.data.tables import refusal
from tuner.errors import InputError, show_path
from tuner.executors import Executor, LocalExecutor
from tuner.experiment import Experiment, Recorded
from tuner.jobs import Outcome, PredictJob, TrainJob
from tuner.results.attention import Attention

__all__ = ["Training", "epochs_without_score", "look_at_attention", "train_again"]

_OF_THE_SEARCH = {"optuna", "pyswarms"}  # libraries that no training uses


@dataclass(frozen=True)
class Training:
    """One training run of an experiment's fixed hyperparameters."""

    experiment: Experiment
    data: Prepared
    outcome: Outcome  # without a score, where all data was trained on
    attention: Attention | None = None  # on the validation part, of a model that has it

    @property
    def reproduced(self) -> bool | None:
        """Whether the recorded score came out, to the last digit; None where there is none."""
        recorded, score = self.experiment.recorded, self.outcome.objective
        return None if recorded is None or score is None else score == recorded.score

    def differences(self) -> list[str]:
        """Return what is not as it was when the score was recorded."""
        recorded = self.experiment.recorded
        if recorded is None:
            return []
        found = []
        if change := _change(self.data.facts, recorded):
            found.append(f"the data has changed ({change})")
        installed = library_versions()
        found += [
            f"{name} is {installed.get(name, 'missing')}, was {version}"
            for name, version in recorded.versions.items()
            if installed.get(name) != version and name not in _OF_THE_SEARCH
        ]
        if recorded.device not in (None, self.outcome.device):
            found.append(f"the device is {self.outcome.device}, was {recorded.device}")
        return found


def train_again(
    experiment: Experiment,
    *,
    all_data: bool = False,
    strict: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> Training:
    """Train an experiment's hyperparameters once, on its recorded seed if it has one.

    Args:
        experiment: what is trained; a search space in it is not searched.
        all_data: whether the validation part is trained on too, for as many epochs as the
            recorded training needed: for deployment, and without a score. Scalers and the like
            are fitted on both parts; the test part stays out.
        strict: whether other data than the recorded is refused.
        warn: else told of it, before training.

    Raises:
        DataError: the data cannot be used, or is not what it must be.
        InputError: no number of epochs is recorded, and all data is to be trained on.
        RunError: the training failed.
    """
    epochs = epochs_without_score(experiment) if all_data else None
    recorded = experiment.recorded
    with scratch_folder() as folder:
        data = prepare(experiment, folder, all_data=all_data)
        if recorded is not None:
            _check_same(data.facts, recorded, strict, warn)
        seed = experiment.seed if recorded is None else recorded.seed
        job = train_job(experiment, data.folds, "training", {}, seed, keep_weights=True)
        if epochs is not None:
            job = _without_score(job, epochs)
        executor = LocalExecutor(1)
        try:
            (outcome,) = run_jobs(executor, [job])
            attention = None
            if experiment.hyperparameters.pooling == "attention":
                attention = look_at_attention(executor, job, outcome, data.name_of)
        finally:
            executor.close()
    return Training(experiment, data, outcome, attention)


def epochs_without_score(experiment: Experiment) -> int:
    """Return how many epochs to train where all data is trained on.

    Raises:
        InputError: none are recorded.
    """
    recorded = experiment.recorded
    if recorded is None or recorded.epochs is None:
        raise InputError(
            "--all-data: needs recorded.epochs, as no score says when to stop; give a file that "
            "`tuner export` wrote"
        )
    return recorded.epochs


def _check_same(
    facts: Facts, recorded: Recorded, strict: bool, warn: Callable[[str], None]
) -> None:
    """Refuse data that is not the recorded, or warn of it."""
    if not (change := _change(facts, recorded)):
        return
    what = f"is not the data that {recorded.study} was searched on: {change}"
    if strict:
        text = f"{what} (sha256 {recorded.data_sha256[:12]}, got {facts.sha256[:12]}); "
        raise refusal(facts.path, "data.path", text + "bring it back, or leave --strict out")
    warn(f"{show_path(facts.path)}: {what}")


def _change(facts: Facts, recorded: Recorded) -> str | None:
    """Say how the data has changed; None if it has not."""
    if facts.sha256 == recorded.data_sha256:
        return None
    if facts.rows != recorded.rows:
        return f"{recorded.rows} rows then, {facts.rows} now"
    return f"other values in its {facts.rows} rows"


def _without_score(job: TrainJob, epochs: int) -> TrainJob:
    """Return the job for so many epochs of the ones that its learning rate is scheduled for."""
    return dataclasses.replace(job, epochs=epochs, schedule_epochs=job.epochs, validates=False)


def look_at_attention(
    executor: Executor, job: TrainJob, outcome: Outcome, name_of: Callable[[int], str]
) -> Attention:
    """Return what the trained model looks at in the samples of the validation part."""
    assert outcome.weights is not None
    data = job.folds[-1]
    asked = PredictJob("attention", job.hyperparameters, outcome.weights, data, device=job.device)
    weights = run_jobs(executor, [asked])[0].attention
    assert weights is not None
    return Attention([name_of(sample) for sample in data.evaluate_samples().tolist()], weights)
