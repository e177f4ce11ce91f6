"""What a person is told of a search alike, however it is shown: counts, warnings, the result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console

from tuner.coordination.observer import Asked
from tuner.coordination.records import StudyRecord
from tuner.coordination.seeds import Role
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome
from tuner.watching.display import show_next, show_result
from tuner.watching.standing import Standing
from tuner.watching.watcher import Beginning, Watcher

__all__ = ["CountingWatcher"]


class CountingWatcher(Watcher):
    """Keeps a standing, prints notes on a console, and the result at the end."""

    def __init__(
        self,
        experiment: Experiment,
        console: Console,
        n_workers: int = 1,
        *,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.standing = Standing(experiment, n_workers, stopping=stopping, clock=clock)
        self._lock = threading.Lock()  # of the standing; never held while something is written

    def begun(self, beginning: Beginning) -> None:
        """Print the warnings."""
        with self._lock:
            self.standing.used(beginning.record.seconds)
        for text in beginning.warnings:
            self.note(text)

    def result(self, record: StudyRecord, commands: list[tuple[str, str]]) -> None:
        """Print the best configuration, every score, and what to type next."""
        show_result(record)
        show_next(commands)

    def asked(self, trial: Asked) -> None:
        """Count it."""
        with self._lock:
            self.standing.asked(trial)

    def dispatched(self, role: Role, number: int, cost: float) -> None:
        """Count it."""
        with self._lock:
            self.standing.dispatched(role, number, cost)

    def began(self, role: Role, number: int, time: float) -> None:
        """Count its time from then."""
        with self._lock:
            self.standing.began(role, number, time)

    def epoch(self, role: Role, number: int, epoch: Epoch) -> None:
        """Count it."""
        with self._lock:
            self.standing.epoch(role, number, epoch)

    def lost(self, role: Role, number: int, reason: str) -> None:
        """Say that a trial runs again."""
        with self._lock:
            self.standing.lost(role, number, reason)
            name = self.standing.name(role, number)
        self.note(f"{name} runs again: {reason}")

    def note(self, text: str) -> None:
        """Print a line of its own."""
        self.console.print(text, markup=False)

    def _count_end(self, role: Role, number: int, outcome: Outcome) -> str | None:
        """Count a trial that has ended; return its name, or None where an earlier run had it."""
        with self._lock:
            here, name = self.standing.in_progress(role, number), self.standing.name(role, number)
            self.standing.finished(role, number, outcome)
        return name if here else None
