"""tuner as a library: a search from a program or a notebook, without the command line."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import InputError, Interrupted, RunError, TunerError
from tuner.experiment import Experiment
from tuner.launching.frames import with_data
from tuner.launching.names import check_journal, check_study_name
from tuner.launching.searching import search_watched
from tuner.launching.stopping import stopped_by_signals
from tuner.launching.typed import sync_command
from tuner.launching.winner import KeptModel
from tuner.launching.workers import check_workers, choose_workers, warnings
from tuner.results.advice import in_the_way
from tuner.study import Best, Report, Study
from tuner.watching.display import PipeConsole
from tuner.watching.progress import PlainProgress
from tuner.watching.watcher import Watcher

if TYPE_CHECKING:
    import pandas as pd

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
    experiment: Experiment | Mapping[str, Any] | str | Path,
    strategy: str | None = None,
    *,
    data: pd.DataFrame | str | Path | None = None,
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
        experiment: what is searched, the path of its file, or the same as nested dicts.
        strategy: a name of `tuner strategies`, with its defaults; by default the experiment's,
            which keeps its options also where it is named here.
        data: in place of the experiment's `data.path`: another file, or a table. A table is kept
            once as a Parquet file in the folder `data` beside the journal (`studies/data`), so
            that the study can be resumed and its configuration exported and trained again.
        trials: how many are trained; by default the experiment's `budget.trials`.
        seed: of the search; by default the experiment's.
        study: the study's name; `<experiment>-<strategy>-<seed>` by default.
        journal: a file or a database's URL; `studies/STUDY.journal` by default.
        workers: how many trials run at a time; by default as many as there is room for. The
            result does not depend on it.
        executor: `local`, `ray` or `ray://HOST:PORT`.
        tracking: whether trials are copied to MLflow while they run.
        progress: whether a line is printed for every trial. Without, notes go to the logger
            `tuner` as information.
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

    from tuner.coordination.journal import journal_location
    from tuner.executors.choosing import choose_executor
    from tuner.orchestrator import default_study_name

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_workers(workers, "workers", "workers=1")
    study = check_study_name(study)
    check_journal(journal)
    experiment = with_data(experiment, data, journal)
    experiment = _with_arguments(experiment, strategy, trials, seed)
    if reopen_test and not open_test:
        raise InputError("reopen_test: opens the test part, got open_test=False; leave one out")
    name, stop = study or default_study_name(experiment), threading.Event()
    choice = choose_executor(executor, experiment.resources, lambda text: watcher.note(text))
    n_workers = choose_workers(workers, experiment, choice)
    watcher: Watcher = _Logged()
    if progress:
        console = PipeConsole(highlight=False, soft_wrap=True)
        watcher = PlainProgress(experiment, console, n_workers, stopping=stop.is_set)
    with KeptModel(watcher.note) as kept:
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():  # no other one gets signals
                stack.enter_context(stopped_by_signals(stop, process_ends=False))
            record, behind = search_watched(
                experiment,
                watcher,
                name=name,
                journal=journal,
                n_workers=n_workers,
                executor=executor,
                make_executor=choice.make,
                warnings=lambda record: [
                    *warnings(workers, record.experiment, choice),
                    *in_the_way(record),
                ],
                tracking=tracking,
                kept=kept,
                stop=stop,
                open_test=open_test,
                reopen_test=reopen_test,
            )
        if tracking and not behind:
            kept.log(record, None, sync_command(name, journal))
        return Study(record, journal_location(name, journal), kept.folder)


class _Logged(Watcher):
    """Shows nothing; what is noted goes to the logger `tuner`."""

    def note(self, text: str) -> None:
        """Log a line."""
        logging.getLogger("tuner").info(text)


def load_study(name: str, journal: str | None = None) -> Study:
    """Return a study as its journal has it now, also while its search runs.

    Args:
        name: the study's.
        journal: a file or a database's URL; `studies/STUDY.journal` by default.

    Raises:
        InputError: there is no such study, or its journal cannot be read.
    """
    from tuner.coordination.journal import journal_location
    from tuner.launching.finding import read

    return Study(read(name, journal), journal_location(name, journal))


def _with_arguments(
    experiment: Experiment, strategy: str | None, trials: int | None, seed: int | None
) -> Experiment:
    values: dict[str, Any] = {
        "strategy": None if strategy in (None, experiment.strategy.name) else {"name": strategy},
        "budget.trials": trials,
        "seed": seed,
    }
    given = {key: value for key, value in values.items() if value is not None}
    return experiment.changed(given) if given else experiment
