"""Model folders made quickly: of weights that were drawn, not trained, and without a worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tuner.data import SeriesRef
from tuner.data.prepared import Prepared, check_data
from tuner.executors.base import Event, Finished
from tuner.experiment import Experiment
from tuner.jobs import Job, Outcome, OutcomeState, PredictJob
from tuner.prediction.model import checksum, record_checksum
from tuner.results import export as model_folder
from tuner.results.export import write_model
from tuner.results.retraining import Training
from tuner.training import run_job
from tuner.training.model import Model


class HereExecutor:
    """Does jobs where it is called."""

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._events: list[Event] = []

    def submit(self, job: Job) -> None:
        self._events.append(Finished(job.key, run_job(job, lambda epoch: True)))

    def poll(self, timeout_s: float) -> list[Event]:
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        pass


def drawn(experiment: Experiment, data: Prepared, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights for an experiment's fixed hyperparameters, larger than those that training draws."""
    torch.manual_seed(seed)
    ref = data.folds[-1].with_window(experiment.hyperparameters.window)
    model = Model(experiment.hyperparameters, ref.shape)
    return {name: 1.5 * array for name, array in model.weights().items()}


def make_model(
    raw: dict[str, Any], folder: Path, frame: pd.DataFrame | None = None, file: str = "data.csv"
) -> Training:
    """Write the model of an experiment into `folder`/model; its arrays stay in `folder`/arrays.

    A frame is written as the data, into `folder`/`file`.
    """
    if frame is not None:
        raw = raw | {"data": raw["data"] | {"path": str(folder / file)}}
        write = frame.to_parquet if file.endswith("parquet") else frame.to_csv
        write(folder / file, index=False)
    small = {"hyperparameters": {"hidden_size": 4}}
    experiment = Experiment.model_validate({"name": "made", **small, **raw})
    data = check_data(experiment).write(folder / "arrays")
    outcome = Outcome(OutcomeState.COMPLETE, objective=0.5, weights=drawn(experiment, data))
    training = Training(experiment, data, outcome)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folder, "LocalExecutor", HereExecutor)
        write_model(training, folder / "model")
    return training


def rewrite(model: Path, sign: bool = True, **values: Any) -> None:
    """Change what pipeline.json says, as somebody would who can calculate checksums."""
    path = model / "pipeline.json"
    record = json.loads(path.read_text()) | values
    record = {key: value for key, value in record.items() if value != "REMOVED"}
    if sign:
        record["sha256"] = record_checksum(record)
    path.write_text(json.dumps(record))


def replace_file(model: Path, name: str, content: bytes) -> None:
    """Write another file into a model, and its checksum into pipeline.json."""
    (model / name).write_bytes(content)
    files = json.loads((model / "pipeline.json").read_text())["files"]
    rewrite(model, files=files | {name: checksum(content)})


def predicted_in_training(training: Training, part: Prepared) -> tuple[list[str], np.ndarray]:
    """What a `PredictJob` says of the part to evaluate, and what people call its samples."""
    assert training.outcome.weights is not None
    (ref,) = part.folds
    job = PredictJob(
        "predict", training.experiment.configuration({}), training.outcome.weights, ref
    )
    outcome = run_job(job, lambda epoch: True)
    assert outcome.predictions is not None, outcome.reason
    ref = ref.with_window(training.experiment.hyperparameters.window)
    assert not isinstance(ref, SeriesRef) or ref.window == training.experiment.given("window")
    return [part.name_of(s) for s in ref.evaluate_samples().tolist()], outcome.predictions


def months(n_rows: int = 72, seed: int = 0) -> pd.DataFrame:
    """Sales by month, with a price."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "month": pd.date_range("2015-01-01", periods=n_rows, freq="MS"),
            "sales": 100 + 30 * np.sin(np.arange(n_rows) / 2) + rng.normal(size=n_rows),
            "price": rng.uniform(1, 2, n_rows),
        }
    )
