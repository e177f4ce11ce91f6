"""A trained model as a folder that predicts without torch, and trains again with it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tuner import __version__
from tuner.coordination.work import run_jobs
from tuner.data import DataRef, SeriesRef
from tuner.errors import RunError
from tuner.executors import Executor, LocalExecutor
from tuner.experiment import Experiment, dump_yaml
from tuner.experiment.cells import cell_of
from tuner.jobs import ExportJob, Outcome, Weights
from tuner.prediction.folder import FORMAT, MODEL, OLDEST, PIPELINE, checksum, record_checksum
from tuner.results.model_readme import readme
from tuner.results.reproduce import Training

__all__ = ["write_model"]

_NEWER = {"known_future", "categories", "static"}  # keys that an older version would pass over
_STEPS = 32  # of the sequences that the export is checked on; of a forecast, the window's
_README = "README.md"  # not checked: whoever gets the folder may write into it


def write_model(
    training: Training, folder: Path, executor: Executor | None = None, *, moves: bool = False
) -> str | None:
    """Write a trained model as `model.onnx`, with all that prediction needs, into `folder`.

    `pipeline.json` holds columns, transform, scaling, window, classes and the checksums of the
    other files: `weights.safetensors`, `experiment.yaml`, and what attention looked at. Nothing
    is pickled. `pipeline.json` comes last: a folder without it, or with one that does not fit
    the other files, is no model. ONNX is written and checked by a worker of the executor; without
    one, by a worker of its own. Of a folder that `moves`, to MLflow, `experiment.yaml` names the
    data by its absolute path.

    Of a training with a refit it is the refitted model; what `pipeline.json` says of validation is
    of the one that the training part alone trained.

    Returns:
        Why there is no `model.onnx`, where torch has no graph of a cell of one's own, or none that
        is right; all else is written then.

    Raises:
        RunError: the model cannot be exported, or ONNX puts out something else than torch.
    """
    from safetensors.numpy import save

    model = training.model
    outcome = _export(model, executor)
    exported = outcome.exported
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as name:
        written = Path(name)
        if exported is not None:
            (written / MODEL).write_bytes(exported.file)
        (written / "weights.safetensors").write_bytes(save(_all_weights(model)))
        again = _experiment(training.experiment, None if moves else folder)
        (written / "experiment.yaml").write_text(again, encoding="utf-8")
        if model.attention is not None:
            model.attention.write(written)
        files = {path.name: checksum(path.read_bytes()) for path in sorted(written.iterdir())}
        record = _pipeline(training, outcome) | {"files": files}
        record["sha256"] = record_checksum(record)
        (written / _README).write_text(readme(training, folder), encoding="utf-8")
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        (written / PIPELINE).write_text(text + "\n", encoding="utf-8")
        for path in sorted(written.iterdir(), key=lambda path: path.name == PIPELINE):
            path.replace(folder / path.name)
        for stale in {MODEL, "attention.csv", "attention.png"} - set(files):
            (folder / stale).unlink(missing_ok=True)
    return outcome.reason if exported is None else None


def _export(training: Training, given: Executor | None) -> Outcome:
    first, *others = training.weights
    job = ExportJob(
        key=MODEL,
        hyperparameters=training.experiment.configuration({}),
        weights=first,
        shape=_data(training).shape,
        steps=_window(training) or _STEPS,
        others=tuple(others),
    )
    executor = given or LocalExecutor(1)
    own = cell_of(training.experiment.cells, training.experiment.hyperparameters.cell) is not None
    try:
        (outcome,) = run_jobs(executor, [job], may_fail=own)
    finally:
        if given is None:
            executor.close()
    if outcome.exported is None and not own:
        raise RunError(f"{MODEL}: the worker brought none back; run the command again")
    return outcome


def _all_weights(training: Training) -> Weights:
    """Return the weights by torch's names; those of an ensemble begin with the model's number."""
    if len(training.weights) == 1:
        return training.weights[0]
    return {
        f"models.{i}.{name}": array
        for i, weights in enumerate(training.weights)
        for name, array in weights.items()
    }


def _data(training: Training) -> DataRef:
    """Return the data as the model reads it."""
    return training.data.folds[-1].with_window(training.experiment.hyperparameters.window)


def _window(training: Training) -> int | None:
    """Return how many rows the forecasts of the model read; None where it reads sequences."""
    data = _data(training)
    return data.window if isinstance(data, SeriesRef) else None


def _pipeline(training: Training, outcome: Outcome) -> dict[str, Any]:
    experiment, model = training.experiment, training.model
    parameters = experiment.hyperparameters
    metric, score = experiment.objective.metric, training.outcome.objective
    whole = score is None or training.refit is not None
    return {
        "format": FORMAT if _NEWER & model.data.pipeline.keys() else OLDEST,
        "tuner": __version__,
        **model.data.pipeline,
        **({} if (window := _window(training)) is None else {"window": window}),
        **_intervals(training),
        **({"beam": parameters.beam} if experiment.task.kind == "translate" else {}),
        "width": max(
            (2 if parameters.bidirectional else 1) * max(parameters.widths),
            parameters.conv_channels,
        ),
        "hyperparameters": parameters.model_dump(),
        "models": len(model.weights),
        "trained_on": "training and validation" if whole else "training",
        "validation": None if score is None else {metric: score},
        **_of_graph(outcome),
    }


def _of_graph(outcome: Outcome) -> dict[str, Any]:
    """Return how far ONNX is from torch, or why there is none."""
    if outcome.exported is None:
        return {"no_graph": outcome.reason}
    return {"onnx_difference": outcome.exported.difference}


def _intervals(training: Training) -> dict[str, Any]:
    """Return the intervals of a forecast, as JSON; nothing where sequences are read.

    Their `scales` are in the order of the series' names.
    """
    if not training.experiment.task.of_series:
        return {}
    found = training.intervals
    if found is None:
        return {"intervals": None}
    scales = None if found.scales is None else found.scales.tolist()
    record = {"levels": list(found.levels), "radii": found.radii.tolist(), "scales": scales}
    return {"intervals": record}


def _experiment(experiment: Experiment, folder: Path | None) -> str:
    """Return the file that trains the model again, as long as the data stays in place.

    Where it will be in `folder`, the data's path is relative to that.
    """
    record = experiment.to_dict()
    if folder is not None:
        record["data"]["path"] = os.path.relpath(record["data"]["path"], folder.resolve())
        if (test_file := record["data"]["split"].get("test_file")) is not None:
            record["data"]["split"]["test_file"] = os.path.relpath(test_file, folder.resolve())
    return dump_yaml(record)
