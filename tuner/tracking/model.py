"""The retrained winner as a model in MLflow: to load, to serve, and to register."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import tuner
from tuner.journal.records import StudyRecord
from tuner.outputs import scratch_folder
from tuner.prediction import Model, PredictionWarning
from tuner.tracking.layout import STUDY_ROLE

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

NAME = "winner"
_TRAINING = "training"  # tag: the training of a model
_LOADER = "tuner.prediction.pyfunc"
_NEEDS = ("numpy", "pandas", "onnxruntime", "typer")  # `tuner` itself comes with the model


def study_run(client: MlflowClient, record: StudyRecord) -> str:
    """Return the id of a study's run, which exists."""
    experiment = client.get_experiment_by_name(record.experiment.name)
    assert experiment is not None, "the study was copied before"
    of_study = f"tags.study_id = '{record.id}' and tags.role = '{STUDY_ROLE}'"
    (run,) = client.search_runs([experiment.experiment_id], of_study, max_results=1)
    return str(run.info.run_id)


def find_model(client: MlflowClient, run_id: str, training: str) -> LoggedModel | None:
    """Return the run's model of a training; delete unfinished ones of killed processes."""
    from mlflow.entities import LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    complete = None
    for model in found:
        if model.name != NAME or model.tags.get(_TRAINING) != training:
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
    made = client.create_logged_model(experiment, NAME, run_id, tags={_TRAINING: training})
    try:
        with scratch_folder() as folder:
            _save(folder / NAME, made, model, example, predicted)
            client.log_model_artifacts(made.model_id, str(folder / NAME))
        logged = client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    except BaseException:
        client.delete_logged_model(made.model_id)
        raise
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return logged


def _save(
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


def register_model(client: MlflowClient, model: LoggedModel, name: str) -> str:
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
