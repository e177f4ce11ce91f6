"""What decomposing a whole series before the split does to a score, beside each window for itself.

A model for each way and seed is trained with `tuner train` on the training part of a series, one
row ahead from a window, and then forecasts every test row twice: from the whole file, as a score
on a test part is had, and from a file that ends where its window does, as it is had in use. Where
nothing leaks both are the same. Of the whole series `decompose` cannot do it: the parts are
columns that this script writes, as articles do, and the model reads them in place of the series.

    python benchmarks/decomposition.py [--passengers AIR_PASSENGERS.csv] [--etth1 ETTh1.csv]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from tuner.data.features import modes_of
from tuner.experiment import dump_yaml
from tuner.prediction import load_model

SAME = 1e-6  # of the spread of the series: forecasts that differ by less are the same
HEADINGS = ("decomposed", "by", "score on the test part", "error in use", "forecasts that change")


@dataclass(frozen=True)
class Series:
    """A series, and how it is forecast."""

    name: str
    values: np.ndarray
    window: int
    length: int  # of the moving average
    test: int  # rows
    epochs: int  # at most
    hyperparameters: dict[str, Any]  # but for the defaults


@dataclass(frozen=True)
class Way:
    """How a model sees a series."""

    decomposed: str
    by: str
    columns: Callable[[np.ndarray], dict[str, np.ndarray]]  # that it reads, of a whole series
    decompose: Any = "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--passengers", type=Path, metavar="AIR_PASSENGERS.csv")
    parser.add_argument("--etth1", type=Path, metavar="ETTh1.csv")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    every = []
    if options.passengers is not None:
        logs = np.log(pd.read_csv(options.passengers)["passengers"].to_numpy(np.float64))
        many = {"batch_size": 8, "learning_rate": 0.003}  # steps: there are few windows
        every.append(Series("logarithm of air passengers, 144 months", logs, 24, 12, 22, 150, many))
    if options.etth1 is not None:
        oil = pd.read_csv(options.etth1)["OT"].to_numpy(np.float64)[-2000:]
        every.append(Series("ETTh1, the last 2,000 hours of OT", oil, 48, 24, 300, 60, {}))
    for series in every:
        title = f"{series.name}: RMSE one row ahead, mean of {options.seeds} seeds (their spread)"
        table = Table(title=title, title_justify="left")
        for heading in HEADINGS:
            table.add_column(heading)
        for way in ways(series):
            found = [measure(series, way, seed) for seed in range(options.seeds)]
            scores, in_use, changed = (np.array(part) for part in zip(*found, strict=True))
            table.add_row(
                way.decomposed,
                way.by,
                f"{scores.mean():.3f} ({scores.std():.3f})",
                f"{in_use.mean():.3f} ({in_use.std():.3f})",
                f"{changed.mean():.0%}",
            )
        Console(width=120).print(table)


def ways(series: Series) -> list[Way]:
    """Return no decomposition, and each kind of each window and of the whole series."""

    def trend(values: np.ndarray) -> dict[str, np.ndarray]:
        behind = (series.length - 1) // 2
        padded = np.pad(values, (series.length - 1 - behind, behind), mode="edge")
        trend = np.convolve(padded, np.full(series.length, 1 / series.length), mode="valid")
        return {"trend": trend, "remainder": values - trend}

    def modes(values: np.ndarray) -> dict[str, np.ndarray]:
        fast, slow = modes_of(values[None, :, None], 2)[0].T.astype(np.float64)
        return {"fast": fast, "slow": slow, "rest": values - fast - slow}

    def itself(values: np.ndarray) -> dict[str, np.ndarray]:
        return {}

    average = {"kind": "moving_average", "length": series.length}
    return [
        Way("nothing", "", itself),
        Way("each window", "moving average", itself, average),
        Way("the whole series", "moving average", trend),
        Way("each window", "EMD", itself, {"kind": "emd", "components": 3}),
        Way("the whole series", "EMD", modes),
    ]


def measure(series: Series, way: Way, seed: int) -> tuple[float, float, float]:
    """Train a model; return its test score, its error in use, and which share of forecasts moves.

    Args:
        series: is forecast.
        way: how the model sees it.
        seed: of the experiment.
    """

    def table(values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame({"y": values, **way.columns(values)})

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = table(series.values)
        whole.to_csv(folder / "series.csv", index=False)
        features = [column for column in whole if column != "y"] or ["y"]
        experiment = {
            "name": "decomposition",
            "data": {
                "path": "series.csv",
                "target": "y",
                "features": features,
                "decompose": way.decompose,
                "split": {"validation": 0.2, "test": series.test},
            },
            "task": {"window": series.window},
            "hyperparameters": series.hyperparameters,
            "budget": {"epochs": series.epochs},
            "seed": seed,
        }
        (folder / "experiment.yaml").write_text(dump_yaml(experiment))
        command = [sys.executable, "-m", "tuner", "train", "experiment.yaml", "-o", "model"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        model = load_model(folder / "model")
        first = len(series.values) - series.test
        score = model.predict(whole, all_windows=True).set_index("row")["y"]
        scored = score.loc[first + 1 : len(series.values)].to_numpy()  # rows count from 1
        # A longer past than the window is decomposed, and read no further than the window.
        in_use = np.array(
            [
                model.predict(table(series.values[:row]).tail(series.window))["y"].iloc[0]
                for row in range(first, len(series.values))
            ]
        )
    truth = series.values[first:]
    moved = np.abs(scored - in_use) > SAME * series.values.std()
    return rmse(truth, scored), rmse(truth, in_use), float(moved.mean())


def rmse(truth: np.ndarray, forecast: np.ndarray) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(np.mean(np.square(truth - forecast))))


if __name__ == "__main__":
    main()
