"""`tuner run`."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from rich.console import Console

from tuner.cli.display import PipeConsole
from tuner.cli.events import JsonEvents
from tuner.cli.failing import NothingButFailures
from tuner.cli.live import LiveProgress
from tuner.cli.progress import PlainProgress
from tuner.cli.stopping import stopped_by_signals
from tuner.cli.streams import Terminal, to_nowhere
from tuner.cli.watcher import Beginning, Watcher
from tuner.cli.workers import check_workers, choose_workers, warnings
from tuner.errors import InputError, Interrupted, TunerError, one_line, show_location
from tuner.experiment import Experiment

if TYPE_CHECKING:
    from tuner.executors import Executor
    from tuner.search.records import StudyRecord

__all__ = ["run", "told_how_it_ends"]


def run(
    experiment: Experiment,
    *,
    study: str | None,
    journal: str | None,
    workers: int | None,
    trials: int | None = None,
    executor: str,
    tracking: bool,
    open_test: bool,
    as_json: bool,
) -> None:
    """Search, and show what happens and what comes of it; `trials` is what `--trials` gave."""
    check_workers(workers)
    _check_study_name(study)
    _check_journal(journal)

    import optuna

    from tuner.executors.choosing import choose_executor
    from tuner.orchestrator import default_study_name, search
    from tuner.report.artifacts import final_artifacts
    from tuner.results.artifacts import study_artifacts
    from tuner.search.journal import journal_location
    from tuner.search.observer import Observers
    from tuner.tracking import MlflowTracker, NullTracker, Tracker

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choice = choose_executor(executor, experiment.resources, lambda text: watcher.note(text))
    n_workers = choose_workers(workers, experiment, choice)
    name = study or default_study_name(experiment)
    readers: list[Callable[[], StudyRecord]] = []
    trackers: list[MlflowTracker] = []

    def make_tracker(read: Callable[[], StudyRecord]) -> Tracker:
        readers.append(read)
        if not tracking:
            return NullTracker()
        files = study_artifacts, final_artifacts
        trackers.append(MlflowTracker(read, name, watcher.note, *files))
        return trackers[0]

    def make_executor(n_workers: int) -> Executor:
        made, record = choice.make(n_workers), readers[0]()
        said = warnings(workers, experiment, choice) + _fewer_trials(record, experiment, trials)
        beginning = Beginning(
            record=record,
            journal=show_location(journal_location(name, journal)),
            n_workers=n_workers,
            executor=executor,
            warnings=tuple(said),
        )
        watcher.begun(beginning)
        return made

    stop = threading.Event()
    watcher = _make_watcher(experiment, n_workers, stop.is_set, as_json)
    with told_how_it_ends(watcher):
        with stopped_by_signals(stop), watcher:
            try:
                record = search(
                    experiment,
                    study=study,
                    journal=journal,
                    workers=n_workers,
                    make_executor=make_executor,
                    make_tracker=make_tracker,
                    observer=Observers([watcher, NothingButFailures(watcher.note)]),
                    stop=stop,
                    open_test=open_test,
                )
            except BrokenPipeError:
                to_nowhere(sys.stdout)  # a note may follow
                text = "nobody reads what it prints: stopped; the same command resumes"
                raise Interrupted(text) from None
            finally:
                behind = any(not tracker.complete for tracker in trackers)
                if behind:
                    watcher.note(f"MLflow lacks some of it; `tuner sync {name}` completes the copy")
        watcher.result(record, _next_commands(name, journal, tracking=tracking, behind=behind))


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


def _fewer_trials(record: StudyRecord, experiment: Experiment, given: int | None) -> list[str]:
    n_trials, trained = experiment.budget.trials, len(record.trained)
    if n_trials is None or trained <= n_trials:
        return []
    what = f"--trials {n_trials}" if given == n_trials else f"budget.trials {n_trials}"
    return [f"{trained} trials are trained already: {what} changes nothing"]


def _make_watcher(
    experiment: Experiment, n_workers: int, stopping: Callable[[], bool], as_json: bool
) -> Watcher:
    if as_json:
        return JsonEvents(sys.stdout)
    console = PipeConsole(highlight=False, soft_wrap=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return PlainProgress(experiment, console, n_workers, stopping=stopping)
    terminal = Console(file=cast("IO[str]", Terminal(sys.stdout)), highlight=False, soft_wrap=True)
    return LiveProgress(experiment, terminal, n_workers, stopping=stopping)


def _next_commands(
    name: str, journal: str | None, *, tracking: bool, behind: bool
) -> list[tuple[str, str]]:
    option = f" --journal {shlex.quote(journal)}" if journal else ""
    commands = [
        (f"tuner export {name}{option} -o best.yaml", ""),
        ("tuner train best.yaml", ""),
    ]
    if tracking:
        commands.insert(0, (f"tuner ui {name}{option}", ""))
    if behind:
        commands.insert(0, (f"tuner sync {name}{option}", "MLflow lacks trials"))
    return commands


def _check_study_name(study: str | None) -> None:
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


def _check_journal(journal: str | None) -> None:
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
