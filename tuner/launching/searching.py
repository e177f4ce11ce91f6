"""One search as the command line does it: watched, tracked, and stopped where nobody reads on."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from tuner.errors import Interrupted, show_location
from tuner.experiment import Experiment
from tuner.launching.typed import sync_command
from tuner.launching.winner import KeptModel
from tuner.watching.failing import NothingButFailures
from tuner.watching.streams import to_nowhere
from tuner.watching.watcher import Beginning, Watcher

if TYPE_CHECKING:
    from tuner.coordination.records import StudyRecord
    from tuner.coordination.warm_start import Earlier
    from tuner.executors import Executor
    from tuner.tracking import MlflowTracker, Tracker

__all__ = ["search_watched", "stopped_without_reader"]


@contextlib.contextmanager
def stopped_without_reader() -> Iterator[None]:
    """Raise Interrupted where what is printed in the block finds no reader."""
    try:
        yield
    except BrokenPipeError:
        to_nowhere(sys.stdout)  # a note may follow
        text = "nobody reads what it prints: stopped; the same command resumes"
        raise Interrupted(text) from None


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
    from tuner.coordination.journal import journal_location
    from tuner.coordination.observer import Observers
    from tuner.orchestrator import search
    from tuner.report.artifacts import final_artifacts
    from tuner.results.artifacts import study_artifacts
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
