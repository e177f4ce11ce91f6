"""What training on the validation part too does to the error on the test part.

Each example is trained as a search trains it: on the training part, kept at its best epoch. Then
on both parts, without a score to stop by, for as many epochs, and for as many steps of the
optimizer, which are fewer epochs. All three are scored on the test part, and the means over the
seeds are printed. No choice of hyperparameters rests on that.

    python benchmarks/all_data.py [--seeds 10]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tuner.data import DataRef
from tuner.data.metrics import score
from tuner.data.prepared import check_data, prepare
from tuner.experiment import Experiment, Override
from tuner.jobs import PredictJob, TrainJob, train_job
from tuner.training import predict, train

EXAMPLES = Path(__file__).resolve().parents[1] / "experiments"
CASES = {
    "air_passengers": {"hyperparameters.hidden_size": 64},
    "air_passengers, small": {"hyperparameters.hidden_size": 16, "budget.epochs": 300},
    "sunspots": {},
    "names": {"objective.metric": "cross_entropy", "budget.epochs": 20},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    n_seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    table = Table(
        "example", "metric", "best epoch", "as searched", "as many epochs", "as many steps"
    )
    for case, changes in CASES.items():
        path = EXAMPLES / f"{case.partition(',')[0]}.yaml"
        experiment = Experiment.load(path, [Override(k, v, "") for k, v in changes.items()])
        found = list(zip(*measure(experiment, n_seeds), strict=True))
        epochs, *errors = found
        median = f"{statistics.median(epochs):g}"
        means = [f"{statistics.fmean(e):.4g}" for e in errors]
        table.add_row(case, experiment.objective.metric, median, *means)
    Console(width=100).print(table)


def measure(experiment: Experiment, n_seeds: int) -> list[tuple[float, ...]]:
    """Return of every seed the best epoch and three errors on the test part."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        part, part_test = prepared(experiment, folder / "part", all_data=False)
        both, both_test = prepared(experiment, folder / "both", all_data=True)
        share = len(part.train_samples()) / len(both.train_samples())
        found: list[tuple[float, ...]] = []
        for seed in range(n_seeds):
            job = train_job(experiment, (part,), "searched", {}, seed, keep_weights=True)
            epochs, searched = trained(job, part_test)
            changes = {"folds": (both,), "schedule_epochs": job.epochs, "validates": False}
            job = dataclasses.replace(job, **changes)
            errors = [
                trained(dataclasses.replace(job, epochs=n), both_test)[1]
                for n in (epochs, max(1, round(epochs * share)))
            ]
            found.append((epochs, searched, *errors))
        return found


def prepared(experiment: Experiment, folder: Path, *, all_data: bool) -> tuple[DataRef, DataRef]:
    """Return what is trained on, and the test part scaled alike."""
    test = check_data(experiment, all_data=all_data).write_test(folder / "test")
    return prepare(experiment, folder, all_data=all_data).folds[-1], test.folds[-1]


def trained(job: TrainJob, test: DataRef) -> tuple[int, float]:
    """Return after how many epochs the model is kept, and its error on the test part."""
    outcome = train(job, lambda epoch: True)
    assert outcome.weights is not None
    assert outcome.best_epoch is not None
    asked = PredictJob("test", job.hyperparameters, outcome.weights, test)
    predicted = predict(asked).predictions
    assert predicted is not None
    truth = test.truth_of(test.evaluate_samples())
    return outcome.best_epoch + 1, score(job.metric, truth, predicted, test)


if __name__ == "__main__":
    main()
