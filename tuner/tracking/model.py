"""The retrained winner as a model in MLflow: to load, to serve, and to register."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import tuner
from tuner.prediction import Model
from tuner.search.records import StudyRecord
from tuner.tracking.layout import STUDY_ROLE

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

__all__ = ["find_model", "log_model", "register_model", "study_run"]

NAME = "winner"
_TRAINING = "training"  # the tag that says which training a model comes from
_LOADER = "tuner.prediction.pyfunc"
_NEEDS = ("numpy", "pandas", "onnxruntime", "typer")  # `tuner` itself comes with the model


def study_run(client: MlflowClient, record: StudyRecord) -> str:
    """Return the id of a study's run, which there must be."""
    experiment = client.get_experiment_by_name(record.experiment.name)
    assert experiment is not None, "the study was copied before"
    of_study = f"tags.study_id = '{record.id}' and tags.role = '{STUDY_ROLE}'"
    (run,) = client.search_runs([experiment.experiment_id], of_study, max_results=1)
    return str(run.info.run_id)


def find_model(client: MlflowClient, run_id: str, training: str) -> LoggedModel | None:
    """Return the model of a training that a run has; remove what a killed process left of one.

    Args:
        client: of the store.
        run_id: the study's run.
        training: which one, as `log_model` was told.
    """
    from mlflow.entities import LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    complete = None
    for model in found:
        if model.status != LoggedModelStatus.READY:
            client.delete_logged_model(model.model_id)
        elif model.tags.get(_TRAINING) == training:
            complete = model
    return complete


def log_model(
    client: MlflowClient, run_id: str, model: Model, example: pd.DataFrame, training: str
) -> LoggedModel:
    """Log a model's folder to the study's run, with signature and input example.

    MLflow gets the folder as it is, and the code that reads it: nothing is pickled, and who loads
    the model needs neither tuner nor torch. The search's metrics of that run are not the model's.

    Args:
        client: of the store.
        run_id: the study's run.
        model: of a folder that `write_model` wrote.
        example: some rows of data that it can predict from.
        training: which training it comes from.

    Raises:
        Exception: MLflow's own.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    made = client.create_logged_model(experiment, NAME, run_id, tags={_TRAINING: training})
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # hints on types, MLflow's own among them
        import mlflow.pyfunc
        from mlflow.models import Model as MlflowModel
        from mlflow.models import infer_signature

        mlflow.pyfunc.save_model(
            f"{folder}/{NAME}",
            mlflow_model=MlflowModel(
                made.artifact_location, run_id, model_uuid=made.model_id, model_id=made.model_id
            ),
            loader_module=_LOADER,
            data_path=str(model.folder),
            code_paths=[str(Path(tuner.__file__).parent)],
            signature=infer_signature(
                example, model.predict(example), params={"all_windows": False}
            ),
            input_example=example,
            pip_requirements=[*_NEEDS],
        )
        client.log_model_artifacts(made.model_id, f"{folder}/{NAME}")
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)


def register_model(client: MlflowClient, model: LoggedModel, name: str) -> str:
    """Register a logged model, unless that was done; return the number of its version.

    Raises:
        Exception: MLflow's own.
    """
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
    made = client.create_model_version(
        name, model.model_uri, model.source_run_id, model_id=model.model_id
    )
    return str(made.version)
