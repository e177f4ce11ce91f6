"""The real coordinator on a real journal, with an executor that trains nothing."""

from __future__ import annotations

import dataclasses

import optuna

from helpers.simulated_executor import Killed, SimulatedExecutor
from tuner.coordination.coordinator import AsynchronousCoordinator, Coordinator, Limits
from tuner.coordination.opening import StudyData, open_study
from tuner.coordination.pruning import make_pruner
from tuner.data import SeriesRef, Shape
from tuner.experiment import Experiment, space_size
from tuner.experiment.space import to_distributions
from tuner.jobs import train_job
from tuner.journal.records import read_study
from tuner.journal.storage import Role, write_journal
from tuner.strategies import STRATEGIES
from tuner.strategies.rng import training_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

SPACE = {
    "hidden_size": {"type": "int", "low": 8, "high": 128, "log": True},
    "num_layers": {"type": "int", "low": 1, "high": 3},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "batch_size": {"type": "categorical", "choices": [8, 16, 32, 64]},
}
SMALL_SPACE = {
    "num_layers": {"type": "int", "low": 1, "high": 3},
    "batch_size": {"type": "categorical", "choices": [8, 16, 32, 64]},
}
FINITE_SPACE = SPACE | {"dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1}}
PRUNER_OPTIONS = {
    "median": {"n_startup_trials": 4, "n_warmup_steps": 1},
    "percentile": {"n_startup_trials": 4, "n_warmup_steps": 1, "percentile": 30.0},
    "successive_halving": {"min_resource": 2, "reduction_factor": 2},
    "hyperband": {"min_resource": 2, "reduction_factor": 2},
    "patient": {
        "patience": 1,
        "wrapped": {"name": "median", "n_startup_trials": 3, "n_warmup_steps": 1},
    },
}
DATA = {"path": "/data.csv", "sha256": "0" * 64, "rows": 100}
REF = SeriesRef("/nowhere", Shape("forecast", 1))


def make_experiment(
    strategy="woa", *, space=None, trials=24, epochs=5, seed=3, population=6, **keys
):
    sizes = {"population": population, "batch": 3}
    known = STRATEGIES[strategy].model_fields
    size = {key: value for key, value in sizes.items() if key in known}
    if strategy == "brute" and space is None:
        space = FINITE_SPACE
    return Experiment.model_validate(
        {
            "name": "simulated",
            "data": {"path": "/data.csv", "target": "y"} | keys.pop("data", {}),
            "search_space": space or SPACE,
            "strategy": {"name": strategy, **size},
            "budget": {"trials": trials, "epochs": epochs},
            "pruner": {"name": "median", "n_startup_trials": 4, "n_warmup_steps": 1},
            "seed": seed,
            **keys,
        }
    )


class Bench:
    """Runs the real coordinator on a real journal, with an executor that trains nothing."""

    def __init__(self, location):
        self.location = str(location)

    def run(self, experiment, executor, **options):
        distributions = to_distributions(experiment.search_space)
        with write_journal(self.location) as storage:
            study = open_study(
                storage,
                self.location,
                "s",
                experiment,
                StudyData(options.pop("data", DATA)),
                earlier=options.pop("earlier", ()),
            )

            def make_job(trial):
                return train_job(
                    experiment,
                    (REF,) * experiment.n_folds,
                    f"trial {trial.number}",
                    trial.params,
                    training_seed(experiment.seed, Role.TRIAL, trial.number),
                    can_be_pruned=experiment.pruner.name != "none",
                )

            limits = {
                "n_trials": experiment.budget.trials,
                "n_configurations": space_size(experiment.search_space),
                "stagnation": experiment.budget.stagnation,
                "retries": experiment.budget.retries,
            }
            changed = {f.name for f in dataclasses.fields(Limits)} & options.keys()
            limits |= {name: options.pop(name) for name in changed}
            kind = AsynchronousCoordinator if experiment.asynchronous else Coordinator
            coordinator = kind(
                study,
                distributions,
                experiment.strategy.rhythm,
                executor,
                make_job,
                Limits(**limits),
                second=experiment.objective.cost,
                n_folds=experiment.n_folds,
                pruner=make_pruner(
                    experiment.pruner,
                    experiment.budget.epochs,
                    experiment.n_folds,
                    by_loss=experiment.losses_compare,
                ),
                seed=experiment.seed,
                **options,
            )
            finished = coordinator.run()
            return finished, read_study(storage, "s", self.location)


def run_killed(bench, experiment, die_after=1, executor=SimulatedExecutor):
    """Be killed after every few results; return the record, the kills, the keys of results."""
    delivered = []
    for life in range(100):
        simulated = executor(3, chaos=life, die_after=die_after)
        try:
            _, record = bench.run(experiment, simulated)
        except Killed:
            continue
        finally:
            delivered += simulated.delivered
        return record, life, delivered
    raise AssertionError("it does not end")


def told(record):
    """Everything about a search that must not depend on timing."""
    return [
        (
            t.number,
            dict(t.params),
            t.status,
            t.value,
            t.repeat_of,
            t.seed,
            [e.metric for e in t.outcome.history] if t.outcome else None,
        )
        for t in record.trials
    ]
