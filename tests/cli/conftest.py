"""A folder with an experiment that a search finishes in seconds."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.baselines import fitted_once

AIR_PASSENGERS = Path(__file__).parents[2] / "experiments/data/air_passengers.csv"

EXPERIMENT = """\
name: air
data: {path: air.csv, time: month, target: passengers, transform: log}
task: {window: 12, horizon: 1}
search_space:
  hidden_size: {type: int, low: 2, high: 8}
  learning_rate: {type: float, low: 1e-3, high: 1e-1, log: true}
strategy: {name: random}
budget: {trials: 4, epochs: 3}
pruner: {name: none}
finalists: {top: 2, repeats: 2}
"""


def make_folder(folder):
    folder.mkdir(exist_ok=True)
    shutil.copy(AIR_PASSENGERS, folder / "air.csv")
    (folder / "air.yaml").write_text(EXPERIMENT)
    return folder


@pytest.fixture(scope="package", autouse=True)
def _baselines_fitted_once():
    with fitted_once():
        yield


@pytest.fixture(autouse=True)
def no_mlflow_settings(monkeypatch):
    for name in list(os.environ):
        if name.startswith("MLFLOW_"):
            monkeypatch.delenv(name)
    yield
    for name in list(os.environ):
        if name.startswith("MLFLOW_"):
            del os.environ[name]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: air.csv and air.yaml, nothing else."""
    monkeypatch.chdir(make_folder(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder in which `tuner run air.yaml --workers 1` has ended; `run.log` has its output."""
    import subprocess
    import sys

    folder = make_folder(tmp_path_factory.mktemp("a folder with spaces"))
    result = subprocess.run(
        [sys.executable, "-m", "tuner", "run", "air.yaml", "--workers", "1"],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    (folder / "run.log").write_text(result.stdout, encoding="utf-8")
    return folder
