"""Searches of which the best possible value is known, and how far from it they end."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from functions import FUNCTIONS, N_DIMENSIONS, optimum_at
from optuna.distributions import FloatDistribution
from simulated import Landscape, SimulatedExecutor

from tuner.coordination.coordinator import Coordinator, Limits
from tuner.data import SeriesRef, Shape
from tuner.errors import TunerError
from tuner.experiment import Experiment, Override, space_size
from tuner.experiment.space import to_distributions
from tuner.jobs import train_job
from tuner.journal.storage import REPEAT_ATTR, Role
from tuner.strategies import STRATEGIES
from tuner.strategies.population import PopulationSampler
from tuner.strategies.rng import training_seed

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).parent / "landscapes"
LANDSCAPES = ("air_passengers", "sunspots")
FRESH = ("us_jobs",)  # no default was chosen by it
BUDGETS = (40, 100)
N_EVALUATIONS = 200
SEQUENTIAL_TPE = "tpe, batch 1"  # as Optuna has it with one worker: a trial is told at once
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # beside every strategy with its defaults
    SEQUENTIAL_TPE: ("tpe", {"batch": 1}),
    "pso, population 5": ("pso", {"population": 5}),
    **{f"{name}, candidates": (name, {"candidates": 60}) for name in ("pso", "qpso", "woa")},
}
NAMES = (*STRATEGIES, *VARIANTS)

_REF = SeriesRef("", Shape("forecast", 1))


@dataclass(frozen=True)
class Task:
    """One search."""

    strategy: str
    problem: str  # a landscape or a function
    place: str  # of a function's optimum
    budget: int
    seed: int

    @property
    def group(self) -> str:
        """What it is drawn and tabled with: the same search on other seeds."""
        return "|".join((self.strategy, self.problem, self.place, str(self.budget)))


def options_of(strategy: str) -> Any:
    """Return a strategy's options: its defaults, or those of the variant."""
    name, options = VARIANTS.get(strategy, (strategy, {}))
    return STRATEGIES[name].model_validate(options)


def is_swarm(strategy: str) -> bool:
    distributions = {"x": FloatDistribution(0.0, 1.0)}
    try:
        sampler = options_of(strategy).make_sampler(distributions, 0, 4)
    except TunerError:  # it needs a finite space
        return False
    return isinstance(sampler, PopulationSampler)


def takes_floats(strategy: str) -> bool:
    """Say whether a strategy searches a continuum: brute force does not."""
    try:
        options_of(strategy).make_sampler({"x": FloatDistribution(0.0, 1.0)}, 0, 4)
    except TunerError:
        return False
    return True


def run(task: Task) -> tuple[Task, dict[str, list[float]]]:
    """Run one search; returns what is known of it after every trial."""
    if task.problem in FUNCTIONS:
        return task, search_function(task)
    return task, search_landscape(task)


def search_function(task: Task) -> dict[str, list[float]]:
    """Search with nothing but the sampler and Optuna."""
    function, optimum = FUNCTIONS[task.problem], optimum_at(task.place, task.seed)
    distributions = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(N_DIMENSIONS)}
    sampler = options_of(task.strategy).make_sampler(distributions, task.seed, task.budget)

    def objective(trial: optuna.Trial) -> float:
        x = np.array([trial.suggest_float(name, 0.0, 1.0) for name in distributions])
        return function.formula(function.width * (x - optimum))

    study = optuna.create_study(sampler=sampler, storage=optuna.storages.InMemoryStorage())
    study.optimize(objective, n_trials=task.budget)
    values = [t.value for t in study.get_trials(deepcopy=False)]
    return {"regret": np.minimum.accumulate(values).tolist()}


def search_landscape(task: Task) -> dict[str, list[float]]:
    """Search as `tuner run` does, with everything but the training and the journal's file.

    Returns, after every trial that was trained:
        regret: of the best configuration so far, by its mean over the recorded seeds.
        winner: the same of the one that the search itself holds for the best, which it judges
            by one training.
        proposals: how many configurations the strategy has proposed, repeats among them.
    """
    landscape, experiment = _landscape(task.problem), _experiment(task.problem, task.budget)
    experiment = experiment.model_copy(
        update={"strategy": options_of(task.strategy), "seed": task.seed}
    )
    distributions = to_distributions(experiment.search_space)
    study = optuna.create_study(
        sampler=experiment.strategy.make_sampler(distributions, task.seed, task.budget),
        storage=optuna.storages.InMemoryStorage(),
    )
    study.enqueue_trial(experiment.start())

    def make_job(trial: optuna.Trial) -> Any:
        seed = training_seed(experiment.seed, Role.TRIAL, trial.number)
        return train_job(experiment, (_REF,), str(trial.number), trial.params, seed)

    rhythm = experiment.strategy.rhythm
    Coordinator(
        study,
        distributions,
        rhythm,
        SimulatedExecutor(landscape, n_workers=rhythm.size),
        make_job,
        Limits(task.budget, n_configurations=space_size(experiment.search_space)),
        seed=experiment.seed,
    ).run()
    trials = study.get_trials(deepcopy=False)
    trained = [t for t in trials if REPEAT_ATTR not in t.user_attrs]
    least = min(map(_mean, landscape.all_recordings()))
    regrets = np.array([_mean(landscape.recordings(t.params)) - least for t in trained])
    values = np.array([t.value for t in trained])
    winners = [int(np.argmin(values[: i + 1])) for i in range(len(values))]
    return {
        "regret": np.minimum.accumulate(regrets).tolist(),
        "winner": regrets[winners].tolist(),
        "proposals": [float(t.number + 1) for t in trained],
    }


@functools.cache
def _landscape(name: str) -> Landscape:
    """Load a landscape, each curve cut down to its best epoch: nothing else matters here."""
    table = pd.read_parquet(FOLDER / f"{name}.parquet")
    table["curve"] = [[curve.min()] for curve in table["curve"]]
    return Landscape.from_table(table)


def space_of(name: str) -> Path:
    """Return the file of a landscape's search space."""
    own = FOLDER / f"{name}.yaml"
    return own if own.exists() else ROOT / "search_spaces" / "lstm_grid.yaml"


@functools.cache
def _experiment(name: str, budget: int) -> Experiment:
    return Experiment.load(
        ROOT / "experiments" / f"{name}.yaml",
        [
            Override("search_space", str(space_of(name)), "SPACE"),
            Override("budget.trials", budget, "BUDGET"),
            Override("pruner", {"name": "none"}, "PRUNER"),
        ],
    )


def _mean(recordings: Any) -> float:
    return float(np.mean([min(recording.curve) for recording in recordings]))


def be_quiet_and_alone() -> None:
    """Prepare a process that runs searches beside others."""
    os.environ.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")})
    optuna.logging.set_verbosity(optuna.logging.ERROR)
