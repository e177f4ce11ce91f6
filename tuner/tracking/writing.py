"""The two writes that every copy is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tuner.tracking.layout import Point, RunLayout

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["create_run", "log"]


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
