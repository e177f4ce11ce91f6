"""The data set of a study, as MLflow knows data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.coordination.records import StudyRecord
from tuner.tracking.limits import storable

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

__all__ = ["dataset_digest", "dataset_input"]

_LONGEST = 36  # of a digest in MLflow


def dataset_digest(record: StudyRecord) -> str:
    """Return how MLflow tells this data set from others: as much of its SHA-256 as fits."""
    return str(record.data["sha256"])[:_LONGEST]


def dataset_input(record: StudyRecord) -> DatasetInput:
    """Return the data set as an input of the study's run, from the record alone.

    Its name is the file's, its source the file, its profile how many rows it had. What the
    columns are, `experiment.yaml` says.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    path = Path(record.data["path"]).absolute()
    dataset = Dataset(
        name=storable(path.name)[:500],
        digest=dataset_digest(record),
        source_type="local",
        source=json.dumps({"uri": path.as_uri()}),
        profile=json.dumps({"num_rows": record.data["rows"]}),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])
