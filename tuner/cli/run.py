"""`tuner run`."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from rich.console import Console

from tuner.cli.display import PipeConsole
from tuner.cli.events import JsonEvents
from tuner.cli.live import LiveProgress
from tuner.cli.progress import PlainProgress
from tuner.cli.searching import search_watched
from tuner.cli.stopping import stopped_by_signals
from tuner.cli.streams import Terminal
from tuner.cli.typed import journal_option, sync_command
from tuner.cli.watcher import Watcher
from tuner.cli.winner import KeptModel, check_register
from tuner.cli.workers import check_workers, choose_workers, warnings
from tuner.errors import InputError, Interrupted, TunerError, one_line
from tuner.experiment import Experiment

if TYPE_CHECKING:
    from tuner.coordination.records import StudyRecord

__all__ = ["check_journal", "check_study_name", "make_watcher", "run", "told_how_it_ends"]


def run(
    experiment: Experiment,
    *,
    study: str | None,
    journal: str | None,
    workers: int | None,
    trials: int | None = None,
    executor: str,
    tracking: bool,
    register: str | None = None,
    open_test: bool,
    reopen_test: bool = False,
    as_json: bool,
) -> None:
    """Search, and show what happens and what comes of it; `trials` is what `--trials` gave."""
    check_workers(workers)
    check_study_name(study)
    check_journal(journal)
    if register is not None:
        check_register(register, tracking)
    if reopen_test and not open_test:
        raise InputError("--reopen-test: opens the test part, got --no-test as well; leave one out")

    import optuna

    from tuner.executors.choosing import choose_executor
    from tuner.orchestrator import default_study_name

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choice = choose_executor(executor, experiment.resources, lambda text: watcher.note(text))
    n_workers = choose_workers(workers, experiment, choice)
    name = study or default_study_name(experiment)

    def said_at_first(record: StudyRecord) -> list[str]:
        said = _nothing_searched(experiment) + warnings(workers, experiment, choice)
        return said + _fewer_trials(record, experiment, trials)

    stop = threading.Event()
    watcher = make_watcher(experiment, n_workers, stop.is_set, as_json)
    with told_how_it_ends(watcher), KeptModel(watcher.note) as kept:
        with stopped_by_signals(stop), watcher:
            record, behind = search_watched(
                experiment,
                watcher,
                name=name,
                journal=journal,
                n_workers=n_workers,
                executor=executor,
                make_executor=choice.make,
                warnings=said_at_first,
                tracking=tracking,
                kept=kept,
                stop=stop,
                open_test=open_test,
                reopen_test=reopen_test,
            )
        to_sync = sync_command(name, journal, register) if behind else None
        watcher.result(record, _next_commands(name, journal, tracking, to_sync))
        if tracking and not behind:
            again = sync_command(name, journal, register)
            kept.log(record, register, again)


@contextlib.contextmanager
def told_how_it_ends(watcher: Watcher) -> Iterator[None]:
    """Tell a watcher how a search ended, whatever ended it."""
    try:
        yield
    except BaseException as error:
        state = "interrupted" if isinstance(error, Interrupted) else "failed"
        status = error.exit_status if isinstance(error, TunerError) else 1
        watcher.ended(state, one_line(error) or type(error).__name__, status)
        raise
    watcher.ended("done", None, 0)


def _nothing_searched(experiment: Experiment) -> list[str]:
    if experiment.search_space:
        return []
    text = "there is no search space: the one configuration is trained on seeds of this study"
    known = experiment.recorded is not None
    return [text + ("; `tuner train` reproduces the recorded score" if known else "")]


def _fewer_trials(record: StudyRecord, experiment: Experiment, given: int | None) -> list[str]:
    n_trials, trained = experiment.budget.trials, len(record.trained)
    if n_trials is None or trained <= n_trials:
        return []
    what = f"--trials {n_trials}" if given == n_trials else f"budget.trials {n_trials}"
    return [f"{trained} trials are trained already: {what} changes nothing"]


def make_watcher(
    experiment: Experiment,
    n_workers: int,
    stopping: Callable[[], bool],
    as_json: bool,
    *,
    transient: bool = False,
) -> Watcher:
    """Return what shows a search where standard output leads to.

    Args:
        experiment: what is searched.
        n_workers: how many trials run at a time.
        stopping: says whether no further trial is begun.
        as_json: whether programs read it.
        transient: whether what is drawn on a terminal vanishes when the search ends.
    """
    if as_json:
        return JsonEvents(sys.stdout)
    console = PipeConsole(highlight=False, soft_wrap=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return PlainProgress(experiment, console, n_workers, stopping=stopping)
    terminal = Console(file=cast("IO[str]", Terminal(sys.stdout)), highlight=False, soft_wrap=True)
    return LiveProgress(experiment, terminal, n_workers, stopping=stopping, transient=transient)


def _next_commands(
    name: str, journal: str | None, tracking: bool, to_sync: str | None
) -> list[tuple[str, str]]:
    option = journal_option(journal)
    commands = [
        (f"tuner export {name}{option} -o best.yaml", ""),
        ("tuner train best.yaml", ""),
    ]
    if tracking:
        commands.insert(0, (f"tuner ui {name}{option}", ""))
    if to_sync is not None:
        commands.insert(0, (to_sync, "MLflow lacks trials"))
    return commands


def check_study_name(study: str | None) -> None:
    """Refuse a name that no study can have.

    Raises:
        InputError: it is no file's name, or is kept for finalists.
    """
    if study is None:
        return
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,149}", study):
        raise InputError(
            f"--study: must begin with a letter or digit and hold only letters, digits, '_', '-' "
            f"and '.', 150 at most, got {study!r}; write --study first, say"
        )
    if study.endswith(".finalists"):
        raise InputError(
            f"--study: .finalists is kept for a study's finalists, got {study!r}; leave it out"
        )


def check_journal(journal: str | None) -> None:
    """Refuse a `--journal` where none can be.

    Raises:
        InputError: naming the folder that is missing, or may not be written to.
    """
    if journal is None:
        return
    if journal in ("", "sqlite://", "sqlite:///") or journal.endswith(":memory:"):
        raise InputError(
            f"--journal: must name a file or a database that lasts, got {journal!r}; "
            f"write --journal studies/first.journal, say"
        )
    scheme, in_database, database = journal.partition(":///")
    if "://" in journal and not (in_database and scheme.partition("+")[0] == "sqlite"):
        return
    path = Path(database.partition("?")[0] if in_database else journal)
    folder = next((p for p in path.absolute().parents if p.exists()), Path("/"))
    if not folder.is_dir() or (not path.exists() and not os.access(folder, os.W_OK)):
        raise InputError(
            f"--journal: cannot be written in {folder}, got {journal!r}; give another folder"
        )
    if not path.parent.exists() and path.parent != Path("studies"):  # which is made where needed
        raise InputError(f"--journal: no folder {path.parent}, got {journal!r}; create it first")
