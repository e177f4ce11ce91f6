"""The winner as a trained model: from the search that trained it, or retrained, and in MLflow."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from tuner.coordination.events import Observer, WinnerModel
from tuner.errors import (
    DataError,
    InputError,
    Interrupted,
    NoGraphError,
    RunError,
    TunerError,
    one_line,
    show_path,
)
from tuner.experiment import Experiment
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.records import StudyRecord
from tuner.outputs import scratch_folder
from tuner.prediction import Model, PredictionWarning
from tuner.results.export import exported, write_model
from tuner.results.predictions import calibrate
from tuner.results.retraining import Refit, Training, look_at_attention, refit_epochs, train_again
from tuner.results.winner import find_winner
from tuner.tables.rows import columns_of_series, read_table

if TYPE_CHECKING:
    from tuner.data.prepared import Prepared
    from tuner.executors import Executor
    from tuner.jobs import TrainJob, Weights

__all__ = [
    "KeptModel",
    "TrainedWinner",
    "check_register",
    "example_rows",
    "log_winner",
    "model_name",
    "retrained",
    "winner_experiment",
]

_FEWEST = 16  # rows of an example; more where the model needs them


def winner_experiment(record: StudyRecord) -> Experiment:
    """Return the experiment that trains the winner again, on the data where it was.

    Raises:
        RunError: the study has no complete trial.
    """
    return Experiment.model_validate(exported(record, Path.cwd(), "best.yaml", record.data["path"]))


def model_name(record: StudyRecord, *, ensemble: bool = False) -> str:
    """Return what tells the winner's training, or its ensemble's, from others of the study."""
    winner = find_winner(record)
    run, epochs = winner.reproducible, refit_epochs(record, winner)
    how = "" if epochs is None else f" refit {epochs}"
    how += f" ensemble {len(winner.runs)}" if ensemble else ""
    return f"{winner.name} seed {run.seed} score {run.value!r}{how}"


@dataclass(frozen=True)
class TrainedWinner:
    """The winner of a search that still has its weights."""

    record: StudyRecord
    data: Prepared
    job: TrainJob
    weights: Weights
    executor: Executor
    refit: Callable[[], Refit | None] | None = None  # trains the refit, unless it is trained

    def training(self) -> Training:
        """Return the winner's training, and its refit's."""
        found = find_winner(self.record).reproducible.outcome
        assert found is not None
        experiment, executor = winner_experiment(self.record), self.executor

        def made(data: Prepared, job: TrainJob, outcome: Outcome) -> Training:
            attention = None
            if experiment.hyperparameters.pooling == "attention":
                assert outcome.weights is not None
                attention = look_at_attention(executor, job, [outcome.weights], data.name_of)
            return Training(experiment, data, outcome, attention)

        training = made(self.data, self.job, dataclasses.replace(found, weights=self.weights))
        intervals = calibrate(experiment, self.job, training.weights, executor)
        training = dataclasses.replace(training, intervals=intervals)
        refit = self.refit() if self.refit is not None else None
        if refit is None or refit.winner.failed:
            return training
        (job, weights), *_ = refit.winner.models
        epochs = refit.winner.epochs - 1
        outcome = Outcome(OutcomeState.COMPLETE, best_epoch=epochs, weights=weights)
        return dataclasses.replace(training, refit=made(refit.data, job, outcome))

    def write(self, folder: Path) -> None:
        """Write the model into a folder.

        Raises:
            RunError: it cannot be exported.
        """
        write_model(self.training(), folder, self.executor, moves=True)


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
        rule = "has changed since the search"
        raise InputError(rule, where=show_path(table.path), remedy="bring it back")
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


def check_register(name: str, tracking: bool = True) -> None:
    """Refuse a name under which MLflow registers no model.

    Raises:
        InputError: it is empty, holds what no link to a model may hold, or there is no MLflow.
    """
    if not tracking:
        got = "--no-tracking as well"
        raise InputError("needs MLflow", where="--register", got=got, remedy="leave one out")
    if not name.strip() or set(name) & set("/:.%\"'"):
        rule = "must be a name without any of / : . % \" '"
        remedy = "write --register demand, say"
        raise InputError(rule, where="--register", got=repr(name), remedy=remedy)


class KeptModel(Observer):
    """Keeps the winner's model of a search in a temporary folder, until its `with` block ends.

    A model that cannot be written or logged is a note: the search has its result already.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._stack = contextlib.ExitStack()
        self._folder: Path | None = None

    def on_winner(self, model: WinnerModel) -> None:
        folder = self._stack.enter_context(scratch_folder()) / "model"
        try:
            model.write(folder)
        except Interrupted:
            raise
        except Exception as error:
            self._note(f"the winner's model cannot be written: {one_line(error)}")
        else:
            self._folder = folder

    @property
    def folder(self) -> Path | None:
        """Where the model lies until the end; None where there is none."""
        return self._folder

    def log(self, record: StudyRecord, register: str | None, again: str) -> None:
        """Log the model, if there is one; `again` is the command that does it later."""
        from tuner.tracking import explain

        if self._folder is None and register is None:
            return
        try:
            log_winner(record, self._note, folder=self._folder, register=register)
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, NoGraphError):
                self._note(f"MLflow has no model of the winner: {one_line(error)}")
                return
            why = one_line(error) if isinstance(error, TunerError) else explain(error)
            if isinstance(error, KeyboardInterrupt):
                why = "stopped"
            self._note(f"MLflow has no model of the winner: {why}; `{again}` adds it")

    def __enter__(self) -> KeptModel:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def log_winner(
    record: StudyRecord,
    note: Callable[[str], None],
    *,
    folder: Path | None = None,
    register: str | None = None,
    ensemble: bool = False,
) -> None:
    """Log the winner's model to MLflow, where it has none of it, and register it.

    Args:
        record: the study, which has come to its end.
        note: is told what takes long, and what was done.
        folder: the model, where it has been written; without one the winner is trained again.
        register: the name under which it is registered; by default it is not.
        ensemble: whether it is the mean of the winner's models, trained again.

    Raises:
        InputError: the data cannot be read any more, or has changed.
        RunError: the training failed or came to another score, or its model cannot be exported.
        Exception: MLflow's own.
    """
    from tuner.prediction import load_model
    from tuner.tracking import only_copier, open_store
    from tuner.tracking.model import find_model, log_model, register_model, study_run

    client, name = open_store(), model_name(record, ensemble=ensemble)
    run_id = study_run(client, record)
    with scratch_folder() as made:
        if find_model(client, run_id, name) is None and folder is None:
            note("training the winner again, as MLflow has no model of it")
            training = retrained(record, ensemble=ensemble)
            if training.reproduced is False:
                why = "; ".join(training.differences()) or "is the CPU of another kind?"
                raise RunError(
                    f"its training came to {training.outcome.objective} this time, and not to "
                    f"what was recorded: {why}"
                )
            folder = made / "model"
            write_model(training, folder, moves=True)
        with only_copier(record.id):  # not while it trains: others would wait
            logged = find_model(client, run_id, name)
            if logged is None:
                assert folder is not None, "nobody else removes it"
                model = load_model(folder)
                logged = log_model(client, run_id, model, example_rows(model, record), name)
            if register is not None:
                version = register_model(client, logged, register)
                note(f"the winner's model is version {version} of {register} in MLflow's registry")
