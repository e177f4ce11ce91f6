"""The writes that every copy is made of."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.tracking.layout import Point, RunLayout

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
    """Write one batch, which MLflow's client divides into requests within its limits."""
    from mlflow.entities import Metric, Param, RunTag

    client.log_batch(
        run_id,
        metrics=[Metric(p.key, p.value, p.time_ms, p.step) for p in points],
        params=[Param(key, value) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
        synchronous=True,
    )


def log_file(client: MlflowClient, run_id: str, name: str, content: str | bytes) -> None:
    """Keep a file with a run, in place of one of that name."""
    if isinstance(content, str):
        client.log_text(run_id, content, name)
        return
    folder, _, file_name = name.rpartition("/")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / file_name
        path.write_bytes(content)
        client.log_artifact(run_id, str(path), folder or None)
