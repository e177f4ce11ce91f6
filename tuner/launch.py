"""Launches a search with its executor, workers, notes and MLflow tracking."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tuner.coordination.events import Observer, SearchStart
from tuner.errors import Interrupted, show_location
from tuner.executors.choice import ExecutorChoice, choose_executor
from tuner.experiment import Experiment
from tuner.journal.records import StudyRecord
from tuner.orchestrator import SearchOptions, search
from tuner.outputs import to_nowhere
from tuner.progress.reporters import FailureNotice, Reporter
from tuner.report.page import final_artifacts
from tuner.results.advice import in_the_way
from tuner.results.export import study_artifacts
from tuner.tracking import MlflowTracker
from tuner.tracking.tracker import TrackingObserver
from tuner.winner import KeptModel


def journal_option(journal: str | None) -> str:
    """Return ` --journal ...`, or an empty text without a journal."""
    return f" --journal {shlex.quote(show_location(journal))}" if journal else ""


def sync_command(name: str, journal: str | None, register: str | None = None) -> str:
    """Return the command that copies to MLflow what it lacks of a study."""
    registered = f" --register {shlex.quote(register)}" if register else ""
    return f"tuner sync {shlex.quote(name)}{journal_option(journal)}{registered}"


def choose_workers(workers: int | None, experiment: Experiment, choice: ExecutorChoice) -> int:
    """Return the number of trials at a time: `workers`, or the capacity; at most the usable one."""
    return max(1, min(choice.capacity if workers is None else workers, _useful(experiment)))


def worker_notes(workers: int | None, experiment: Experiment, choice: ExecutorChoice) -> list[str]:
    """Return notes about too many workers, and about a search that cannot be repeated."""
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
    """Raise Interrupted if the reader of standard output is gone."""
    try:
        yield
    except BrokenPipeError:
        to_nowhere(sys.stdout)  # a note may follow
        rule = "stopped: nobody reads its output"
        raise Interrupted(rule, remedy="the same command resumes") from None


@dataclass(frozen=True)
class Notes(Observer):
    """Sends notes to the user when a search starts."""

    send: Callable[[str], None]
    of: Callable[[StudyRecord], Sequence[str]]

    def on_start(self, start: SearchStart) -> None:
        for text in self.of(start.record):
            self.send(text)


def tracking_observer(
    study: str, journal: str | None, note: Callable[[str], None]
) -> TrackingObserver:
    """Return the observer that copies a search to MLflow, and notes what it could not copy."""
    to_sync = sync_command(study, journal).removeprefix("tuner sync ")
    return TrackingObserver(
        lambda read: MlflowTracker(read, to_sync, note, study_artifacts, final_artifacts)
    )


def run_search(
    experiment: Experiment,
    options: SearchOptions,
    reporter: Reporter,
    kept: KeptModel | None,
    *,
    stop: threading.Event,
    notes: Callable[[StudyRecord], Sequence[str]] = lambda record: [],
) -> tuple[StudyRecord, bool]:
    """Run a search as `tuner run` and `tuner.search` do.

    Args:
        experiment: the experiment to search.
        options: checked by `SearchOptions.check`.
        reporter: shows the events of the search; it is entered.
        kept: keeps the winner's model; None if it is not needed.
        stop: once set, no further trial starts, and the search stops after the running ones.
        notes: returns further notes for the start of the search.

    Returns:
        The study, as its journal has it, and whether MLflow has a complete copy.

    Raises:
        TunerError: as `tuner.orchestrator.search` does; Interrupted also if the reader of
            standard output is gone.
    """
    name = options.study_of(experiment)
    choice = choose_executor(options.executor, experiment.resources, reporter.note)

    def at_start(record: StudyRecord) -> list[str]:
        about_workers = worker_notes(options.workers, record.experiment, choice)
        return [*about_workers, *notes(record), *in_the_way(record)]

    observers = [reporter, Notes(reporter.note, at_start), FailureNotice(reporter.note)]
    observers += [] if kept is None else [kept]
    tracking = tracking_observer(name, options.journal, reporter.note)
    if options.tracking:
        observers.append(tracking)
    n_workers = choose_workers(options.workers, experiment, choice)
    with stopped_without_reader():
        record = search(
            experiment,
            replace(options, workers=n_workers),
            observers,
            make_executor=choice.make,
            stop=stop,
        )
    return record, tracking.complete
