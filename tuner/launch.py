"""Launches one search: the number of workers, progress, tracking and signals."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tuner.errors import InputError, Interrupted, show_location
from tuner.experiment import Experiment
from tuner.outputs import to_nowhere
from tuner.progress.watcher import Beginning, NothingButFailures, Watcher
from tuner.winner import KeptModel

if TYPE_CHECKING:
    from tuner.coordination.opening import Earlier
    from tuner.executors import Executor
    from tuner.executors.choice import ExecutorChoice
    from tuner.journal.records import StudyRecord
    from tuner.tracking import MlflowTracker, Tracker

__all__ = [
    "check_workers",
    "choose_workers",
    "journal_option",
    "search_watched",
    "stopped_without_reader",
    "sync_command",
    "warnings",
]


def journal_option(journal: str | None) -> str:
    """Return ` --journal ...` as it was given; nothing where it was not."""
    return f" --journal {shlex.quote(show_location(journal))}" if journal else ""


def sync_command(name: str, journal: str | None, register: str | None = None) -> str:
    """Return the command that completes what MLflow lacks of a study."""
    registered = f" --register {shlex.quote(register)}" if register else ""
    return f"tuner sync {shlex.quote(name)}{journal_option(journal)}{registered}"


def check_workers(workers: int | None, option: str = "--workers", one: str = "--workers 1") -> None:
    """Refuse a number that no machine has.

    Args:
        workers: how many were asked for.
        option: what asked for them.
        one: how to ask for one.

    Raises:
        InputError: it is below 1.
    """
    if workers is not None and workers < 1:
        rule = "must be at least 1"
        raise InputError(rule, where=option, got=workers, remedy=f"write {one}, or leave it out")


def choose_workers(workers: int | None, experiment: Experiment, choice: ExecutorChoice) -> int:
    """Return what was asked for, or else as many as there is room for; never more than are used."""
    return max(1, min(choice.capacity if workers is None else workers, _useful(experiment)))


def warnings(workers: int | None, experiment: Experiment, choice: ExecutorChoice) -> list[str]:
    """Return what a person should know who asked for so many workers."""
    found = []
    useful = _useful(experiment)
    enough = max(1, min(choice.capacity, useful))
    if workers is not None and workers > enough:
        key = "population" if experiment.strategy.rhythm.generational else "batch"
        what = "budget.trials" if experiment.asynchronous else f"strategy.{key}"
        if useful <= choice.capacity:
            why = f"more than there are trials at a time ({what} is {useful})"
        else:
            why = f"more than fit on {choice.unit}, they get in each other's way"
            if workers > useful:
                why += f", though {useful} at most are used ({what})"
        found.append(f"--workers {workers}: {why}; --workers {enough} is enough")
    if experiment.asynchronous:
        found.append(
            "asynchronous: a trial starts when a worker is free, so the same search run again "
            "gives other trials"
        )
    return found


def _useful(experiment: Experiment) -> int:
    """Return how many trials the strategy can have in progress."""
    if experiment.asynchronous:
        return sys.maxsize if experiment.n_trials is None else experiment.n_trials
    return experiment.strategy.rhythm.size


@contextlib.contextmanager
def stopped_without_reader() -> Iterator[None]:
    """Raise Interrupted where what is printed in the block finds no reader."""
    try:
        yield
    except BrokenPipeError:
        to_nowhere(sys.stdout)  # a note may follow
        rule = "nobody reads what it prints: stopped"
        raise Interrupted(rule, remedy="the same command resumes") from None


def search_watched(
    experiment: Experiment,
    watcher: Watcher,
    *,
    name: str,
    journal: str | None,
    n_workers: int,
    executor: str,
    make_executor: Callable[[int], Executor],
    warnings: Callable[[StudyRecord], list[str]],
    tracking: bool,
    kept: KeptModel | None = None,
    stop: threading.Event,
    earlier: Sequence[Earlier] = (),
    **stages: bool,
) -> tuple[StudyRecord, bool]:
    """Search as `tuner.orchestrator.search` does, and tell a watcher from its beginning.

    Args:
        experiment: what is searched.
        watcher: is told all but the result and the end.
        name: the study's.
        journal: as `--journal` gave it.
        n_workers: how many trials run at a time.
        executor: its name.
        make_executor: makes it from the number of workers.
        warnings: what there is to say when the study is open.
        tracking: whether trials are copied to MLflow.
        kept: keeps the winner's model, for MLflow or a program; None where nobody asks for it.
        stop: once set, trials in progress come to their end and the search stops.
        earlier: what a new study begins from.
        stages: those of `search` that may be left out.

    Returns:
        The study as its journal has it, and whether MLflow lacks some of it.

    Raises:
        TunerError: as `search` does; Interrupted also where nobody reads what is printed.
    """
    from tuner.coordination.events import Observers
    from tuner.journal.storage import journal_location
    from tuner.orchestrator import search
    from tuner.report.page import final_artifacts
    from tuner.results.export import study_artifacts
    from tuner.tracking import MlflowTracker, NullTracker

    readers: list[Callable[[], StudyRecord]] = []
    trackers: list[MlflowTracker] = []

    def make_tracker(read: Callable[[], StudyRecord]) -> Tracker:
        readers.append(read)
        if not tracking:
            return NullTracker()
        files = study_artifacts, final_artifacts
        to_sync = sync_command(name, journal).removeprefix("tuner sync ")
        trackers.append(MlflowTracker(read, to_sync, watcher.note, *files))
        return trackers[0]

    def make_told_executor(n_workers: int) -> Executor:
        made, record = make_executor(n_workers), readers[0]()
        beginning = Beginning(
            record=record,
            journal=show_location(journal_location(name, journal)),
            n_workers=n_workers,
            executor=executor,
            warnings=tuple(warnings(record)),
        )
        watcher.begun(beginning)
        return made

    with stopped_without_reader():
        record = search(
            experiment,
            study=name,
            journal=journal,
            workers=n_workers,
            make_executor=make_told_executor,
            make_tracker=make_tracker,
            observer=Observers([watcher, NothingButFailures(watcher.note)]),
            stop=stop,
            keep_model=None if kept is None else kept.keep,
            earlier=earlier,
            **stages,
        )
    return record, any(not tracker.complete for tracker in trackers)
