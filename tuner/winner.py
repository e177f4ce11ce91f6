"""The trained model of the winner: from the search itself, retrained, and in MLflow.

In MLflow it can be loaded, served and registered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import tuner
from tuner.coordination.coordinator import Observer, WinnerModel
from tuner.coordination.finalists import find_winner
from tuner.data.prepared import HERE, DataSource
from tuner.errors import (
    DataError,
    InputError,
    Interrupted,
    NoGraphError,
    RunError,
    one_line,
    show_path,
)
from tuner.experiment import Experiment
from tuner.experiment.data import Data
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.records import StudyRecord
from tuner.outputs import scratch_folder
from tuner.prediction import Model, PredictionWarning, load_model
from tuner.results.export import exported, write_model
from tuner.results.retraining import (
    Refit,
    Training,
    calibrate,
    look_at_attention,
    refit_epochs,
    train_again,
)
from tuner.tables.table import columns_of_series, read_table
from tuner.tracking import explain, only_copier, open_store
from tuner.tracking.layout import STUDY_ROLE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

    from tuner.data.prepared import Prepared
    from tuner.executors import Executor
    from tuner.jobs import TrainJob, Weights

Example = Callable[[Model, StudyRecord], pd.DataFrame]
"""Returns the first rows of a study's data from which its model can predict."""

_FEWEST = 16  # rows of an example; more if the model needs them
_NAME = "winner"  # of the model in MLflow
_TRAINING = "training"  # tag: the training of a model
_LOADER = "tuner.prediction.pyfunc"
_NEEDS = ("numpy", "pandas", "onnxruntime", "typer")  # `tuner` itself comes with the model


def winner_experiment(record: StudyRecord) -> Experiment:
    """Return the experiment that trains the winner again, on the data of the search.

    Raises:
        RunError: the study has no complete trial.
    """
    return Experiment.model_validate(exported(record, Path.cwd(), "best.yaml", record.data["path"]))


def training_name(record: StudyRecord, *, ensemble: bool = False) -> str:
    """Return a name for the winner's model that is unique among the models of the study."""
    winner = find_winner(record)
    run, epochs = winner.reproducible, refit_epochs(record, winner)
    how = "" if epochs is None else f" refit {epochs}"
    how += f" ensemble {len(winner.runs)}" if ensemble else ""
    return f"{winner.name} seed {run.seed} score {run.value!r}{how}"


@dataclass(frozen=True)
class TrainedWinner:
    """The winner of a running search, with its weights."""

    record: StudyRecord
    data: Prepared
    job: TrainJob
    weights: Weights
    executor: Executor
    refit: Callable[[], Refit | None] | None = None  # trains the refit once

    def training(self) -> Training:
        """Return the winner's training, with its refit's."""
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


def retrained(
    record: StudyRecord,
    *,
    ensemble: bool = False,
    executor: Executor | None = None,
    source: DataSource = HERE,
) -> Training:
    """Train the winner again on the data of the search; with `ensemble`, all of its repeats.

    It trains where the executor does, or else on this machine; the source reads the data.

    Raises:
        DataError: the data cannot be read any more, or has changed.
        InputError: an ensemble of a winner with a single training.
        RunError: the study has no complete trial, the training failed, or its score is not the
            recorded one.
    """
    training = train_again(
        winner_experiment(record),
        ensemble=ensemble,
        refit=True,
        must_reproduce=True,
        strict=True,
        given=executor,
        source=source,
    )
    if training.reproduced is False:
        perhaps = (
            "it was trained in a group, which rounds otherwise"
            if training.was_batched
            else "is the CPU of another kind?"
        )
        why = "; ".join(training.differences()) or perhaps
        rule = f"scored {training.outcome.objective}, not the recorded score: {why}"
        raise RunError(rule, where="the retrained winner")
    return training


def example_rows(model: Model, record: StudyRecord) -> pd.DataFrame:
    """Return the first rows of a study's data from which its model can predict.

    Raises:
        DataError: the data cannot be read any more.
        InputError: it has changed.
    """
    return example_of(model, record.experiment.data, record.data["sha256"])


def example_of(model: Model, data: Data, sha256: str) -> pd.DataFrame:
    """Return the first rows of a file from which a model can predict: see `example_rows`."""
    table = read_table(data)
    if table.sha256 != sha256:
        rule = "has changed since the search"
        raise InputError(rule, where=show_path(table.path), remedy="bring it back")
    frame = table.frame[model.pipeline.columns.names_in(table.names)]
    n_rows = max(_FEWEST, model.pipeline.window + model.pipeline.horizon)
    while n_rows < len(frame) and not _predicts(model, _with_rows_to_come(model, frame, n_rows)):
        n_rows *= 2
    return _with_rows_to_come(model, frame, n_rows)


def _with_rows_to_come(model: Model, frame: pd.DataFrame, n_rows: int) -> pd.DataFrame:
    """Return the first rows; if columns are known ahead, the last rows of each series are to come.

    Rows to come have no target: as many as the horizon, or half of the rows that are resampled.
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
    """Check a name for MLflow's registry.

    Raises:
        InputError: it is empty, holds a character that MLflow refuses, or tracking is off.
    """
    if not tracking:
        got = "--no-tracking as well"
        raise InputError("needs MLflow", where="--register", got=got, remedy="leave one out")
    if not name.strip() or set(name) & set("/:.%\"'"):
        rule = "must be a name without any of / : . % \" '"
        remedy = "write --register demand, say"
        raise InputError(rule, where="--register", got=repr(name), remedy=remedy)


class KeptModel(Observer, contextlib.AbstractContextManager["KeptModel"]):
    """Keeps the winner's model of a search in a temporary folder until its `with` block ends.

    If the model cannot be written or logged, the user gets a note: the result is safe already.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._stack = contextlib.ExitStack()
        self.folder: Path | None = None

    def on_winner(self, model: WinnerModel) -> None:
        folder = self._stack.enter_context(scratch_folder()) / "model"
        try:
            model.write(folder)
            self.folder = folder
        except Interrupted:
            raise
        except Exception as error:
            self._note(f"the winner's model cannot be written: {one_line(error)}")

    def log(
        self,
        record: StudyRecord,
        register: str | None,
        again: str,
        example: Example | None = None,
    ) -> None:
        """Log the model to MLflow, if there is one.

        Args:
            record: see `log_winner`, as `register` and `example`.
            again: the command to log it later.
        """
        if self.folder is None and register is None:
            return
        try:
            log_winner(record, self._note, folder=self.folder, register=register, example=example)
        except (Exception, KeyboardInterrupt) as error:
            why = "stopped" if isinstance(error, KeyboardInterrupt) else explain(error)
            adds = "" if isinstance(error, NoGraphError) else f"; `{again}` adds it"
            self._note(f"MLflow has no model of the winner: {why}{adds}")

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def log_winner(
    record: StudyRecord,
    note: Callable[[str], None],
    *,
    folder: Path | None = None,
    register: str | None = None,
    ensemble: bool = False,
    example: Example | None = None,
) -> None:
    """Log the winner's model to MLflow, unless it is logged already, and register it.

    Args:
        record: a study that is done.
        note: receives notes for the user.
        folder: the model's folder; None trains the winner again.
        register: name in MLflow's registry; None registers nothing.
        ensemble: whether to log the mean of all repeats of the winner.
        example: returns the input example; by default `example_rows`.

    Raises:
        InputError: the data cannot be read any more, or has changed.
        RunError: the training failed, its score is not the recorded one, or the model cannot be
            exported.
        Exception: MLflow's own.
    """
    client, name = open_store(), training_name(record, ensemble=ensemble)
    run_id = _study_run(client, record)
    with scratch_folder() as made:
        if _find_model(client, run_id, name) is None and folder is None:
            note("training the winner again, as MLflow has no model of it")
            folder = made / "model"
            write_model(retrained(record, ensemble=ensemble), folder, moves=True)
        with only_copier(record.id):  # not while it trains: others would wait
            logged = _find_model(client, run_id, name)
            if logged is None:
                assert folder is not None, "only this process removes it"
                model = load_model(folder)
                rows = (example or example_rows)(model, record)
                logged = log_model(client, run_id, model, rows, name)
            if register is not None:
                version = _register(client, logged, register)
                note(f"the winner's model is version {version} of {register} in MLflow's registry")


def _study_run(client: MlflowClient, record: StudyRecord) -> str:
    experiment = client.get_experiment_by_name(record.experiment.name)
    assert experiment is not None, "the study was copied before"
    of_study = f"tags.study_id = '{record.id}' and tags.role = '{STUDY_ROLE}'"
    (run,) = client.search_runs([experiment.experiment_id], of_study, max_results=1)
    return str(run.info.run_id)


def _find_model(client: MlflowClient, run_id: str, training: str) -> LoggedModel | None:
    """Return the run's model of a training; delete unfinished ones of killed processes."""
    from mlflow.entities import LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    complete = None
    for model in found:
        if model.name != _NAME or model.tags.get(_TRAINING) != training:
            continue
        if model.status == LoggedModelStatus.READY:
            complete = model
        else:
            client.delete_logged_model(model.model_id)
    return complete


def log_model(
    client: MlflowClient, run_id: str, model: Model, example: pd.DataFrame, training: str
) -> LoggedModel:
    """Log a model's folder to the study's run, with signature and input example.

    MLflow gets the folder and the code that reads it. Nothing is pickled, and loading the model
    needs neither tuner nor torch.

    Args:
        client: of the store.
        run_id: of the study.
        model: of a folder by `write_model`.
        example: rows of data to predict from.
        training: that the model is of.

    Raises:
        Exception: of MLflow.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    with warnings.catch_warnings():  # of the example
        warnings.simplefilter("ignore", PredictionWarning)
        predicted = model.predict(example)
    experiment = client.get_run(run_id).info.experiment_id
    made = client.create_logged_model(experiment, _NAME, run_id, tags={_TRAINING: training})
    try:
        with scratch_folder() as folder:
            _save_as_mlflow(folder / _NAME, made, model, example, predicted)
            client.log_model_artifacts(made.model_id, str(folder / _NAME))
        logged = client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    except BaseException:
        client.delete_logged_model(made.model_id)
        raise
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return logged


def _save_as_mlflow(
    path: Path, made: LoggedModel, model: Model, example: pd.DataFrame, predicted: pd.DataFrame
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints on types, and MLflow about its own code
        import mlflow.pyfunc
        from mlflow.models import Model as MlflowModel
        from mlflow.models import infer_signature
        from mlflow.types.schema import AnyType, ColSpec, Schema

        signature = infer_signature(None, predicted, params={"all_windows": False})
        # The model checks its columns itself, and takes what a file may hold: 1, 1.0 or "1".
        signature.inputs = Schema([ColSpec(AnyType(), str(name)) for name in example])
        mlflow.pyfunc.save_model(
            str(path),
            mlflow_model=MlflowModel(
                made.artifact_location,
                made.source_run_id,
                model_uuid=made.model_id,
                model_id=made.model_id,
            ),
            loader_module=_LOADER,
            data_path=str(model.folder),
            code_paths=[str(Path(tuner.__file__).parent)],
            signature=signature,
            input_example=example,
            pip_requirements=[*_NEEDS],
        )


def _register(client: MlflowClient, model: LoggedModel, name: str) -> str:
    """Register a logged model unless it is; return its version.

    Raises:
        Exception: of MLflow.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    for version in client.search_model_versions(f"name = '{name}'"):
        if model.model_uri == version.source:
            return str(version.version)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(client.tracking_uri)  # where MLflow looks the model up
    try:
        made = client.create_model_version(
            name, model.model_uri, model.source_run_id, model_id=model.model_id
        )
    finally:
        mlflow.set_tracking_uri(before)
    return str(made.version)
