"""What a comparison searches: every strategy on every seed, checked before the first begins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.cli.overrides import load, own_strategy
from tuner.errors import ExperimentError, InputError, StudyError, nearest, show_location
from tuner.experiment import Experiment
from tuner.strategies.registry import STRATEGIES, rhythm_of

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["Planned", "load_all", "plan", "strategy_names"]

_MOST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Planned:
    """One search of a comparison."""

    experiment: Experiment
    study: str
    location: str  # of its journal
    done: bool  # whether all of its trials are in there


def strategy_names(text: str) -> list[str]:
    """Return the names that `--strategies` gives.

    Raises:
        InputError: one is unknown or named twice, or there are fewer than two.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in STRATEGIES:
            raise InputError(f"--strategies: unknown strategy {name!r}{nearest(name, STRATEGIES)}")
        if names.count(name) > 1:
            raise InputError(f"--strategies: must name each once, got {name!r} twice; name others")
    if len(names) < 2:
        raise InputError(
            f"--strategies: must name two at least, got {text!r}; write --strategies tpe,random"
        )
    return names


def load_all(
    path: Path, names: list[str], n_seeds: int, set_: list[str], trials: int | None
) -> list[Experiment]:
    """Load an experiment once for each strategy.

    The strategy that the file names keeps the settings that it has there; others have their
    defaults. `--set` applies to all.

    Raises:
        InputError: the file, an option or the two together break a rule, or cannot be compared.
    """
    if n_seeds < 1:
        raise InputError(f"--seeds: must be at least 1, got {n_seeds}; write --seeds 5")
    own, experiments = own_strategy(path).get("name"), []
    for name in names:
        block = None if name == own else {"name": name}
        options = {"strategies": ("strategy", block), "trials": ("budget.trials", trials)}
        experiment = load(path, None, set_, **options)
        if experiment.strategy.name != name:
            raise InputError(
                f"--set: strategy: is for --strategies to say, got "
                f"{experiment.strategy.name!r}; leave it out"
            )
        experiments.append(experiment)
    _check_comparable(experiments[0], path)
    last = experiments[0].seed + n_seeds - 1
    if last > _MOST_SEED:
        raise InputError(
            f"--seeds: the last one must be at most {_MOST_SEED}, got {last}; write --set seed=0"
        )
    return experiments


def _check_comparable(experiment: Experiment, path: Path) -> None:
    """Refuse what has nothing to search, or budgets that would not be equal."""
    if not experiment.search_space:
        raise ExperimentError(
            f"{path}: search_space: there is nothing to search, every hyperparameter is fixed; "
            f"name a search space, search_spaces/lstm.yaml say"
        )
    budget = experiment.budget
    if budget.trials is None:
        raise ExperimentError(
            f"{path}: budget.trials: must be a number where strategies are compared, got null; "
            f"add --trials 40"
        )
    for key in ("timeout", "stagnation"):
        if (value := getattr(budget, key)) is not None:
            raise ExperimentError(
                f"{path}: budget.{key}: must be null where strategies are compared, by equal "
                f"numbers of trials, got {value:g}; add --set budget.{key}=null"
            )


def plan(experiments: list[Experiment], n_seeds: int, journal: str | None) -> list[Planned]:
    """Return every search, seed by seed, so that whoever stops early has compared fewer seeds.

    Raises:
        InputError: a strategy cannot search the space, the data cannot be used, or a journal
            holds another study of that name, or is being written to.
    """
    from tuner.coordination.journal import journal_location
    from tuner.data.preparing import check_data
    from tuner.orchestrator import default_study_name
    from tuner.strategies.registry import make_sampler
    from tuner.strategies.space import to_distributions

    for e in experiments:
        make_sampler(e.strategy, to_distributions(e.search_space), e.seed, e.budget.trials)
    first = experiments[0]
    known = check_data(first).facts
    data = {"path": first.data.path, "sha256": known.sha256, "rows": known.rows}
    journals = _Journals()
    found = []
    for seed in range(first.seed, first.seed + n_seeds):
        for of_strategy in experiments:
            experiment = of_strategy.model_copy(update={"seed": seed})
            study = default_study_name(experiment)
            location = journal_location(study, journal)
            done = journals.holds_all(experiment, study, location, data)
            found.append(Planned(experiment, study, location, done))
    return found


class _Journals:
    """Those that are there already; each is read once."""

    def __init__(self) -> None:
        self._storages: dict[str, BaseStorage | None] = {}

    def holds_all(
        self, experiment: Experiment, name: str, location: str, data: dict[str, Any]
    ) -> bool:
        """Return whether a journal has all trials of a study; raise where it has others."""
        from tuner.coordination.journal import load_study, quiet_journal, study_names
        from tuner.coordination.opening import as_begun, check_study
        from tuner.coordination.records import read_study

        storage = self._storage(location)
        if storage is None:
            return False
        if name in study_names(storage):
            study = load_study(storage, name, location)
            try:
                facts = check_study(study, location, experiment, data, finalists=False)
            except StudyError as error:  # a comparison's studies have the names that they have
                other = str(error).replace("give another --study name", "give another --journal")
                raise StudyError(other) from None
            if facts is not None:
                begun = facts["experiment"]["budget"].get("trials")
                record = read_study(storage, name, location)
                where = f"{show_location(location)}: study {name!r}"
                _check_schedule(as_begun(study, experiment), begun, where)
                if len(record.trained) >= (experiment.n_trials or 0):
                    return True
        with quiet_journal(location, name):  # nobody writes to it
            return False

    def _storage(self, location: str) -> BaseStorage | None:
        from tuner.coordination.journal import journal_exists, read_journal

        if location not in self._storages:
            there = journal_exists(location)
            self._storages[location] = read_journal(location) if there else None
        return self._storages[location]


def _check_schedule(experiment: Experiment, begun: int | None, where: str) -> None:
    """Refuse a study that runs by the schedule of another budget: it would be another search."""
    strategy, trials = experiment.strategy, experiment.budget.trials
    settings = strategy.model_dump()
    scheduled = any(k.endswith("_end") and v is not None for k, v in settings.items())
    if not scheduled or trials is None:
        return
    size = rhythm_of(strategy).size
    if begun is None or math.ceil(begun / size) != math.ceil(trials / size):
        got, remedy = "null", "give another --journal"
        if begun is not None:
            got, remedy = str(begun), f"give --trials {begun}, or another --journal"
        raise StudyError(
            f"{where} was begun with budget.trials={got}, by which {strategy.name} paces itself, "
            f"got {trials}; {remedy}"
        )
