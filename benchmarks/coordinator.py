"""What the coordinator costs, how busy it keeps workers, and how that grows.

    python benchmarks/coordinator.py efficiency     real training: 40 trials of about 2 s, 2 workers
    python benchmarks/coordinator.py growth         10,000 simulated trials on a journal file
    python benchmarks/coordinator.py workers        200 simulated workers, 5-second trials

efficiency: seconds that the same jobs take one after another in one process, over (wall seconds
from the first dispatch to the last result x workers). Runs and sequences alternate, so that both
see the same machine; the jobs are those that the search itself drew. How long the first dispatch
waits for workers, and the efficiency from when the first of them trains, stand beside.

growth: coordinator and journal together with the strategy (random search) and Optuna, without
training: milliseconds a trial, by the clock and of the processor (what is missing waits for the
disk, whose pace varies); the last thousand trials beside the first; and memory that stays, by
the growth of this process. With each number of epochs and each pruner named.

workers: simulated time does not sleep. Trials take five seconds, or between 2.5 and 7.5 in a way
that nobody can foresee. Busy is the time that the workers trained over the time
that they were there, from the first dispatch to the last result.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SPACE = {
    "hidden_size": {"type": "int", "low": 8, "high": 128, "log": True},
    "num_layers": {"type": "int", "low": 1, "high": 3},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "batch_size": {"type": "categorical", "choices": [8, 16, 32, 64]},
}
console = Console(width=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("efficiency")
    one.add_argument("--trials", type=int, default=40)
    one.add_argument("--workers", type=int, default=2)
    one.add_argument("--repeats", type=int, default=2)
    one.add_argument("--epochs", type=int, default=24, help="so that a trial takes about 2 s")
    one = commands.add_parser("growth")
    one.add_argument("--trials", type=int, default=10_000)
    one.add_argument("--epochs", type=int, nargs="+", default=[1, 10])
    one.add_argument("--pruners", nargs="+", default=["none"])
    one.add_argument("--journal", help="URL of a database, for example PostgreSQL's")
    one.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    one = commands.add_parser("workers")
    one.add_argument("--workers", type=int, default=200)
    one.add_argument("--population", type=int, default=400)
    one.add_argument("--trials", type=int, default=2000)
    options = parser.parse_args()
    {"efficiency": efficiency, "growth": growth, "workers": workers}[options.command](options)


# Real training


def efficiency(options: argparse.Namespace) -> None:
    table = Table(title="Efficiency", title_justify="left")
    headings = ("mode", "alone s", "s a trial", "wall s", "workers", "efficiency", "target")
    for heading in (*headings, "start s", "after it"):
        table.add_column(heading, justify="left" if heading == "mode" else "right")
    for asynchronous, target in ((False, 0.95), (True, 0.97)):
        found = [busy(options, asynchronous) for _ in range(options.repeats)]
        for alone_s, wall_s, start_s in found:
            table.add_row(
                "asynchronous" if asynchronous else "repeatable",
                f"{alone_s:.1f}",
                f"{alone_s / options.trials:.2f}",
                f"{wall_s:.1f}",
                str(options.workers),
                f"{alone_s / (wall_s * options.workers):.3f}",
                f">= {target}",
                f"{start_s:.1f}",
                f"{alone_s / ((wall_s - start_s) * options.workers):.3f}",
            )
    console.print(table)


def busy(options: argparse.Namespace, asynchronous: bool) -> tuple[float, float, float]:
    """Search, and do the same jobs in one process.

    Returns:
        Seconds alone; wall seconds of the search, and of these until a worker trains.
    """
    from tuner.coordination.coordinator import Observer
    from tuner.data.prepared import prepare
    from tuner.jobs import train_job
    from tuner.journal.storage import Role
    from tuner.orchestrator import SearchOptions, search
    from tuner.strategies.rng import training_seed
    from tuner.template import workers_expected

    class Moments(Observer):
        def __init__(self) -> None:
            self.dispatches: list[float] = []
            self.results: list[float] = []
            self.trains = math.inf

        def dispatched(self, key, cost: float) -> None:
            self.dispatches.append(time.perf_counter())

        def finished(self, key, outcome, earlier=False) -> None:
            self.results.append(time.perf_counter())
            self.trains = min(self.trains, self.results[-1] - outcome.seconds)

    with tempfile.TemporaryDirectory() as folder:
        experiment = two_second_trials(Path(folder), options, asynchronous)
        moments = Moments()
        with workers_expected():  # as `tuner run` does
            record = search(
                experiment,
                SearchOptions(
                    "s", str(Path(folder) / "s.journal"), workers=options.workers, open_test=False
                ),
                [moments],
            )
        data = prepare(experiment, Path(folder) / "alone")
        jobs = [
            train_job(
                experiment,
                data.folds,
                f"trial {trial.number}",
                dict(trial.params),
                training_seed(experiment.seed, Role.TRIAL, trial.number),
            )
            for trial in record.trained
        ]
        assert len(jobs) == options.trials
        begun = moments.dispatches[0]
        return one_after_another(jobs), moments.results[-1] - begun, moments.trains - begun


def two_second_trials(folder: Path, options: argparse.Namespace, asynchronous: bool) -> Any:
    from tuner.experiment import Experiment

    rng = np.random.default_rng(0)
    rows = np.sin(np.arange(3000) / 7) + rng.normal(0, 0.1, 3000)
    data = folder / "series.csv"
    data.write_text("y\n" + "\n".join(f"{value:.5f}" for value in rows))
    return Experiment.model_validate(
        {
            "name": "busy",
            "data": {"path": str(data), "target": "y"},
            "task": {"window": 24},
            "search_space": {
                "hidden_size": {"type": "int", "low": 12, "high": 48, "log": True},
                "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
                "batch_size": {"type": "int", "low": 24, "high": 64},
            },
            "strategy": {"name": "pso", "population": 10},
            "budget": {"trials": options.trials, "epochs": options.epochs, "patience": 1000},
            "pruner": {"name": "none"},
            "finalists": {"top": 0},
            "training": {"execution": "single"},  # as the jobs alone: these are workers' times
            "asynchronous": asynchronous,
        }
    )


def one_after_another(jobs: list[Any]) -> float:
    """Return the seconds that jobs take in one process that has loaded all that it needs."""
    from tuner.executors import Finished, LocalExecutor

    executor = LocalExecutor(1)
    warm = jobs[0]
    seconds, left = [], [warm, *jobs]
    try:
        for job in left:
            executor.submit(job)
            ended = False
            while not ended:
                for event in executor.poll(1.0):
                    if isinstance(event, Finished):
                        seconds.append(event.outcome.seconds)
                        ended = True
    finally:
        executor.close()
    return sum(seconds[1:])


# Simulated training


class Curves:
    """A landscape without end: every configuration has a curve of its own."""

    names = tuple(SPACE)

    def __init__(self, n_epochs: int, spread: float) -> None:
        """Take 5 s a training, or up to `spread` of it less or more."""
        self._n_epochs, self._spread = n_epochs, spread

    def recordings(self, hyperparameters: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what training comes to."""
        from simulated import Recording

        h = hyperparameters
        level = abs(math.log2(h["hidden_size"]) - 5) + 3 * h["dropout"] + h["batch_size"] / 64
        curve = tuple(level + 2 / (1 + epoch) for epoch in range(self._n_epochs))
        rng = random.Random(json.dumps([h[name] for name in self.names]))
        return (Recording(curve, 5 * rng.uniform(1 - self._spread, 1 + self._spread)),)


def simulated_search(
    folder: str,
    *,
    trials: int,
    epochs: int,
    n_workers: int,
    strategy: dict[str, Any],
    pruner: str = "none",
    asynchronous: bool = False,
    spread: float = 0.0,
    journal: str | None = None,
    observer: Any = None,
) -> Any:
    """Run the coordinator on a simulated executor; returns that executor."""
    import optuna
    from simulated import SimulatedExecutor

    from tuner.coordination.coordinator import (
        AsynchronousCoordinator,
        Coordinator,
        Limits,
        Observer,
    )
    from tuner.coordination.opening import StudyData, open_study
    from tuner.coordination.pruning import make_pruner
    from tuner.data import SeriesRef, Shape
    from tuner.experiment import Experiment
    from tuner.experiment.space import to_distributions
    from tuner.jobs import train_job
    from tuner.journal.storage import Role, write_journal
    from tuner.strategies.rng import training_seed

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    experiment = Experiment.model_validate(
        {
            "name": "simulated",
            "data": {"path": "/data.csv", "target": "y"},
            "search_space": SPACE,
            "strategy": strategy,
            "budget": {"trials": trials, "epochs": epochs},
            "pruner": {"name": pruner},
            "asynchronous": asynchronous,
        }
    )
    ref = SeriesRef("/nowhere", Shape("forecast", 1))
    facts = {"path": "/data.csv", "sha256": "0" * 64, "rows": 100}
    location = journal or str(Path(folder) / "s.journal")
    distributions = to_distributions(experiment.search_space)

    def make_job(trial: Any) -> Any:
        return train_job(
            experiment,
            (ref,),
            f"trial {trial.number}",
            trial.params,
            training_seed(experiment.seed, Role.TRIAL, trial.number),
            can_be_pruned=pruner != "none",
        )

    name = f"s{os.getpid()}"
    with write_journal(location) as storage:
        study = open_study(storage, location, name, experiment, StudyData(facts))
        executor = SimulatedExecutor(Curves(epochs, spread), n_workers)
        kind = AsynchronousCoordinator if asynchronous else Coordinator
        kind(
            study,
            distributions,
            experiment.strategy.rhythm,
            executor,
            make_job,
            Limits(trials),
            pruner=make_pruner(experiment.pruner, epochs),
            observer=observer or Observer(),
        ).run()
    return executor


def growth(options: argparse.Namespace) -> None:
    if options.one:
        found = grow(options.trials, options.epochs[0], options.pruners[0], options.journal)
        print(json.dumps(found))
        return
    table = Table(title=f"{options.trials} simulated trials", title_justify="left")
    headings = ("pruner", "epochs", "ms", "allowed", "CPU ms", "first", "last", "ratio")
    for heading in (*headings, "of CPU", "allowed", "KB", "allowed"):
        table.add_column(heading, justify="left" if heading == "pruner" else "right")
    for pruner in options.pruners:
        for epochs in options.epochs:
            arguments = ["growth", "--one", "--trials", str(options.trials)]
            arguments += ["--epochs", str(epochs), "--pruners", pruner]
            arguments += ["--journal", options.journal] if options.journal else []
            found = json.loads(
                subprocess.run(
                    [sys.executable, __file__, *arguments],
                    stdout=subprocess.PIPE,
                    check=True,
                    text=True,
                ).stdout
            )
            table.add_row(
                pruner,
                str(epochs),
                f"{found['ms']:.2f}",
                f"{8 + 0.3 * found['reported']:.1f}",
                f"{found['cpu_ms']:.2f}",
                f"{found['first_ms']:.2f}",
                f"{found['last_ms']:.2f}",
                f"{found['last_ms'] / found['first_ms']:.2f}",
                f"{found['cpu_ratio']:.2f}",
                "1.5",
                f"{found['kb']:.1f}",
                "20",
            )
    console.print(table)


def grow(trials: int, epochs: int, pruner: str, journal: str | None) -> dict[str, float]:
    """Search once; strategy and executor are stopped out of the time."""
    import psutil
    from simulated import SimulatedExecutor

    from tuner.coordination.coordinator import Observer

    aside = np.zeros(2)

    def now() -> Any:
        return np.array([time.perf_counter(), time.process_time()])

    def stopped(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal aside
            begun = now()
            try:
                return function(*args, **kwargs)
            finally:
                aside = aside + now() - begun

        return call

    for name in ("submit", "poll", "answer"):
        setattr(SimulatedExecutor, name, stopped(getattr(SimulatedExecutor, name)))
    part = min(1000, trials // 2)

    class Clock(Observer):
        def __init__(self) -> None:
            self.moments: list[Any] = []
            self.memory: list[int] = []
            self.reported = 0

        def epoch(self, key, epoch: Any) -> None:
            self.reported += 1

        def finished(self, key, outcome, earlier=False) -> None:
            self.moments.append(now() - aside)
            if len(self.moments) in (part, trials):
                gc.collect()
                self.memory.append(psutil.Process().memory_info().rss)

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        begun = now()
        simulated_search(
            folder,
            trials=trials,
            epochs=epochs,
            n_workers=2,
            strategy={"name": "random", "batch": 10},
            pruner=pruner,
            journal=journal,
            observer=clock,
        )
    moments = clock.moments
    whole = 1000 * (moments[-1] - begun) / trials
    first = 1000 * (moments[part - 1] - begun) / part
    last = 1000 * (moments[-1] - moments[-part - 1]) / part
    return {
        "ms": whole[0],
        "cpu_ms": whole[1],
        "first_ms": first[0],
        "last_ms": last[0],
        "cpu_ratio": last[1] / first[1],
        "reported": clock.reported / trials,
        "kb": (clock.memory[-1] - clock.memory[0]) / 1024 / (trials - part),
    }


def workers(options: argparse.Namespace) -> None:
    from tuner.coordination.coordinator import Observer

    class Trained(Observer):
        def __init__(self) -> None:
            self.seconds = 0.0

        def finished(self, key, outcome, earlier=False) -> None:
            self.seconds += outcome.seconds

    table = Table(title="Simulated workers", title_justify="left")
    headings = ("mode", "workers", "population", "trials", "seconds each", "simulated s", "busy")
    for heading in (*headings, "target"):
        table.add_column(heading, justify="left" if heading == "mode" else "right")
    for spread in (0.0, 0.5):
        for asynchronous in (False, True):
            trained = Trained()
            with tempfile.TemporaryDirectory() as folder:
                executor = simulated_search(
                    folder,
                    trials=options.trials,
                    epochs=10,
                    n_workers=options.workers,
                    strategy={"name": "pso", "population": options.population},
                    asynchronous=asynchronous,
                    spread=spread,
                    observer=trained,
                )
            table.add_row(
                "asynchronous" if asynchronous else "repeatable",
                str(options.workers),
                str(options.population),
                str(options.trials),
                f"{5 - 5 * spread:g} to {5 + 5 * spread:g}" if spread else "5",
                f"{executor.now:.1f}",
                f"{trained.seconds / executor.now / options.workers:.3f}",
                "" if spread else ">= 0.9",
            )
    console.print(table)


if __name__ == "__main__":
    main()
