"""tuner as a library: a search from a program or a notebook, without the command line."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.cli.display import PipeConsole
from tuner.cli.progress import PlainProgress
from tuner.cli.stopping import stopped_by_signals
from tuner.cli.workers import check_workers, choose_workers
from tuner.errors import InputError, Interrupted, RunError, TunerError
from tuner.experiment import Experiment
from tuner.study import Best, Report, Study

if TYPE_CHECKING:
    from tuner.search.observer import Observer
    from tuner.search.records import StudyRecord
    from tuner.tracking import Tracker

__all__ = [
    "Best",
    "Experiment",
    "InputError",
    "Interrupted",
    "Report",
    "RunError",
    "Study",
    "TunerError",
    "load_study",
    "search",
]


def search(
    experiment: Experiment | str | Path,
    strategy: str | None = None,
    *,
    trials: int | None = None,
    seed: int | None = None,
    study: str | None = None,
    journal: str | None = None,
    workers: int | None = None,
    executor: str = "local",
    tracking: bool = True,
    progress: bool = True,
    open_test: bool = True,
    reopen_test: bool = False,
) -> Study:
    """Search an experiment to its end, or go on where an earlier call or `tuner run` stopped.

    It is what `tuner run` does, and its journal is the same: each goes on with what the other
    began.

    Args:
        experiment: what is searched, or the path of its file.
        strategy: a name of `tuner strategies`, with its defaults; by default the experiment's.
        trials: how many are trained; by default the experiment's `budget.trials`.
        seed: of the search; by default the experiment's.
        study: the study's name; `<experiment>-<strategy>-<seed>` by default.
        journal: a file or a database's URL; `studies/STUDY.journal` by default.
        workers: how many trials run at a time; by default as many as there is room for. The
            result does not depend on it.
        executor: `local`, `ray` or `ray://HOST:PORT`.
        tracking: whether trials are copied to MLflow while they run.
        progress: whether a line is printed for every trial.
        open_test: whether the winner is scored on the test part at the end, which happens once
            for a study; a later call may do it.
        reopen_test: whether it is scored again after the search has gone on and another
            configuration wins; that is recorded, and the score is not one of unseen rows.

    Returns:
        The study as its journal has it.

    Raises:
        InputError: experiment, data, journal or an argument cannot be used; nothing was begun.
        RunError: every trial failed.
        Interrupted: Ctrl-C; what was finished is kept, and the same call goes on.
    """
    import optuna

    from tuner.executors.choosing import choose_executor
    from tuner.orchestrator import default_study_name
    from tuner.orchestrator import search as run_search
    from tuner.search.journal import journal_location
    from tuner.search.observer import Observer

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    experiment = _with_arguments(experiment, strategy, trials, seed)
    check_workers(workers)
    name = study or default_study_name(experiment)
    watcher: Observer = Observer()
    choice = choose_executor(executor, experiment.resources, lambda text: watcher.note(text))
    n_workers = choose_workers(workers, experiment, choice)
    stop = threading.Event()
    if progress:
        console = PipeConsole(highlight=False, soft_wrap=True)
        watcher = PlainProgress(experiment, console, n_workers, stopping=stop.is_set)
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():  # no other one gets signals
            stack.enter_context(stopped_by_signals(stop))
        record = run_search(
            experiment,
            study=name,
            journal=journal,
            workers=n_workers,
            make_executor=choice.make,
            make_tracker=_tracker_of(name, watcher) if tracking else None,
            observer=watcher,
            stop=stop,
            open_test=open_test,
            reopen_test=reopen_test,
        )
    return Study(record, journal_location(name, journal))


def load_study(name: str, journal: str | None = None) -> Study:
    """Return a study as its journal has it now, also while its search runs.

    Args:
        name: the study's.
        journal: a file or a database's URL; `studies/STUDY.journal` by default.

    Raises:
        InputError: there is no such study, or its journal cannot be read.
    """
    from tuner.cli.inspect import read
    from tuner.search.journal import journal_location

    return Study(read(name, journal), journal_location(name, journal))


def _with_arguments(
    experiment: Experiment | str | Path, strategy: str | None, trials: int | None, seed: int | None
) -> Experiment:
    if not isinstance(experiment, Experiment):
        experiment = Experiment.load(experiment)
    values: dict[str, Any] = {
        "strategy": None if strategy is None else {"name": strategy},
        "budget.trials": trials,
        "seed": seed,
    }
    given = {key: value for key, value in values.items() if value is not None}
    return experiment.changed(given) if given else experiment


def _tracker_of(name: str, watcher: Observer) -> Callable[[Callable[[], StudyRecord]], Tracker]:
    from tuner.report.artifacts import final_artifacts
    from tuner.results.artifacts import study_artifacts
    from tuner.tracking import MlflowTracker

    def make(read: Callable[[], StudyRecord]) -> Tracker:
        return MlflowTracker(read, name, watcher.note, study_artifacts, final_artifacts)

    return make
