"""The jobs that every peer gets: rows, windows, space and steps, and how a peer answers.

Nothing but numpy and the standard library, as every environment has them. A peer is a script that
is called with the arguments of `arguments`, and whose last line on standard output is what
`answer` prints.

| job | rows | model | trials x epochs |
|---|---|---|---|
| `small` | air passengers, 12 months to the next one | 4 to 32 units | 40 x 50 |
| `quality` | the same | the same | the same |
| `large` | ETTh1's seven columns, 96 hours to the next 96 | 64 units | 10 x 4 |
| `overhead` | none: an epoch trains nothing | none | 1,000 x 20, of slow peers fewer |

The batch size is fixed, and in `large` the width too, so that a trial has the same steps whatever
a sampler proposes. All models are one LSTM layer, dropout and a linear layer for the whole horizon,
trained with Adam on the squared error of values scaled by the training rows, with gradients of a
norm of 1 at most. The first trial has our default configuration, and the training of trial k has
the run's seed plus k, wherever a peer can be told so; ours derives its own. The score of a trial
is its best epoch's RMSE on the validation rows: the mean over the columns, in units of the file.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

CLIP = 1.0  # the largest norm of a gradient, as ours has it by default
BEGUN = "begun"  # a file with as many bytes as trainings that have begun
BEGAN = "PEER_BEGAN"  # the environment variable with the time at which the peer was started


@dataclass(frozen=True)
class Range:
    """The range of a number, ends included."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def at(self, share: float) -> float | int:
        """Return the value at a place of the range from 0 to 1."""
        share = min(1.0, max(0.0, share))
        low, high = (self.low, self.high) if not self.log else map(math.log, (self.low, self.high))
        value = low + share * (high - low)
        value = min(self.high, max(self.low, math.exp(value) if self.log else value))
        return round(value) if self.whole else value

    def share(self, value: float) -> float:
        """Return the place of a value in the range, from 0 to 1: `at` gives the value again."""
        scale = math.log if self.log else float
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))


@dataclass(frozen=True)
class Job:
    """What is to be searched, by every peer alike."""

    name: str
    columns: tuple[str, ...] = ()
    time: str = ""  # the column of times
    window: int = 1
    horizon: int = 1
    validation: int = 0  # rows
    test: int = 0  # rows after those, which nobody reads
    trials: int = 1
    epochs: int = 1
    batch_size: int = 1
    space: Mapping[str, Range] = field(default_factory=dict)
    fixed: Mapping[str, float | int] = field(default_factory=dict)
    start: Mapping[str, float | int] = field(default_factory=dict)  # what is trained first

    def train_windows(self, rows: int) -> int:
        """Return how many windows have all of their targets among the training rows."""
        return rows - self.validation - self.test - self.window - self.horizon + 1

    def steps(self, rows: int) -> int:
        """Return the training steps of a trial on a file with so many rows."""
        return self.epochs * math.ceil(self.train_windows(rows) / self.batch_size)


_SMALL = Job(
    "small",
    columns=("passengers",),
    time="month",
    window=12,
    horizon=1,
    validation=29,
    test=22,
    trials=40,
    epochs=50,
    batch_size=16,
    space={
        "hidden_size": Range(4, 32, log=True, whole=True),
        "dropout": Range(0.0, 0.5),
        "learning_rate": Range(0.0003, 0.01, log=True),
    },
    start={"hidden_size": 32, "dropout": 0.0, "learning_rate": 0.001},
)
JOBS = {
    "small": _SMALL,
    "quality": replace(_SMALL, name="quality"),
    "large": Job(
        "large",
        columns=("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"),
        time="date",
        window=96,
        horizon=96,
        validation=2880,
        test=2880,
        trials=10,
        epochs=4,
        batch_size=128,
        space={"dropout": Range(0.0, 0.5), "learning_rate": Range(0.0003, 0.01, log=True)},
        fixed={"hidden_size": 64},
        start={"dropout": 0.0, "learning_rate": 0.001},
    ),
    "overhead": Job("overhead", trials=1000, epochs=20, space={"x": Range(0.0, 1.0)}),
}
ETTH1_ROWS = 14_400  # twenty months, as others use it
QUICK = {  # trials and epochs that a test has time for
    "small": (4, 2),
    "quality": (4, 2),
    "large": (2, 1),
    "overhead": (4, 2),
}


def job_of(name: str, quick: bool = False) -> Job:
    """Return a job, at the size of a test if it is to be `quick`."""
    job = JOBS[name]
    if not quick:
        return job
    trials, epochs = QUICK[name]
    return replace(job, trials=trials, epochs=epochs)


def write_rows(name: str, source: Path, file: Path) -> int:
    """Write the rows of a job, and return how many they are.

    ETTh1 is cut as others cut it, and each column is scaled by its training rows, so that the mean
    over the columns is not that of the largest one.
    """
    job = JOBS[name]
    if name != "large":
        file.write_bytes(source.read_bytes())
        return len(source.read_text().splitlines()) - 1
    with source.open(newline="") as opened:
        lines = list(csv.DictReader(opened))[:ETTH1_ROWS]
    values = np.array([[float(line[c]) for c in job.columns] for line in lines])
    train = values[: len(values) - job.validation - job.test]
    values = (values - train.mean(axis=0)) / train.std(axis=0)
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow([job.time, *job.columns])
        for line, row in zip(lines, values, strict=True):
            writer.writerow([line[job.time], *(f"{value:.6f}" for value in row)])
    return len(lines)


@dataclass(frozen=True)
class Windows:
    """Scaled windows: x (n, window, columns), y (n, horizon, columns), float32.

    `scale`, (columns,), is what an error of 1 is in units of the file.
    """

    x: np.ndarray
    y: np.ndarray
    val_x: np.ndarray
    val_y: np.ndarray
    scale: np.ndarray

    def rmse(self, squared: np.ndarray) -> float:
        """Return the score, given the mean squared error of each column."""
        return float(np.mean(np.sqrt(squared) * self.scale))


def read_windows(job: Job, file: Path) -> Windows:
    """Return all windows of a job's file, as tutorials make them."""
    with file.open(newline="") as opened:
        lines = list(csv.DictReader(opened))
    values = np.array([[float(line[c]) for c in job.columns] for line in lines])
    begins = len(values) - job.validation - job.test  # of the validation rows
    mean, scale = values[:begins].mean(axis=0), values[:begins].std(axis=0)
    scaled = ((values - mean) / scale).astype(np.float32)

    def cut(first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        starts = range(first - job.window, end - job.window - job.horizon + 1)
        x = np.stack([scaled[k : k + job.window] for k in starts])
        y = np.stack([scaled[k + job.window : k + job.window + job.horizon] for k in starts])
        return x, y

    train, validation = cut(job.window, begins), cut(begins, begins + job.validation)
    return Windows(*train, *validation, scale)


def next_number(folder: Path) -> int:
    """Return how many trainings of a folder began before this one; no two get the same number."""
    file = os.open(folder / BEGUN, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, b".")
        return os.lseek(file, 0, os.SEEK_CUR) - 1  # where its own byte is
    finally:
        os.close(file)


def arguments(description: str | None, *variants: str) -> tuple[Job, argparse.Namespace]:
    """Return the job and the options that a peer is called with."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--job", choices=list(JOBS), required=True)
    parser.add_argument("--file", type=Path, help="rows, as `write_rows` writes them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, help="default: those of the job")
    parser.add_argument("--quick", action="store_true", help="the size of a test")
    if variants:
        parser.add_argument("--variant", choices=variants, default=variants[0])
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)  # how a script starts itself
    options = parser.parse_args()
    job = job_of(options.job, options.quick)
    if options.trials is not None:
        job = replace(job, trials=options.trials)
    return job, options


def answer(curve: Iterable[tuple[float, float]], packages: Iterable[str], **others: Any) -> None:
    """Print what a peer found.

    Args:
        curve: for each trial when it ended, in seconds since 1970, and its score.
        packages: those whose versions matter.
        others: `trials`, `steps` of all trials, and what else there is to know.
    """
    from importlib.metadata import version

    began = float(os.environ.get(BEGAN, time.time()))
    points = sorted((round(ended - began, 3), score) for ended, score in curve)
    scores = [score for _, score in points if math.isfinite(score)]
    versions = {name: version(name) for name in packages}
    found = {"score": min(scores, default=None), "curve": points, "versions": versions, **others}
    sys.stdout.flush()
    print(json.dumps(found), flush=True)
