"""What each pruner saves, and what it costs in regret, on recorded training.

Every strategy searches both landscapes (see record_landscapes.py) with every pruner, through the
coordinator, each trial compared with those that had been told when it was asked. Nothing trains:
epochs and seconds are the recorded ones, so a seed gives the same figures on every machine.

    epochs, seconds   of the first 40 trials, as a share of those without a pruner
    winner            regret of the configuration that looks best after one training each: its
                      mean over the recorded seeds, over the least such mean of the landscape
    finalists         the same of the best of three finalists, judged by that mean
    at equal time     the same where searches go on until 40 average trainings' time is used
    capped            share of the searches that end before, after the most trials of a search

Regrets are medians over seeds; differences to no pruner are means over pairs of equal seeds.
Intervals hold 95 % of a bootstrap over seeds.

    python benchmarks/pruning.py [--seeds 100] [--strategies tpe pso] [--keep FILE]

With --keep FILE results are added to those which FILE holds from before: an interrupted run goes
on, and more seeds join earlier ones.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from learning_curve import LearningCurvePruner
from optuna.pruners import BasePruner
from pydantic import TypeAdapter
from regret import LANDSCAPES, ROOT, be_quiet_and_alone, options_of
from rich.progress import track
from simulated import Landscape, SimulatedExecutor

from tuner.coordination.coordinator import Coordinator, Limits, Observer
from tuner.coordination.pruning import make_pruner
from tuner.data import SeriesRef, Shape
from tuner.experiment import Experiment, Override, space_size
from tuner.experiment.schema import Pruner
from tuner.experiment.space import to_distributions
from tuner.jobs import Outcome, TrainJob, train_job
from tuner.journal.storage import OUTCOME_ATTR, REPEAT_ATTR, Role
from tuner.strategies.rng import training_seed

TRIALS, EPOCHS = 40, 60
MOST_TRIALS = 300  # of a search at equal time; `capped` of the tables is the share that needs more
FINALISTS = 3
STRATEGIES = ("random", "tpe", "pso", "woa")
NONE = "none"


def _options(name: str, *values: float) -> dict[str, Any]:
    keys = {
        "median": ("n_startup_trials", "n_warmup_steps"),
        "percentile": ("percentile", "n_startup_trials", "n_warmup_steps"),
        "successive_halving": ("min_resource", "reduction_factor"),
        "hyperband": ("min_resource", "reduction_factor"),
        "patient": ("patience",),
    }
    return {"name": name, **dict(zip(keys.get(name, ()), values, strict=True))}


PRUNERS: dict[str, dict[str, Any] | BasePruner] = {
    NONE: _options(NONE),
    "median 10, 10": _options("median", 10, 10),
    "median 5, 5": _options("median", 5, 5),
    "median 4, 2": _options("median", 4, 2),
    "percentile 60, 5, 3": _options("percentile", 60.0, 5, 3),
    "percentile 70, 5, 3": _options("percentile", 70.0, 5, 3),
    "successive_halving 1, 4": _options("successive_halving", 1, 4),
    "successive_halving 10, 2": _options("successive_halving", 10, 2),
    "hyperband 1, 3": _options("hyperband", 1, 3),
    "hyperband 10, 2": _options("hyperband", 10, 2),
    "patient 5": _options("patient", 5),
    "learning curve 0.05, 0.25": LearningCurvePruner(quantile=0.05, bar=0.25),
    "learning curve 0.2, 0.5": LearningCurvePruner(quantile=0.2, bar=0.5),
}
"""By name and settings: trials and epochs that are spared (of `percentile` after the percentile);
or the first decision and the factor; or patience; or quantile and bar. The first learning-curve
rule was the best of nine on air passengers, the second on sunspots, both under random search."""

_REF = SeriesRef("", Shape("forecast", 1))
_RESAMPLES = 2000


@dataclass(frozen=True)
class Task:
    """One search."""

    problem: str
    strategy: str
    pruner: str
    seed: int

    @property
    def key(self) -> str:
        """What it is kept under."""
        return "|".join((self.problem, self.strategy, self.pruner, str(self.seed)))


@dataclass(frozen=True)
class Trained:
    """One trial."""

    regret: float  # of its configuration
    value: float | None  # of its training; None where it was pruned
    epochs: int
    seconds: float


class Spent(Observer):
    """Counts what a search has trained."""

    def __init__(self) -> None:
        self.trials, self.seconds = 0, 0.0

    def finished(self, key: Any, outcome: Outcome, earlier: bool = False) -> None:
        """Add a trial."""
        self.trials, self.seconds = self.trials + 1, self.seconds + outcome.seconds


def search(task: Task) -> list[Trained]:
    """Search as `tuner run` does, until 40 trials have ended and the equal time is used.

    Schedules span 40 trials, as in a search for so many, and begin anew after them, as they do in
    a study that is extended.
    """
    landscape, experiment = load(task.problem)
    strategy, distributions = options_of(task.strategy), to_distributions(experiment.search_space)
    study = optuna.create_study(
        sampler=strategy.make_sampler(distributions, task.seed, TRIALS),
        storage=optuna.storages.InMemoryStorage(),
    )
    study.enqueue_trial(experiment.start())
    prunes = task.pruner != NONE

    def make_job(trial: optuna.Trial) -> TrainJob:
        seed = training_seed(task.seed, Role.TRIAL, trial.number)
        key = str(trial.number)
        return train_job(experiment, (_REF,), key, trial.params, seed, can_be_pruned=prunes)

    spent, time = Spent(), equal_time(landscape)
    Coordinator(
        study,
        distributions,
        strategy.rhythm,
        SimulatedExecutor(landscape, n_workers=strategy.rhythm.size),
        make_job,
        Limits(
            MOST_TRIALS,
            n_configurations=space_size(experiment.search_space),
            out_of_time=lambda: spent.trials >= TRIALS and spent.seconds >= time,
        ),
        seed=task.seed,
        pruner=pruner_of(task.pruner),
        observer=spent,
    ).run()
    trained = []
    least = min(map(mean, landscape.all_recordings()))
    for trial in study.get_trials(deepcopy=False):
        if REPEAT_ATTR not in trial.user_attrs and trial.user_attrs.get(OUTCOME_ATTR):
            outcome = Outcome.from_json(trial.user_attrs[OUTCOME_ATTR])
            regret = mean(landscape.recordings(trial.params)) - least
            value, epochs = outcome.objective, len(outcome.history)
            trained.append(Trained(regret, value, epochs, outcome.seconds))
    return trained


def figures(trained: Sequence[Trained], time: float) -> dict[str, float]:
    """Return the figures of one search; `time` is the equal time, in seconds."""
    ended = np.cumsum([t.seconds for t in trained])
    n_timely = max(1, int((ended <= time).sum()))
    found = {
        "epochs": float(sum(t.epochs for t in trained[:TRIALS])),
        "seconds": float(ended[TRIALS - 1]),
        "timely": float(n_timely),
        "capped": float(ended[-1] < time),
    }
    for when, part in {"": trained[:TRIALS], " timely": trained[:n_timely]}.items():
        complete = [t for t in part if t.value is not None]
        ranked = sorted(complete, key=lambda t: t.value or 0.0)
        found[f"winner{when}"] = ranked[0].regret
        found[f"finalists{when}"] = min(t.regret for t in ranked[:FINALISTS])
    return found


def run(task: Task) -> tuple[str, dict[str, float]]:
    """Search, and return the task's key with its figures."""
    return task.key, figures(search(task), equal_time(load(task.problem)[0]))


@functools.cache
def load(name: str) -> tuple[Landscape, Experiment]:
    """Return a landscape, and the experiment that searches it."""
    space = str(ROOT / "search_spaces" / "lstm_grid.yaml")
    changes = {"search_space": space, "budget.trials": TRIALS, "budget.epochs": EPOCHS}
    experiment = Experiment.load(
        ROOT / "experiments" / f"{name}.yaml",
        [Override(key, value, "BENCHMARK") for key, value in changes.items()],
    )
    return Landscape.load(Path(__file__).parent / "landscapes" / f"{name}.parquet"), experiment


@functools.cache
def equal_time(landscape: Landscape) -> float:
    """Return how many seconds 40 trainings of the landscape take on average."""
    recordings = [r for of_one in landscape.all_recordings() for r in of_one]
    return TRIALS * math.fsum(r.seconds for r in recordings) / len(recordings)


def pruner_of(name: str) -> BasePruner:
    """Return a pruner by its name in the tables."""
    options = PRUNERS[name]
    if isinstance(options, BasePruner):
        return options
    return make_pruner(TypeAdapter(Pruner).validate_python(options), EPOCHS)


def mean(recordings: Iterable[Any]) -> float:
    """Return the mean of the best values of a configuration's recordings."""
    return float(np.mean([min(recording.curve) for recording in recordings]))


def tasks(strategies: Sequence[str], pruners: Sequence[str], n_seeds: int) -> list[Task]:
    """Return every search, seed after seed, so that an interrupted run has all of them."""
    return [
        Task(problem, strategy, pruner, seed)
        for seed in range(n_seeds)
        for problem in LANDSCAPES
        for strategy in strategies
        for pruner in pruners
    ]


def start_worker() -> None:
    """Prepare a process that searches."""
    warnings.simplefilter("ignore")
    be_quiet_and_alone()


def interval(values: np.ndarray, statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a statistic over seeds (the last axis)."""
    picks = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(statistic(values[picks], axis=1), [2.5, 97.5])
    return float(low), float(high)


def cell(values: np.ndarray, statistic: Callable[..., np.ndarray], sign: str = "") -> str:
    """Return a statistic over seeds with its interval, as text."""
    low, high = interval(values, statistic)
    return f"{statistic(values):{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def print_all(kept: dict[str, dict[str, float]], strategies: Sequence[str], n: int) -> None:
    """Print a table for each landscape and strategy, and one over all strategies."""
    for problem in LANDSCAPES:
        for group in (*([s] for s in strategies), list(strategies)):
            print_table(problem, group, kept, n)


def print_table(
    problem: str, strategies: Sequence[str], kept: dict[str, dict[str, float]], n: int
) -> None:
    """Print what each pruner came to, of some strategies together."""
    columns = ["pruner", "epochs", "seconds"]
    for when in (f"{TRIALS} trials", "equal time"):
        columns += [f"{what}, {when}" for what in ("winner", "finalists")]
        columns += [f"{what} - none, {when}" for what in ("winner", "finalists")]
    print(f"\n{problem}, {', '.join(strategies)}, {n} seeds\n")
    print(f"| {' | '.join([*columns, 'trials in that time', 'capped'])} |")
    print(f"|{' --- |' * (len(columns) + 2)}")
    for pruner in PRUNERS:
        rows = [
            [[kept.get(Task(problem, s, p, seed).key) for seed in range(n)] for s in strategies]
            for p in (pruner, NONE)
        ]
        if any(row is None for group in rows for of_one in group for row in of_one):
            continue

        def of(what: str, which: int, rows: list[Any] = rows) -> np.ndarray:
            return np.array([[row[what] for row in of_one] for of_one in rows[which]])

        cells = [f"{of(w, 0).sum() / of(w, 1).sum():.2f}" for w in ("epochs", "seconds")]
        for when in ("", " timely"):
            names = [what + when for what in ("winner", "finalists")]
            # A mean over strategies of a seed's regrets: seeds are what is drawn again.
            cells += [cell(of(name, 0).mean(axis=0), np.median) for name in names]
            cells += [
                cell((of(name, 0) - of(name, 1)).mean(axis=0), np.mean, "+") for name in names
            ]
        cells += [f"{of('timely', 0).mean():.0f}", f"{of('capped', 0).mean():.2f}"]
        print(f"| {pruner} | {' | '.join(cells)} |")


def main() -> None:
    """Search what is not kept, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, metavar="NAME")
    parser.add_argument("--pruners", nargs="+", choices=PRUNERS, default=list(PRUNERS))
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--keep", type=Path, metavar="FILE")
    options = parser.parse_args()
    start_worker()
    kept: dict[str, dict[str, float]] = {}
    if options.keep and options.keep.exists():
        kept = dict(map(json.loads, options.keep.read_text().splitlines()))
    pruners = list(dict.fromkeys([NONE, *options.pruners]))
    left = [t for t in tasks(options.strategies, pruners, options.seeds) if t.key not in kept]
    with multiprocessing.Pool(options.workers, initializer=start_worker) as pool:
        ended = pool.imap_unordered(run, left, chunksize=4)
        for key, found in track(ended, "searches", total=len(left)):
            kept[key] = found
            if options.keep:
                with options.keep.open("a") as file:
                    file.write(json.dumps([key, found]) + "\n")
    print_all(kept, options.strategies, options.seeds)


if __name__ == "__main__":
    main()
