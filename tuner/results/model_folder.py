"""A trained model as a folder: weights, and all that turns a series into its inputs."""

from __future__ import annotations

import json
from pathlib import Path

from tuner.results.reproduce import Training

__all__ = ["write_model"]


def write_model(training: Training, folder: Path) -> None:
    """Write `weights.safetensors`, `pipeline.json` and `experiment.yaml` into `folder`.

    `pipeline.json` holds columns, transform, scaling, window and horizon; nothing is pickled.
    """
    from safetensors.numpy import save_file

    assert training.outcome.weights is not None
    experiment, data = training.experiment, training.data
    folder.mkdir(parents=True, exist_ok=True)
    save_file(training.outcome.weights, folder / "weights.safetensors")
    pipeline = {
        "format": 1,
        "time": experiment.data.time,
        "frequency": data.series.frequency,
        "transform": experiment.data.transform,
        "inputs": {
            "columns": data.series.features,
            "offset": data.input_scaler.offset.tolist(),
            "scale": data.input_scaler.scale.tolist(),
        },
        "targets": {
            "columns": data.series.targets,
            "offset": list(data.ref.offset),
            "scale": list(data.ref.scale),
        },
        "window": data.ref.window,
        "horizon": data.ref.horizon,
        "hyperparameters": experiment.hyperparameters.model_dump(),
        "validation": {experiment.objective.metric: training.outcome.objective},
    }
    (folder / "pipeline.json").write_text(json.dumps(pipeline, indent=2) + "\n", encoding="utf-8")
    (folder / "experiment.yaml").write_text(experiment.to_yaml(), encoding="utf-8")
