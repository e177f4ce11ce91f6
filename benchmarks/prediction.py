"""How long `tuner predict` takes beside onnxruntime itself, and how long its code takes to import.

    python benchmarks/prediction.py

A forecast of one step from each of 100,000 windows, as `tuner predict --all` makes it, with an
LSTM of 64 units that was trained for an epoch. onnxruntime alone is given windows that lie ready
in memory, in batches of the same size. `predict()` begins with a table and ends with one; the
command begins with the start of Python and ends with a CSV file. All take turns; seconds are
those of the best turn, ratios the median of those in a turn. Target of `predict()`: 1.5.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd

from tuner.data.prepared import prepare
from tuner.executors import LocalExecutor
from tuner.executors.base import run_jobs
from tuner.experiment import Experiment
from tuner.jobs import TrainJob
from tuner.prediction import load_model
from tuner.prediction.session import BATCH
from tuner.results.export import write_model
from tuner.results.retraining import Training

N_WINDOWS = 100_000
WINDOWS = (24, 96)
REPEATS = 5


def main() -> None:
    print(f"{N_WINDOWS:,} windows, one feature, LSTM of 64 units, best of {REPEATS} turns\n")
    print("window  onnxruntime    predict()  ratio  tuner predict --all -o  ratio")
    with tempfile.TemporaryDirectory() as name:
        for window in WINDOWS:
            folder = Path(name) / str(window)
            data = make(folder, window)
            measure(folder / "model", data, window)
    code = "import tuner.prediction, onnxruntime"
    seconds = min(processor_s("-c", code) for _ in range(REPEATS))
    seconds -= min(processor_s("-c", "") for _ in range(REPEATS))
    print(f"\nimport of the prediction code: {seconds:.2f} s of the processor (target 0.5)")


def make(folder: Path, window: int) -> Path:
    """Write a series and a model of it, trained for an epoch on a few rows; return the series."""
    folder.mkdir()
    n_rows = N_WINDOWS + window - 1  # a forecast begins after the last row too
    times = pd.date_range("2000-01-01", periods=n_rows, freq="h")
    load = 50 + 10 * np.sin(np.arange(n_rows) / 24) + np.random.default_rng(0).normal(size=n_rows)
    frame = pd.DataFrame({"time": times, "load": load.round(3)})
    frame.to_csv(folder / "data.csv", index=False)
    frame[: 5 * window].to_csv(folder / "few.csv", index=False)
    experiment = Experiment.model_validate(
        {
            "name": "load",
            "data": {"path": str(folder / "few.csv"), "time": "time", "target": "load"},
            "task": {"window": window},
            "hyperparameters": {"hidden_size": 64},
        }
    )
    data = prepare(experiment, folder / "arrays")
    executor = LocalExecutor(1)
    job = TrainJob(
        "train", experiment.configuration({}), 0, 1, 1, "rmse", data.folds, keep_weights=True
    )
    try:
        (outcome,) = run_jobs(executor, [job])
    finally:
        executor.close()
    write_model(Training(experiment, data, outcome), folder / "model")
    return folder / "data.csv"


def measure(folder: Path, data: Path, window: int) -> None:
    model, frame = load_model(folder), pd.read_csv(data)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    rows = np.random.default_rng(0).normal(size=(N_WINDOWS + window, 1)).astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(rows, window, axis=0).swapaxes(1, 2)
    ready = [np.ascontiguousarray(views[i : i + BATCH]) for i in range(0, N_WINDOWS, BATCH)]

    def alone() -> None:
        for batch in ready:
            session.run(None, {"inputs": batch})

    def command() -> None:
        out = str(data.with_name("out.csv"))
        run("-m", "tuner", "predict", str(folder), str(data), "--all", "-o", out)

    assert len(model.predict(frame, all_windows=True)) == N_WINDOWS
    # In turns, as what else the machine does changes.
    turns = [
        [timed(f) for f in (alone, lambda: model.predict(frame, all_windows=True), command)]
        for _ in range(REPEATS)
    ]
    seconds = np.array(turns)
    runtime, function, whole = seconds.min(axis=0)
    _, ratio, whole_ratio = np.median(seconds / seconds[:, :1], axis=0)
    print(
        f"{window:6d}  {runtime:9.2f} s  {function:9.2f} s  {ratio:5.2f}"
        f"  {whole:20.2f} s  {whole_ratio:5.2f}"
    )


def timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def processor_s(*arguments: str) -> float:
    """Run a command of Python's and return the processor's time that it took, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
