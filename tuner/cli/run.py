"""`tuner run`."""

from __future__ import annotations

import os
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import psutil
from rich.markup import escape

from tuner.cli.display import PipeConsole, console, show_result
from tuner.cli.progress import make_progress
from tuner.errors import InputError, Interrupted, nearest
from tuner.experiment import Experiment
from tuner.strategies.registry import rhythm_of

if TYPE_CHECKING:
    from tuner.search.records import StudyRecord

__all__ = ["run"]


def run(
    experiment: Experiment,
    *,
    study: str | None,
    journal: str | None,
    workers: int | None,
    executor: str,
    tracking: bool,
    open_test: bool,
) -> None:
    """Search, and print the result."""
    n_workers = _check_workers(workers, experiment)
    if executor != "local":
        raise InputError(f"--executor: unknown executor {executor!r}{nearest(executor, ['local'])}")
    _check_study_name(study)
    _check_journal(journal)

    import optuna

    from tuner.orchestrator import default_study_name, search
    from tuner.results.artifacts import study_artifacts
    from tuner.tracking import MlflowTracker, NullTracker, Tracker

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = study or default_study_name(experiment)
    progress = make_progress(experiment, PipeConsole(highlight=False, soft_wrap=True))
    trackers: list[MlflowTracker] = []

    def make_tracker(read: Callable[[], StudyRecord]) -> Tracker:
        if not tracking:
            return NullTracker()
        trackers.append(MlflowTracker(read, name, progress.note, study_artifacts))
        return trackers[0]

    with progress, _stopped_by_signals() as stop:
        try:
            record = search(
                experiment,
                study=study,
                journal=journal,
                workers=n_workers,
                make_tracker=make_tracker,
                observer=progress,
                stop=stop,
                open_test=open_test,
            )
        finally:
            behind = any(not tracker.complete for tracker in trackers)
            if behind:
                progress.note(f"MLflow lacks some of it; `tuner sync {name}` completes the copy")
    show_result(record)
    option = f" --journal {escape(shlex.quote(journal))}" if journal else ""
    console.print("\nNext:")
    if behind:
        console.print(f"  [bold]tuner sync {name}{option}[/]   (MLflow lacks trials)")
    if tracking:
        console.print(f"  [bold]tuner ui {name}{option}[/]")
    console.print(f"  [bold]tuner export {name}{option} -o best.yaml[/]")
    console.print("  [bold]tuner train best.yaml[/]")


def _check_workers(workers: int | None, experiment: Experiment) -> int:
    cores = len(psutil.Process().cpu_affinity()) if psutil.LINUX else psutil.cpu_count() or 1
    useful = rhythm_of(experiment.strategy).size
    if workers is None:
        return max(1, min(cores, useful))
    if workers < 1:
        raise InputError(f"--workers: must be at least 1, got {workers}; write --workers {cores}")
    return workers


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
    if "://" in journal and not journal.startswith("sqlite:///"):
        return
    path = Path(journal.removeprefix("sqlite:///"))
    folder = next((p for p in path.absolute().parents if p.exists()), Path("/"))
    if not folder.is_dir() or (not path.exists() and not os.access(folder, os.W_OK)):
        raise InputError(
            f"--journal: cannot be written in {folder}, got {journal!r}; give another folder"
        )


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets; the second one, or SIGTERM, raises."""
    stop = threading.Event()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if stop.is_set() or signum == signal.SIGTERM:
            raise KeyboardInterrupt
        stop.set()  # the search says so: a handler must not print

    handled = (signal.SIGINT, signal.SIGTERM)
    before = {s: signal.signal(s, interrupt) for s in handled}
    try:
        yield stop
    except KeyboardInterrupt:
        text = "stopped at once; what was finished is kept, and the same command resumes"
        raise Interrupted(text) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
