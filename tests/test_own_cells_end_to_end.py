"""A search over a cell of one's own, from the file to the forecast."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.prediction import load_model

TESTS = Path(__file__).parent
EXPERIMENT = """\
name: own
data: {path: waves.csv, target: y, decompose: {kind: moving_average, length: 4}}
task: {window: 8, horizon: 2}
hyperparameters: {cell: "own_classes:Leaky", hidden_size: 4, normalize: last}
search_space:
  cell: {type: categorical, choices: ["own_classes:Leaky", "own_classes:Counting"]}
  leak: {type: float, low: 0.1, high: 0.9}
  kernel: {type: categorical, choices: [1, 3]}
strategy: random
budget: {trials: 4, epochs: 2}
finalists: {top: 1, repeats: 2, baseline: false}
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    y = np.sin(np.arange(140) / 4) + rng.normal(size=140) / 9
    pd.DataFrame({"y": y}).to_csv(tmp_path / "waves.csv", index=False)
    text = EXPERIMENT.replace("strategy: random", "strategy: {name: random}")
    (tmp_path / "own.yaml").write_text(text)
    return tmp_path


def tuner(folder, *words, ends=0):
    path = os.pathsep.join([str(TESTS.parent), str(TESTS / "helpers" / "own_code")])
    env = {k: v for k, v in os.environ.items() if k != "TUNER_ALLOW_CODE"}
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *words],
        cwd=folder, env=env | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == ends, done.stderr + done.stdout
    return done.stdout + done.stderr


@pytest.mark.slow
def test_an_own_cell_runs_from_search_to_prediction(folder):
    run = ("run", "own.yaml", "--no-tracking", "--workers", "2")
    tuner(folder, *run, "--trials", "2", "--no-test")
    tuner(folder, *run)
    shown = json.loads(tuner(folder, "show", "own-random-0", "--json"))
    assert shown["best"]["params"]["cell"].startswith("own_classes:")
    tuner(folder, "export", "own-random-0", "-o", "best.yaml", "--model", "model")
    refused = tuner(folder, "train", "best.yaml", ends=2)
    assert "an exported file imports no code" in refused
    again = tuner(folder, "train", "best.yaml", "--allow-code", "-o", "again")
    assert "\nreproduced: " in again

    frame = pd.read_csv(folder / "waves.csv")
    one, other = (
        load_model(folder / name).predict(frame, all_windows=True) for name in ("model", "again")
    )
    pd.testing.assert_frame_equal(one, other, rtol=1e-5)
    assert "waves.csv" in (folder / "again" / "experiment.yaml").read_text()


def test_without_a_graph_the_rest_is_written_and_predict_fails(folder):
    text = EXPERIMENT.partition("search_space:")[0].replace("Leaky", "NoGraph")
    (folder / "own.yaml").write_text(text + "budget: {epochs: 2}\n")
    said = tuner(folder, "train", "own.yaml", "-o", "model")
    assert "no model.onnx, so `tuner predict` cannot use it: torch has no ONNX of own_cl" in said
    files = {path.name for path in (folder / "model").iterdir()}
    assert files == {"README.md", "experiment.yaml", "pipeline.json", "weights.safetensors"}
    refused = tuner(folder, "predict", "model", "waves.csv", ends=2)
    assert refused.startswith("tuner: model: holds no model.onnx to predict with: torch has no ONN")
    assert refused.count("\n") == 1
