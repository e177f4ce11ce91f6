"""A trained model as a folder: weights, and all that turns a series into its inputs."""

from __future__ import annotations

import json
from pathlib import Path

from tuner.results.reproduce import Training

__all__ = ["write_model"]


def write_model(training: Training, folder: Path) -> None:
    """Write `weights.safetensors`, `pipeline.json` and `experiment.yaml` into `folder`.

    A model with attention adds what it looked at.

    `pipeline.json` holds columns, transform, scaling, window, classes; nothing is pickled.
    """
    from safetensors.numpy import save_file

    assert training.outcome.weights is not None
    experiment, data = training.experiment, training.data
    folder.mkdir(parents=True, exist_ok=True)
    save_file(training.outcome.weights, folder / "weights.safetensors")
    pipeline = {
        "format": 2,
        **data.pipeline,
        "hyperparameters": experiment.hyperparameters.model_dump(),
        "validation": {experiment.objective.metric: training.outcome.objective},
    }
    (folder / "pipeline.json").write_text(json.dumps(pipeline, indent=2) + "\n", encoding="utf-8")
    if training.attention is not None:
        training.attention.write(folder)
    (folder / "experiment.yaml").write_text(experiment.to_yaml(), encoding="utf-8")
