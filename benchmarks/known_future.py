"""What columns that are known ahead are worth: on a made series, and on data that ships.

The made series follows two columns of its own row, one of them not linearly, and noise of standard
deviation 1: no forecast errs by less than 1. On real data the experiments that ship are trained as
they begin, untuned, without a calendar, with that of the past, and with `known_future: []`.

    python benchmarks/known_future.py [NAME ...]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.data.baselines import Baselines, choose
from tuner.data.metrics import score
from tuner.data.prepared import check_data
from tuner.data.reference import SeriesRef
from tuner.experiment import Experiment
from tuner.jobs import PredictJob, TrainJob
from tuner.training import run_job

SEEDS = range(3)
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
MADE: dict[str, dict[str, Any]] = {
    "direct": {},
    "recursive": {"decoder": "recursive"},
    "segments": {"decoder": "segments", "segment": 2},
    "direct, linear path": {"linear_path": True},
}
SHIPPED = ("air_passengers", "us_jobs")
CALENDARS: dict[str, dict[str, Any]] = {
    "no calendar": {},
    "calendar of the past": {"data.calendar": ["month"]},
    "calendar known ahead": {"data.calendar": ["month"], "data.known_future": []},
}


def followers(path: Path, n: int = 2000) -> None:
    """Write a series that follows columns of its own row."""
    rng = np.random.default_rng(1)
    promo, price = rng.integers(0, 2, n), rng.uniform(1, 3, n)
    f = 10 + 6 * promo - 8 * np.log(price) + 4 * np.sin(3 * price) * (1 - promo)
    y = f + rng.normal(size=n)
    pd.DataFrame({"y": y, "promo": promo, "price": price}).to_csv(path, index=False)


def scores(experiment: Experiment) -> tuple[list[float], float]:
    """Return the test RMSE of a model for each seed, and that of the linear regression."""
    with tempfile.TemporaryDirectory() as folder:
        data = check_data(experiment)
        (ref,) = data.write(Path(folder) / "search").folds
        (test,) = data.write_test(Path(folder) / "test").folds
        assert isinstance(test, SeriesRef)
        samples = test.evaluate_samples()
        found = []
        for seed in SEEDS:
            job = TrainJob(
                f"seed {seed}", experiment.configuration({}), seed, experiment.budget.epochs,
                experiment.budget.patience, "rmse", (ref,), keep_weights=True,
            )  # fmt: skip
            outcome = run_job(job, lambda epoch: True)
            assert outcome.weights is not None, outcome.reason
            asked = PredictJob("test", job.hyperparameters, outcome.weights, test)
            predicted = run_job(asked, lambda epoch: True).predictions
            assert predicted is not None
            found.append(score("rmse", test.truth_of(samples), predicted, test))
        season = data.facts.season
        plain = Baselines(test, season, choose("rmse", ref, season)).scores("rmse")
    return found, plain["linear"]


def show(name: str, experiment: Experiment) -> None:
    """Print a row of the table."""
    found, linear = scores(experiment)
    mean, spread = statistics.fmean(found), statistics.stdev(found)
    print(f"| {name} | {mean:.4g} ({spread:.2g}) | {linear:.4g} |", flush=True)


def _show_made(path: Path) -> None:
    followers(path)
    raw: dict[str, Any] = {
        "name": "made",
        "data": {"path": str(path), "target": "y", "known_future": ["promo", "price"]},
        "task": {"window": 4, "horizon": 7},
        "budget": {"epochs": 60, "patience": 15},
    }
    for name, values in MADE.items():
        raw["hyperparameters"] = {"learning_rate": 0.005, **values}
        show(f"made, {name}", Experiment.model_validate(raw))
    del raw["data"]["known_future"]
    show("made, nothing known ahead", Experiment.model_validate(raw))


def main(names: list[str]) -> None:
    """Print a table: what was trained, its test RMSE, and that of the linear regression."""
    print("| | test RMSE (standard deviation) | linear regression |\n|---|---|---|", flush=True)
    if not names or "made" in names:
        with tempfile.TemporaryDirectory() as folder:
            _show_made(Path(folder) / "rows.csv")
    for name in SHIPPED:
        if names and name not in names:
            continue
        experiment = Experiment.load(EXPERIMENTS / f"{name}.yaml")
        for calendar, changes in CALENDARS.items():
            show(f"{name}, {calendar}", experiment.changed({"task.intervals": [], **changes}))


if __name__ == "__main__":
    main(sys.argv[1:])
