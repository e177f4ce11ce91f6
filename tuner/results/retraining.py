"""Models trained again: for a test score, on training and validation set, or from an export.

The validation set serves to choose a configuration and a number of epochs. Once both are chosen,
its rows are the newest that a forecast can learn from (Goodfellow, Bengio and Courville 2016, *Deep
Learning*, algorithm 7.2). A refit follows from the study's record: the same seeds, the median of
the best epochs. So the journal holds only its scores.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuner.coordination.coordinator import Observer
from tuner.coordination.finalists import Winner
from tuner.coordination.opening import library_versions
from tuner.data.metrics import Intervals, calibrated
from tuner.data.prepared import HERE, DataSource, Facts, Prepared, check_same, counted
from tuner.data.reference import DataRef, SeriesRef
from tuner.errors import InputError, refusal, show_path
from tuner.executors import LocalExecutor
from tuner.executors.base import Executor, run_jobs
from tuner.executors.choice import n_cores
from tuner.experiment import Experiment, Recorded
from tuner.jobs import (
    Outcome,
    OutcomeState,
    PredictJob,
    TrainJob,
    Weights,
    train_job,
    without_score,
)
from tuner.journal.records import StudyRecord, TrialRecord, same_but_for_rounding
from tuner.metrics import METRICS
from tuner.outputs import scratch_folder
from tuner.template import workers_expected

Models = Sequence[tuple[TrainJob, Weights]]
"""Trained models, each with the job that trained it."""


class TrainedModels:
    """The models of finalists and of the default; those of earlier runs are trained again."""

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
        self._weights: dict[str, Weights] = {}  # by the job's key, which is the run's
        self._scores: dict[str, float | None] = {}  # of models that were trained again

    def job(self, run: TrialRecord) -> TrainJob:
        """Return the job that trains a model and keeps its weights."""
        key, params = str(run.key), dict(run.params)
        folds = self._data.of(params).folds
        return train_job(self._experiment, folds, key, params, run.seed, keep_weights=True)

    def keep(self, weights: Mapping[str, Weights]) -> None:
        """Add weights by job key."""
        self._weights.update(weights)

    def weights_of(self, run: TrialRecord) -> Weights | None:
        """Return the weights behind a recorded score; None if they are not known."""
        return None if self.differs(run) else self._weights.get(str(run.key))

    def differs(self, run: TrialRecord) -> bool:
        """Return whether a model was trained again, with another score than recorded."""
        score = self._scores.get(str(run.key), run.value)
        ratios = METRICS[self._experiment.objective.metric].ratios
        return not run.is_reproduced_by(score, ratios=ratios)

    def of(self, runs: Sequence[TrialRecord]) -> Models:
        """Return the models of some trainings.

        Raises:
            RunError: a training failed that had not failed before.
            Interrupted: the search was stopped.
        """
        missing = {str(run.key): run for run in runs if str(run.key) not in self._weights}
        if missing:
            self._observer.note(
                f"training {counted(len(missing), 'model')} again for the test set: a journal "
                f"keeps scores, not models"
            )

        def ended(key: str, outcome: Outcome) -> None:
            assert outcome.weights is not None
            self._weights[key], self._scores[key] = outcome.weights, outcome.objective
            n_done = sum(key in self._weights for key in missing)
            run = missing[key]
            text = f"[{n_done}/{len(missing)}] {run.key.name} trained again"
            if self.differs(run):
                score = self._scores[key]
                text += f", to {score} and not to {run.value}: another CPU or version?"
            self._observer.note(text)

        jobs, note = [self.job(run) for run in runs], self._observer.note
        again = [job for job in jobs if job.key in missing]
        run_jobs(self._executor, again, stop=self._stop, note=note, ended=ended)
        return [(job, self._weights[job.key]) for job in jobs]


@dataclass(frozen=True)
class Refitted:
    """A configuration that was refitted, once for each of its seeds."""

    epochs: int
    models: Models  # in the order of the repeats; () if one failed
    failed: str | None = None  # why


@dataclass(frozen=True)
class Refit:
    """Models of training and validation set together."""

    data: Prepared  # without test rows
    winner: Refitted
    default: Refitted | None = None  # None if it is the winner, or was not trained


def best_epochs(outcome: Outcome) -> int | None:
    """Return the best number of epochs; with rolling origins, of the last fold."""
    if outcome.best_epoch is None or not outcome.history:
        return None
    begun = next(e.epoch for e in outcome.history if e.fold == outcome.history[-1].fold)
    return outcome.best_epoch - begun + 1


def epochs_of(runs: Sequence[TrialRecord]) -> int | None:
    """Return the median of best epochs; a half is rounded up."""
    known = [best_epochs(run.outcome) for run in runs if run.outcome is not None]
    found = [epochs for epochs in known if epochs is not None]
    return math.floor(statistics.median(found) + 0.5) if found else None


def refit_epochs(record: StudyRecord, winner: Winner) -> int | None:
    """Return the number of epochs of the winner's refit, as evaluated; None without a refit."""
    test = record.test
    if test is not None and winner.was_tested(test):
        return test.refit.epochs if test.refit else None
    return epochs_of(winner.runs) if record.experiment.refits else None


def refit(
    record: StudyRecord,
    winner: Winner,
    default_runs: Sequence[TrialRecord],
    folder: Path,
    executor: Executor,
    observer: Observer,
    stop: threading.Event,
    source: DataSource = HERE,
) -> Refit | None:
    """Train the winner and the default on all rows before the test set.

    Args:
        record: the study, with its search and finalists done.
        winner: the winner of the study.
        default_runs: the default's trainings; () if it is the winner.
        folder: receives the arrays, without test rows.
        executor: trains.
        observer: receives a note for each training.
        stop: once set, no training starts.
        source: reads the data.

    Returns:
        The models; None if the winner's best epochs are not known.

    Raises:
        DataError: the data cannot be read, or has changed.
        Interrupted: `stop` was set; the call can be repeated.
        RunError: a training was lost too often.
    """
    experiment = record.experiment
    epochs = epochs_of(winner.runs)
    if epochs is None:
        return None
    default_epochs = epochs_of(default_runs)
    data = source.prepare(experiment, folder, all_data=True)
    check_same(data.facts, record.data["sha256"])
    wanted = [(run, epochs) for run in winner.runs if epochs]
    n = len(wanted)
    wanted += [(run, default_epochs) for run in default_runs if default_epochs]
    jobs = [_refit_job(experiment, data, run, count) for run, count in wanted]
    names = {job.key: run.key.name for job, (run, _) in zip(jobs, wanted, strict=True)}
    observer.note(_announcement(len(jobs), epochs, default_epochs))
    ended: list[str] = []

    def note(key: str, outcome: Outcome) -> None:
        ended.append(key)
        how = _failure(outcome) or "trained on both sets"
        observer.note(f"[{len(ended)}/{len(jobs)}] {names[key]} {how}")

    outcomes = run_jobs(executor, jobs, stop=stop, note=observer.note, ended=note, may_fail=True)
    own = _refitted(default_epochs, jobs[n:], outcomes[n:]) if default_epochs else None
    return Refit(data.of(winner.params), _refitted(epochs, jobs[:n], outcomes[:n]), own)


def _refit_job(experiment: Experiment, data: Prepared, run: TrialRecord, epochs: int) -> TrainJob:
    key, params = f"refit {run.key}", dict(run.params)
    folds = data.of(params).folds
    job = train_job(experiment, folds, key, params, run.seed, keep_weights=True)
    # No time limit: the number of epochs is known.
    return without_score(dataclasses.replace(job, timeout_s=None), epochs)


def _refitted(epochs: int, jobs: Sequence[TrainJob], outcomes: Sequence[Outcome]) -> Refitted:
    models = [
        (job, outcome.weights)
        for job, outcome in zip(jobs, outcomes, strict=True)
        if outcome.weights is not None
    ]
    failed = next(filter(None, map(_failure, outcomes)), None)
    return Refitted(epochs, () if failed else models, failed)


def _failure(outcome: Outcome) -> str | None:
    if outcome.state is OutcomeState.COMPLETE:
        return None
    return f"failed: {outcome.reason or 'unknown reason'}"


def _announcement(n_models: int, epochs: int, default_epochs: int | None) -> str:
    whose, counts = "the winner", counted(epochs, "epoch")
    if default_epochs is not None:
        whose, counts = "the winner and the default", f"{epochs} and {default_epochs} epochs"
    models = counted(n_models, "model")
    return f"training {whose} again, on training and validation set together: {models}, {counts}"


@dataclass(frozen=True)
class Calibration:
    """The intervals of the first of several models, and those of their mean."""

    single: Intervals
    ensemble: Intervals | None  # None for a single model


def calibrate(
    experiment: Experiment, job: TrainJob, weights: Sequence[Weights], executor: Executor
) -> Intervals | None:
    """Return the intervals of a model, or of an ensemble; None if the experiment has none.

    Args:
        experiment: has the levels.
        job: trained the models; the intervals are of the residuals on the validation rows of its
            last fold.
        weights: the weights of each model.
        executor: predicts.
    """
    levels, ref = experiment.task.intervals, job.folds[-1]
    if not levels or not isinstance(ref, SeriesRef):
        return None
    predicted = _predict(executor, f"intervals of {len(weights)}", job, weights).predictions
    assert predicted is not None
    return calibrated(levels, ref, points_of(predicted, ref))


def calibrate_all(
    experiment: Experiment, models: Sequence[tuple[TrainJob, Weights]], executor: Executor
) -> Calibration | None:
    """Return the intervals of the first model and of the ensemble of all: see `calibrate`."""
    job, weights = models[0][0], [each for _, each in models]
    single = calibrate(experiment, job, weights[:1], executor)
    if single is None:
        return None
    several = len(weights) > 1
    return Calibration(single, calibrate(experiment, job, weights, executor) if several else None)


def coverage_of(
    intervals: Intervals, predicted: np.ndarray, ref: DataRef, truth: np.ndarray
) -> list[dict[str, Any]]:
    """Return the coverage of the truth by the intervals of each level around predictions."""
    assert isinstance(ref, SeriesRef)
    scale = intervals.scale_of(ref, ref.evaluate_samples())
    return [*intervals.coverage(points_of(predicted, ref), truth, ref.transform, scale)]


def points_of(predicted: np.ndarray, ref: DataRef) -> np.ndarray:
    """Return the point predictions: of quantiles, on the last axis, the median."""
    quantiles = ref.shape.quantiles
    return np.asarray(predicted[..., quantiles.index(0.5)] if quantiles else predicted)


@dataclass(frozen=True, eq=False)
class Attention:
    """The attention weights of a model."""

    samples: list[str]  # names: series and time, or the id of a sequence
    weights: np.ndarray  # (samples, steps); rows add up to 1, NaN after a sequence's end

    def write(self, folder: Path) -> None:
        """Write `attention.csv` and `attention.png` into an existing folder."""
        import pandas as pd

        columns = [f"step {i}" for i in range(1, self.weights.shape[1] + 1)]
        index = pd.Index(self.samples, name="sample")
        table = pd.DataFrame(self.weights, columns=columns, index=index)
        table.to_csv(folder / "attention.csv", float_format="%.6g")
        _draw_attention(self.weights, folder / "attention.png")


def _draw_attention(weights: np.ndarray, path: Path) -> None:
    from matplotlib.figure import Figure

    steps = np.arange(1, weights.shape[1] + 1)
    low, middle, high = np.nanquantile(weights, [0.25, 0.5, 0.75], axis=0)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(steps, low, high, alpha=0.25, linewidth=0, label="quartiles")
    axes.plot(steps, middle, marker=".", label="median")
    axes.set(xlabel="step", ylabel="weight", title="What the attention looks at")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def look_at_attention(
    executor: Executor, job: TrainJob, weights: Sequence[Weights], name_of: Callable[[int], str]
) -> Attention:
    """Return the attention on the validation set; of several models, the mean."""
    found = _predict(executor, "attention", job, weights).attention
    assert found is not None
    samples = job.folds[-1].evaluate_samples().tolist()
    return Attention([name_of(sample) for sample in samples], found)


def _predict(executor: Executor, key: str, job: TrainJob, weights: Sequence[Weights]) -> Outcome:
    """Predict the validation rows of a job's last fold with its model, or an ensemble."""
    ref, (first, *others) = job.folds[-1], weights
    asked = PredictJob(
        key, job.hyperparameters, first, ref, device=job.device, others=tuple(others)
    )
    (outcome,) = run_jobs(executor, [asked])
    return outcome


_OF_THE_SEARCH = {"optuna", "pyswarms"}  # libraries that no training uses


@dataclass(frozen=True)
class Training:
    """A training of an experiment's fixed hyperparameters, or of an ensemble of them."""

    experiment: Experiment
    data: Prepared
    outcome: Outcome  # of an ensemble the first; without a score if trained on all data
    attention: Attention | None = None  # on the validation set, of a model with attention
    others: tuple[Outcome, ...] = ()  # of an ensemble's further models
    refit: Training | None = None  # on training and validation set, without a score
    intervals: Intervals | None = None  # from the validation set

    @property
    def model(self) -> Training:
        """The training whose model is kept: the refit, if there is one."""
        return self.refit or self

    @property
    def weights(self) -> list[Weights]:
        """The weights of all models."""
        return [o.weights for o in (self.outcome, *self.others) if o.weights is not None]

    @property
    def scores(self) -> list[float]:
        """Validation scores of all models; none if all data was trained on."""
        return [o.objective for o in (self.outcome, *self.others) if o.objective is not None]

    @property
    def recorded_scores(self) -> list[float]:
        """The recorded scores; none without a record."""
        recorded = self.experiment.recorded
        if recorded is None:
            return []
        return list(recorded.scores) if self.others else [recorded.score]

    @property
    def was_batched(self) -> bool:
        """Whether the recorded training was one of a group."""
        return bool(self.experiment.recorded is not None and self.experiment.recorded.batched)

    @property
    def reproduced(self) -> bool | None:
        """Whether the scores equal the recorded scores; None without either.

        The score of a training in a group may differ by `BATCHED_ROUNDING`.
        """
        recorded, scores = self.recorded_scores, self.scores
        if not recorded or not scores:
            return None
        if not self.was_batched or len(scores) != len(recorded):
            return scores == recorded
        ratios = METRICS[self.experiment.objective.metric].ratios
        pairs = zip(scores, recorded, strict=True)
        return all(same_but_for_rounding(*pair, ratios=ratios) for pair in pairs)

    def differences(self) -> list[str]:
        """Return the changes in data, libraries and device since the recorded training."""
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
    given: Executor | None = None,
    source: DataSource = HERE,
) -> Training:
    """Train an experiment's hyperparameters once, on its recorded seed if it has one.

    Args:
        experiment: without a search; its search space is ignored.
        all_data: train on training and validation set, for the recorded epochs, without a score.
            Scalers are fitted on both. The test set is left out.
        ensemble: train on every recorded seed.
        refit: also train on all data if the recorded winner was.
        must_reproduce: no refit unless the recorded score is reproduced.
        strict: raise if the data differs from the recorded data; otherwise `warn`.
        warn: receives a message about other data, before training.
        given: where it trains; None starts workers on this machine.
        source: reads the data.

    Raises:
        DataError: the data cannot be used, or differs.
        InputError: no epochs are recorded for `all_data`, or no seeds for an ensemble.
        RunError: the training failed.
    """
    epochs = epochs_without_score(experiment) if all_data else None
    recorded = experiment.recorded
    seeds = seeds_of_ensemble(experiment) if ensemble else [_seed(experiment)]
    with workers_expected(given is None), scratch_folder() as folder:
        data = source.prepare(experiment, folder / "first", all_data=all_data)
        if recorded is not None:
            _check_same(data.facts, recorded, strict, warn)
        executor = given or LocalExecutor(min(len(seeds), n_cores()))
        try:
            training = _train(experiment, data, seeds, epochs, executor)
            if all_data and experiment.task.intervals:  # from unseen validation rows
                part = source.prepare(experiment, folder / "part")
                intervals = _train(experiment, part, seeds, None, executor).intervals
                return dataclasses.replace(training, intervals=intervals)
            again = recorded.refit_epochs if recorded and refit and not all_data else None
            if again is None or (must_reproduce and training.reproduced is False):
                return training
            both = source.prepare(experiment, folder / "both", all_data=True)
            return dataclasses.replace(
                training, refit=_train(experiment, both, seeds, again, executor)
            )
        finally:
            if given is None:
                executor.close()


def _train(
    experiment: Experiment,
    data: Prepared,
    seeds: Sequence[int],
    epochs: int | None,
    executor: Executor,
) -> Training:
    """Train on each seed; with a number of epochs, without a score."""
    jobs = [
        train_job(experiment, data.folds, f"training {i}", {}, seed, keep_weights=True)
        for i, seed in enumerate(seeds)
    ]
    if epochs is not None:
        jobs = [without_score(job, epochs) for job in jobs]
    outcome, *others = run_jobs(executor, jobs)
    training = Training(experiment, data, outcome, others=tuple(others))
    weights, attention, intervals = training.weights, None, None
    if epochs is None:
        intervals = calibrate(experiment, jobs[0], weights, executor)
    if experiment.hyperparameters.pooling == "attention":
        attention = look_at_attention(executor, jobs[0], weights, data.name_of)
    return dataclasses.replace(training, attention=attention, intervals=intervals)


def epochs_without_score(experiment: Experiment) -> int:
    """Return the recorded number of epochs for training on all data.

    Raises:
        InputError: none is recorded.
    """
    recorded = experiment.recorded
    epochs = None if recorded is None else recorded.refit_epochs or recorded.epochs
    if epochs is None:
        rule = "needs recorded.epochs, as no score says when to stop"
        raise InputError(rule, where="--all-data", remedy="give a file that `tuner export` wrote")
    return epochs


def seeds_of_ensemble(experiment: Experiment) -> list[int]:
    """Return the seeds of an ensemble's models.

    Raises:
        InputError: fewer than two are recorded.
    """
    seeds = experiment.recorded.seeds if experiment.recorded else []
    if len(seeds) < 2:
        rule = "needs two or more recorded.seeds"
        remedy = "give a file that `tuner export` wrote for a study with repeated finalists"
        raise InputError(rule, where="--ensemble", got=len(seeds), remedy=remedy)
    return list(seeds)


def _seed(experiment: Experiment) -> int:
    return experiment.seed if experiment.recorded is None else experiment.recorded.seed


def _check_same(
    facts: Facts, recorded: Recorded, strict: bool, warn: Callable[[str], None]
) -> None:
    """Raise or warn if the data differs from the recorded data."""
    if not (change := _change(facts, recorded)):
        return
    what = f"is not the data that {recorded.study} was searched on: {change}"
    if strict:
        rule, got = f"{what} (sha256 {recorded.data_sha256[:12]})", facts.sha256[:12]
        raise refusal(facts.path, "data.path", rule, got, "bring it back, or leave --strict out")
    warn(f"{show_path(facts.path)}: {what}")


def _change(facts: Facts, recorded: Recorded) -> str | None:
    """Describe the change of the data; None for none."""
    if facts.sha256 == recorded.data_sha256:
        return None
    if facts.rows != recorded.rows:
        return f"{recorded.rows} rows then, {facts.rows} now"
    return f"other values in its {facts.rows} rows"
