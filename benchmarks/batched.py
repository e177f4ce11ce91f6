"""Trainings as one batched model against the same ones alone.

For every width, size of batches and number of members: an epoch of the members alone, and one of
the group, on air passengers (window 25). Both take turns on one thread, and medians of their
processor time count, so that a busy machine slows them alike. Then a generation of a swarm:
configurations drawn from `search_spaces/forecast.yaml` are trained as the experiment of air
passengers says, with early stopping, alone and in the groups that `tuner.batching` forms on a CPU.

    python benchmarks/batched.py [--rounds 9] [--swarm 20] [--seeds 3]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tuner.batching import groups_of
from tuner.data.prepared import Prepared, prepare
from tuner.experiment import Experiment
from tuner.jobs import TrainJob, train_job
from tuner.training import train, train_group, warm_up
from tuner.training.batched import Group
from tuner.training.group_member import Member
from tuner.training.samples import Split

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
WIDTHS, BATCHES, MEMBERS = (4, 8, 16, 32, 64), (8, 16, 32), (3, 5, 10, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--swarm", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warm_up()
    experiment = Experiment.load(ROOT / "experiments/air_passengers.yaml")
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(experiment, Path(folder))
        table = Table(
            title="Epochs of members alone over epochs of the group", title_justify="left"
        )
        table.add_column("units, batch")
        for n in MEMBERS:
            table.add_column(f"{n} members", justify="right")
        for units in WIDTHS:
            for size in BATCHES:
                found = [ratio(experiment, prepared, units, size, n, options) for n in MEMBERS]
                table.add_row(f"{units}, {size}", *(f"{r:.2f}" for r in found))
        console.print(table)
        ratios = []
        for seed in range(options.seeds):
            jobs = swarm(experiment, prepared, options.swarm, seed)
            ratios.append(generation(groups_of(jobs, gpu=False)))
        shown = ", ".join(f"{r:.2f}" for r in ratios)
        console.print(f"A generation of {options.swarm}, trials a second: {shown}")
        console.print(f"Median: {statistics.median(ratios):.2f} (target 1.50)")


def ratio(
    experiment: Experiment,
    prepared: Prepared,
    units: int,
    size: int,
    n: int,
    options: argparse.Namespace,
) -> float:
    """Return how many times longer an epoch of members alone takes than one of the group."""
    own = {"hidden_size": units, "batch_size": size, "dropout": 0.2, "normalize": "last"}
    folds = prepared.of(own).folds
    jobs = [train_job(experiment, folds, str(at), own, seed=at) for at in range(n)]
    alone, together = [Member(job) for job in jobs], [Member(job) for job in jobs]
    opened = Split(folds[0].with_window(alone[0].parameters.window), CPU)
    for member in (*alone, *together):
        member.prepare(CPU, opened)
    group = Group(together, CPU)

    def each() -> None:
        for member in alone:
            member.fit.train_epoch()
            member.fit.evaluate()

    def batched() -> None:
        group.train_epoch()
        score = group.evaluate()
        for at in range(n):
            score(at)

    times: dict[Callable[[], None], list[float]] = {each: [], batched: []}
    for r in range(options.rounds + 1):
        for function in (each, batched) if r % 2 else (batched, each):
            begun = time.thread_time()
            function()
            if r:  # the first ones allocate
                times[function].append(time.thread_time() - begun)
    return statistics.median(times[each]) / statistics.median(times[batched])


def swarm(experiment: Experiment, prepared: Prepared, n: int, seed: int) -> list[TrainJob]:
    """Return the trainings of a generation: configurations drawn from the experiment's space."""
    rng = np.random.default_rng(seed)
    jobs = []
    for at in range(n):
        params = {
            "normalize": str(rng.choice(["none", "last", "mean", "standard"])),
            "hidden_size": round(float(np.exp(rng.uniform(np.log(4), np.log(32))))),
            "dropout": float(rng.uniform(0, 0.5)),
            "learning_rate": float(np.exp(rng.uniform(np.log(3e-4), np.log(5e-3)))),
            "batch_size": int(rng.choice([8, 16, 32])),
        }
        folds = prepared.of(params).folds
        jobs.append(train_job(experiment, folds, str(at), params, seed=at))
    return jobs


def generation(groups: Sequence[tuple[TrainJob, ...]]) -> float:
    """Return how many times longer the members of all groups take alone than together.

    Every group is timed in both orders, after the first one has been trained both ways untimed.
    """

    def alone(group: tuple[TrainJob, ...]) -> None:
        for job in group:
            train(job, lambda epoch: True)

    def together(group: tuple[TrainJob, ...]) -> None:
        if len(group) == 1:
            train(group[0], lambda epoch: True)
        else:
            train_group(group, lambda epochs: [True] * len(epochs))

    alone(groups[0])
    together(groups[0])
    seconds = {alone: 0.0, together: 0.0}
    for group in groups:
        for way in (alone, together, together, alone):
            begun = time.thread_time()
            way(group)
            seconds[way] += time.thread_time() - begun
    return seconds[alone] / seconds[together]


if __name__ == "__main__":
    main()
