"""The winner as a trained model: from the search that has just trained it, or trained again."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from tuner.coordination.records import StudyRecord
from tuner.data.source import read_table
from tuner.data.wide import columns_of_series
from tuner.errors import DataError, InputError, show_path
from tuner.experiment import Experiment
from tuner.jobs import Outcome, OutcomeState
from tuner.prediction import Model, PredictionWarning
from tuner.results.calibration import calibrate
from tuner.results.export import exported
from tuner.results.refit import Refit, refit_epochs
from tuner.results.reproduce import Training, look_at_attention, train_again
from tuner.results.winner import find_winner

if TYPE_CHECKING:
    from tuner.data.dataset import Prepared
    from tuner.executors import Executor
    from tuner.jobs import TrainJob, Weights

__all__ = ["example_rows", "retrained", "trained", "training_name", "winner_experiment"]

_FEWEST = 16  # rows of an example; more where the model needs them


def winner_experiment(record: StudyRecord) -> Experiment:
    """Return the experiment that trains the winner again, on the data where it was.

    Raises:
        RunError: the study has no complete trial.
    """
    return Experiment.model_validate(exported(record, Path.cwd(), "best.yaml", record.data["path"]))


def training_name(record: StudyRecord, *, ensemble: bool = False) -> str:
    """Return what tells the winner's training, or its ensemble's, from others of the study."""
    winner = find_winner(record)
    run, epochs = winner.reproducible, refit_epochs(record, winner)
    how = "" if epochs is None else f" refit {epochs}"
    how += f" ensemble {len(winner.runs)}" if ensemble else ""
    return f"{winner.name} seed {run.seed} score {run.value!r}{how}"


def trained(
    record: StudyRecord,
    data: Prepared,
    job: TrainJob,
    weights: Weights,
    executor: Executor,
    refit: Refit | None = None,
) -> Training:
    """Return the winner's training, of which a search still has the weights, and its refit's."""
    found = find_winner(record).reproducible.outcome
    assert found is not None
    experiment = winner_experiment(record)

    def made(data: Prepared, job: TrainJob, outcome: Outcome) -> Training:
        attention = None
        if experiment.hyperparameters.pooling == "attention":
            assert outcome.weights is not None
            attention = look_at_attention(executor, job, [outcome.weights], data.name_of)
        return Training(experiment, data, outcome, attention)

    training = made(data, job, dataclasses.replace(found, weights=weights))
    intervals = calibrate(experiment, job, training.weights, executor)
    training = dataclasses.replace(training, intervals=intervals)
    if refit is None or refit.winner.failed:
        return training
    (job, weights), *_ = refit.winner.models
    epochs = refit.winner.epochs - 1
    outcome = Outcome(OutcomeState.COMPLETE, best_epoch=epochs, weights=weights)
    return dataclasses.replace(training, refit=made(refit.data, job, outcome))


def retrained(record: StudyRecord, *, ensemble: bool = False) -> Training:
    """Train the winner again, on the data of the search and no other; of an ensemble all of it.

    Raises:
        DataError: the data cannot be read any more, or has changed.
        InputError: it was trained once, and that is no ensemble.
        RunError: the study has no complete trial, or the training failed.
    """
    return train_again(
        winner_experiment(record),
        ensemble=ensemble,
        refit=True,
        must_reproduce=True,
        strict=True,
    )


def example_rows(model: Model, record: StudyRecord) -> pd.DataFrame:
    """Return the first rows of a study's data from which its model predicts, as they are read.

    Raises:
        DataError: the data cannot be read any more.
        InputError: it has changed.
    """
    table = read_table(record.experiment.data)
    if table.sha256 != record.data["sha256"]:
        raise InputError(f"{show_path(table.path)}: has changed since the search; bring it back")
    frame = table.frame[model.pipeline.columns.names_in(table.names)]
    n_rows = max(_FEWEST, model.pipeline.window + model.pipeline.horizon)
    while n_rows < len(frame) and not _predicts(model, _with_rows_to_come(model, frame, n_rows)):
        n_rows *= 2
    return _with_rows_to_come(model, frame, n_rows)


def _with_rows_to_come(model: Model, frame: pd.DataFrame, n_rows: int) -> pd.DataFrame:
    """Return the first rows, the last ones of each series as rows to come if the model reads them.

    They have no target then. Of rows that are brought to steps half are taken: enough of them are
    some whole steps.
    """
    columns, frame = model.pipeline.columns, frame.head(n_rows)
    if not columns.known_future:
        return frame
    of = frame[columns.id] if columns.id in frame else pd.Series(0, index=frame.index)
    behind = of.groupby(of).cumcount(ascending=False)
    lengths = of.groupby(of).transform("size")
    values = columns.targets
    if columns.wide is not None:
        values = columns_of_series(columns.wide, [str(name) for name in frame])
    coming = behind < (model.pipeline.horizon if columns.resample is None else lengths // 2)
    return frame.assign(**{name: frame[name].mask(coming) for name in values})


def _predicts(model: Model, rows: pd.DataFrame) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PredictionWarning)
        try:
            return len(model.predict(rows)) > 0
        except DataError:
            return False
