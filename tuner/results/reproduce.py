"""Trains one configuration, and says whether an exported score came out again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.coordination.opening import library_versions
from tuner.coordination.work import run_jobs, train_job, without_score
from tuner.data.dataset import Facts, Prepared
from tuner.data.intervals import Intervals
from tuner.data.preparing import prepare
from tuner.data.scratch import scratch_folder
from tuner.data.tables import refusal
from tuner.errors import InputError, show_path
from tuner.executors import Executor, LocalExecutor
from tuner.executors.capacity import n_cores
from tuner.experiment import Experiment, Recorded
from tuner.jobs import Outcome, PredictJob, TrainJob, Weights
from tuner.results.attention import Attention
from tuner.results.calibration import calibrate

__all__ = [
    "Training",
    "epochs_without_score",
    "look_at_attention",
    "seeds_of_ensemble",
    "train_again",
]

_OF_THE_SEARCH = {"optuna", "pyswarms"}  # libraries that no training uses


@dataclass(frozen=True)
class Training:
    """One training run of an experiment's fixed hyperparameters, or those of an ensemble."""

    experiment: Experiment
    data: Prepared
    outcome: Outcome  # without a score, where all data was trained on; of an ensemble the first
    attention: Attention | None = None  # on the validation part, of a model that has it
    others: tuple[Outcome, ...] = ()  # of an ensemble's further models
    refit: Training | None = None  # trained again on training and validation part, without a score
    intervals: Intervals | None = None  # by the validation rows, of the training part's models

    @property
    def model(self) -> Training:
        """The training whose model is kept: the refit, where there is one."""
        return self.refit or self

    @property
    def weights(self) -> list[Weights]:
        """Of the model, or of all models of the ensemble."""
        found = [outcome.weights for outcome in (self.outcome, *self.others)]
        return [weights for weights in found if weights is not None]

    @property
    def scores(self) -> list[float]:
        """Of the model, or of all models of the ensemble; none where nothing was validated."""
        found = [outcome.objective for outcome in (self.outcome, *self.others)]
        return [score for score in found if score is not None]

    @property
    def recorded_scores(self) -> list[float]:
        """Return what is recorded of these trainings; none without a record."""
        recorded = self.experiment.recorded
        if recorded is None:
            return []
        return list(recorded.scores) if self.others else [recorded.score]

    @property
    def reproduced(self) -> bool | None:
        """Whether the recorded scores came out, to the last digit; None where there are none."""
        recorded, scores = self.recorded_scores, self.scores
        return scores == recorded if recorded and scores else None

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
    ensemble: bool = False,
    refit: bool = False,
    must_reproduce: bool = False,
    strict: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> Training:
    """Train an experiment's hyperparameters once, on its recorded seed if it has one.

    Args:
        experiment: what is trained; a search space in it is not searched.
        all_data: whether the validation part is trained on too, for as many epochs as the
            recorded training needed, or the refit: for deployment, and without a score. Scalers
            and the like are fitted on both parts; the test part stays out.
        ensemble: whether it is trained on every recorded seed, for the mean of the models.
        refit: whether it is trained on all data besides, where the recorded winner was.
        must_reproduce: whether that is left out where the recorded score does not come out.
        strict: whether other data than the recorded is refused.
        warn: else told of it, before training.

    Raises:
        DataError: the data cannot be used, or is not what it must be.
        InputError: no number of epochs is recorded, and all data is to be trained on; or there
            are no seeds for an ensemble.
        RunError: the training failed.
    """
    epochs = epochs_without_score(experiment) if all_data else None
    recorded = experiment.recorded
    seeds = seeds_of_ensemble(experiment) if ensemble else [_seed(experiment)]
    with scratch_folder() as folder:
        data = prepare(experiment, folder / "first", all_data=all_data)
        if recorded is not None:
            _check_same(data.facts, recorded, strict, warn)
        executor = LocalExecutor(min(len(seeds), n_cores()))
        try:
            training = _train(experiment, data, seeds, epochs, executor)
            if all_data and experiment.task.intervals:  # validation rows tell them to who is new
                part = prepare(experiment, folder / "part")
                intervals = _train(experiment, part, seeds, None, executor).intervals
                return dataclasses.replace(training, intervals=intervals)
            again = recorded.refit_epochs if recorded and refit and not all_data else None
            if again is None or (must_reproduce and training.reproduced is False):
                return training
            both = prepare(experiment, folder / "both", all_data=True)
            return dataclasses.replace(
                training, refit=_train(experiment, both, seeds, again, executor)
            )
        finally:
            executor.close()


def _train(
    experiment: Experiment,
    data: Prepared,
    seeds: Sequence[int],
    epochs: int | None,
    executor: Executor,
) -> Training:
    """Train on each seed; for so many epochs without a score, where the number is given."""
    jobs = [
        train_job(experiment, data.folds, f"training {i}", {}, seed, keep_weights=True)
        for i, seed in enumerate(seeds)
    ]
    if epochs is not None:
        jobs = [without_score(job, epochs) for job in jobs]
    outcome, *others = run_jobs(executor, jobs)
    training = Training(experiment, data, outcome, others=tuple(others))
    if epochs is None:
        intervals = calibrate(experiment, jobs[0], training.weights, executor)
        training = dataclasses.replace(training, intervals=intervals)
    if experiment.hyperparameters.pooling == "attention":
        attention = look_at_attention(executor, jobs[0], training.weights, data.name_of)
        training = dataclasses.replace(training, attention=attention)
    return training


def epochs_without_score(experiment: Experiment) -> int:
    """Return how many epochs to train where all data is trained on.

    Raises:
        InputError: none are recorded.
    """
    recorded = experiment.recorded
    epochs = None if recorded is None else recorded.refit_epochs or recorded.epochs
    if epochs is None:
        raise InputError(
            "--all-data: needs recorded.epochs, as no score says when to stop; give a file that "
            "`tuner export` wrote"
        )
    return epochs


def seeds_of_ensemble(experiment: Experiment) -> list[int]:
    """Return the seeds on which the models of an ensemble are trained.

    Raises:
        InputError: fewer than two are recorded.
    """
    seeds = experiment.recorded.seeds if experiment.recorded else []
    if len(seeds) < 2:
        raise InputError(
            f"--ensemble: needs two or more recorded.seeds, got {len(seeds)}; give a file that "
            f"`tuner export` wrote of a study whose finalists were trained several times"
        )
    return list(seeds)


def _seed(experiment: Experiment) -> int:
    return experiment.seed if experiment.recorded is None else experiment.recorded.seed


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


def look_at_attention(
    executor: Executor,
    job: TrainJob,
    weights: Sequence[Weights],
    name_of: Callable[[int], str],
) -> Attention:
    """Return what a trained model looks at in the validation part; of several the mean."""
    data, (first, *others) = job.folds[-1], weights
    asked = PredictJob(
        "attention", job.hyperparameters, first, data, device=job.device, others=tuple(others)
    )
    found = run_jobs(executor, [asked])[0].attention
    assert found is not None
    return Attention([name_of(sample) for sample in data.evaluate_samples().tolist()], found)
