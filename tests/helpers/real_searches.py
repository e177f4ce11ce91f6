"""Real searches of seconds, in processes of their own: what is typed, and what comes of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tuner.tracking import open_store

AIR_PASSENGERS = Path(__file__).parents[2] / "experiments/data/air_passengers.csv"
STUDY = "air-random-0"

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
RUN = ("run", "air.yaml", "--workers", "1")
# Trials of a second or so, long enough for something to happen meanwhile.
LONGER = (*RUN, "--set", "budget.epochs=250", "--set", "budget.patience=1000")


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def said_of_mlflow(self) -> list[str]:
        """The lines about MLflow, without the commands to type next."""
        told, _, _ = self.out.partition("\nNext:")
        return [line for line in told.splitlines() if "mlflow" in line.lower()]


def make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(AIR_PASSENGERS, folder / "air.csv")
    (folder / "air.yaml").write_text(EXPERIMENT)
    return folder


def begin(folder: Path, *arguments: str, **popen: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def tuner(folder: Path, *arguments: str, **popen: Any) -> Ended:
    begun = time.monotonic()
    process = begin(folder, *arguments, **popen)
    out, err = process.communicate(timeout=600)
    return Ended(process.returncode, out, err, time.monotonic() - begun)


def when(process: subprocess.Popen[str], line: str, act: Callable[[], object]) -> Ended:
    """Do something when a command prints a line that begins so; the seconds count from there."""
    lines = []
    assert process.stdout is not None
    for printed in process.stdout:
        lines.append(printed)
        if printed.startswith(line):
            act()
            break
    acted = time.monotonic()
    out, err = process.communicate(timeout=600)
    return Ended(process.returncode, "".join(lines) + out, err, time.monotonic() - acted)


def result(folder: Path) -> dict[str, Any]:
    """Return what a search came to, without the times that one run of it took."""
    shown = tuner(folder, "show", STUDY, "--json")
    assert shown.status == 0, shown.err
    found = json.loads(shown.out)
    trials = [
        {k: v for k, v in t.items() if k not in ("seconds", "latency_ms")}
        for t in found["all_trials"]
    ]
    test = {k: v for k, v in found["test"].items() if k != "opened_at"}
    return {"trials": trials, "test": test, "best": found["best"], "finalists": found["finalists"]}


def copy_at(uri: str) -> dict[str, Any]:
    """Return all that an MLflow store has of the study, by the names of its runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        client = open_store()
    experiment = client.get_experiment_by_name("air")
    runs = client.search_runs([experiment.experiment_id])
    found = {
        run.info.run_name: {
            "status": run.info.status,
            "end": run.info.end_time,  # the start of a trial that was copied live was seen
            "params": run.data.params,
            "tags": {k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"},
            "metrics": {
                key: [
                    (m.step, m.timestamp, m.value)
                    for m in client.get_metric_history(run.info.run_id, key)
                ]
                for key in run.data.metrics
            },
            "files": sorted(f.path for f in client.list_artifacts(run.info.run_id)),
        }
        for run in runs
    }
    assert len(found) == len(runs), "two runs for one trial"
    (parent,) = [run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags]
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs}
    assert parents == {None, parent}
    return found


def full_copy(folder: Path) -> dict[str, Any]:
    """Return what a store has that was never away: a new one, of the same journal."""
    assert not (folder / "mlflow.db").exists()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("URI", "USERNAME", "PASSWORD"):
            patch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
        assert tuner(folder, "sync", STUDY).status == 0
    return copy_at(f"sqlite:///{folder / 'mlflow.db'}")
