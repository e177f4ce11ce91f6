"""A search in plain lines, for a file, a pipe, or a terminal that cannot draw."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from tuner.coordination.observer import Asked
from tuner.coordination.seeds import Role
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome
from tuner.watching.counting import CountingWatcher
from tuner.watching.display import number as text_of

_SILENCE_S = 20.0  # after which a line says that training goes on

__all__ = ["PlainProgress"]


class PlainProgress(CountingWatcher):
    """Prints a line for every trial that ends in this run."""

    def __init__(
        self,
        experiment: Experiment,
        console: Console,
        n_workers: int = 1,
        *,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(experiment, console, n_workers, stopping=stopping, clock=clock)
        self._last_line = clock()

    def asked(self, trial: Asked) -> None:
        """Say why a number is missing from the lines to come."""
        super().asked(trial)
        if trial.repeat_of is not None:
            self.note(f"{trial.name} repeats trial {trial.repeat_of}: not trained again")

    def epoch(self, role: Role, number: int, epoch: Epoch) -> None:
        """Say that a long trial lives."""
        super().epoch(role, number, epoch)
        standing = self.standing
        if standing.clock() - self._last_line > _SILENCE_S:
            metric = f"{standing.metric} {text_of(epoch.metric)}"
            line = f"{standing.name(role, number)} goes on: epoch {epoch.epoch + 1}, {metric}"
            self._print(line, standing.time_left(role))

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """Print a trial that this run has trained."""
        standing, name = self.standing, self._count_end(role, number, outcome)
        if name is None:
            return
        count = f"[{standing.count(role)}]"
        reason = f": {outcome.reason}" if outcome.reason else ""
        value = outcome.objective
        score = "" if value is None else f"{standing.metric} {text_of(value)}"
        best = ""
        if standing.best and role is Role.TRIAL:
            best = f"best {text_of(standing.best[0])} (trial {standing.best[1]})"
        line = f"{count} {name} {outcome.state}{reason}"
        self._print(line, score, best, standing.time_left(role))

    def note(self, text: str) -> None:
        """Print a line of its own."""
        self._last_line = self.standing.clock()
        super().note(text)

    def _print(self, *parts: str) -> None:
        self.note("  ".join(part for part in parts if part))
