"""The writes that every copy is made of."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.tracking.layout import RunLayout
from tuner.tracking.limits import Point, batches

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["create_run", "log", "log_file"]


def create_run(client: MlflowClient, experiment_id: str, layout: RunLayout) -> str:
    """Create a run with its tags; returns its id."""
    run = client.create_run(
        experiment_id, start_time=layout.start_ms, tags=dict(layout.tags), run_name=layout.name
    )
    return str(run.info.run_id)


def log(
    client: MlflowClient,
    run_id: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    points: Iterable[Point],
) -> None:
    """Write params, tags and points in as few requests as MLflow's limits allow."""
    from mlflow.entities import Metric, Param, RunTag

    # The client itself would give the points to whatever model this process has made the active
    # one, by `MLFLOW_ACTIVE_MODEL_ID` say; a store that does not have that model refuses them.
    store = client._tracking_client.store
    for batch in batches(points, params, tags):
        store.log_batch(
            run_id,
            metrics=[Metric(p.key, p.value, p.time_ms, p.step) for p in batch.points],
            params=[Param(key, value) for key, value in batch.params.items()],
            tags=[RunTag(key, value) for key, value in batch.tags.items()],
        )


def log_file(client: MlflowClient, run_id: str, name: str, content: bytes) -> None:
    """Keep a file with a run, in place of one of that name."""
    folder, _, file_name = name.rpartition("/")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / file_name
        path.write_bytes(content)
        client.log_artifact(run_id, str(path), folder or None)
