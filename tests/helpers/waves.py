"""A small search as a person runs it: a file of waves, a real command line, real workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

EXPERIMENT = """\
name: waves
data: {path: waves.csv, target: y, split: {validation: 15, test: 12}}
task: {window: 6, season: 12}
search_space:
  hidden_size: {type: int, low: 2, high: 12}
  dropout: {type: float, low: 0.0, high: 0.4}
  batch_size: {type: categorical, choices: [8, 16]}
strategy: {name: woa, population: 4}
budget: {trials: 12, epochs: 8}
pruner: {name: median, n_startup_trials: 3, n_warmup_steps: 2}
finalists: {top: 2, repeats: 2}
"""


def write_series(folder: Path, n_rows=90, changed: dict[int, float] | None = None):
    t = np.arange(n_rows)
    y = 10 + 3 * np.sin(t / 2) + np.random.default_rng(0).normal(0, 0.3, n_rows)
    for row, value in (changed or {}).items():
        y[row] = value
    (folder / "waves.csv").write_text("y\n" + "".join(f"{float(v)!r}\n" for v in y))


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")},
    )


def tuner(folder: Path, *arguments: str) -> str:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def trials(folder: Path) -> tuple:
    """What must be equal between two runs: trials, finalists, the default, and test scores."""
    shown = json.loads(tuner(folder, "show", "waves-woa-0", "--json"))
    for trial in shown["all_trials"]:
        del trial["seconds"], trial["latency_ms"]
    test = shown["test"]
    del test["opened_at"]
    return shown["all_trials"], [*shown["finalists"], shown["default"]], test
