"""A search as one watches it: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tuner.cli.display import number
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.search.observer import Observer
from tuner.search.seeds import Role

_SILENCE_S = 20.0  # after which a line says that training goes on

__all__ = ["LiveProgress", "PlainProgress", "make_progress"]

_TITLES = {Role.TRIAL: "trials", Role.FINALIST: "finalists"}


class PlainProgress(Observer):
    """Prints a line for every trial that ends in this run."""

    def __init__(self, experiment: Experiment, console: Console) -> None:
        self.console = console
        self._metric = experiment.objective.metric
        self._sign = -1 if experiment.objective.direction == "maximize" else 1
        self.totals = {
            Role.TRIAL: experiment.n_trials,
            Role.FINALIST: 0,  # known once they are asked for, which is all at once
        }
        self.counts = {role: dict.fromkeys(OutcomeState, 0) for role in Role}
        self.best: tuple[float, int] | None = None
        self._last_line = time.monotonic()
        self._begun: dict[Role, float] = {}
        self._training_since: dict[Role, float] = {}
        self._ended_here = dict.fromkeys(Role, 0)

    def __enter__(self) -> Self:
        """Begin to draw, where there is something to draw."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def asked(self, role: Role, number: int, repeat_of: int | None) -> None:
        """Remember when the stage began: what had ended before is not this run's."""
        self._begun.setdefault(role, time.monotonic())
        if repeat_of is not None:
            self.repeated(number, repeat_of)
        if role is Role.FINALIST:
            self.totals[role] += 1

    def epoch(self, role: Role, number: int, epoch: Epoch) -> None:
        """Remember when training began; say that a long trial lives."""
        now = time.monotonic()
        self._training_since.setdefault(role, now)  # a worker's start is no part of the pace
        if now - self._last_line > _SILENCE_S:
            self.alive(role, number, epoch)

    def alive(self, role: Role, trial: int, epoch: Epoch) -> None:
        """Print a line although no trial has ended."""
        metric = f"{self._metric} {number(epoch.metric)}"
        self.note(f"{role.value} {trial} goes on: epoch {epoch.epoch + 1}, {metric}")

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """Count a trial and show it."""
        self.counts[role][outcome.state] += 1
        value = outcome.objective
        best = self.best[0] if self.best else self._sign * math.inf
        if role is Role.TRIAL and value is not None and self._sign * value < self._sign * best:
            self.best = (value, number)
        if outcome.finished_at and time.time() - outcome.finished_at < self._age(role):
            self._ended_here[role] += 1
            self.draw(role, number, outcome)

    def lost(self, role: Role, number: int, reason: str) -> None:
        """Say that a trial runs again."""
        self.note(f"{role.value} {number} runs again: {reason}")

    def repeated(self, number: int, repeat_of: int) -> None:
        """Say why a number is missing from the lines to come."""
        self.note(f"trial {number} repeats trial {repeat_of}: not trained again")

    def note(self, text: str) -> None:
        """Print a line of its own."""
        self._last_line = time.monotonic()
        self.console.print(text, markup=False)

    def draw(self, role: Role, trial: int, outcome: Outcome) -> None:
        """Show one trial that has ended."""
        value = outcome.objective
        score = "" if value is None else f"{self._metric} {number(value)}"
        reason = f": {outcome.reason}" if outcome.reason else ""
        line = (
            f"[{self.done(role)}/{self.totals[role]}] {role.value} {trial} {outcome.state}{reason}"
        )
        best = ""
        if self.best and role is Role.TRIAL:
            best = f"best {number(self.best[0])} (trial {self.best[1]})"
        left = self.time_left(role)
        self.note("  ".join(part for part in (line, score, best, left) if part))

    def done(self, role: Role) -> int:
        """Return how many trials have ended, earlier runs included."""
        return sum(self.counts[role].values())

    def time_left(self, role: Role) -> str:
        """Estimate the rest of a stage from the pace of this run."""
        ended, left = self._ended_here[role], self.totals[role] - self.done(role)
        if not ended or left <= 0:
            return ""
        since = self._training_since.get(role, self._begun[role])
        seconds = round((time.monotonic() - since) / ended * left)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"
        )

    def _age(self, role: Role) -> float:
        return time.monotonic() - self._begun.get(role, time.monotonic()) + 0.5


class LiveProgress(PlainProgress):
    """Draws a bar with counts, the best score and the time left."""

    def __init__(self, experiment: Experiment, console: Console) -> None:
        super().__init__(experiment, console)
        self._progress = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._bars = {
            role: self._progress.add_task(
                _TITLES[role], total=total, status="", left="", visible=False
            )
            for role, total in self.totals.items()
        }

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing; the bar stays where it is."""
        self._progress.stop()

    def asked(self, role: Role, number: int, repeat_of: int | None) -> None:
        """Show the bar of the stage that has begun."""
        super().asked(role, number, repeat_of)
        self._progress.update(self._bars[role], total=self.totals[role], visible=True)

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """Move the bar, also for what an earlier run had finished."""
        super().finished(role, number, outcome)
        self._refresh(role)

    def alive(self, role: Role, trial: int, epoch: Epoch) -> None:
        """The bar's clock is a sign of life."""

    def repeated(self, number: int, repeat_of: int) -> None:
        """The summary counts them."""

    def draw(self, role: Role, trial: int, outcome: Outcome) -> None:
        """The bar shows what there is to see; only a failure gets a line of its own."""
        if outcome.state is OutcomeState.FAILED:
            self.note(f"{role.value} {trial} failed: {outcome.reason}")

    def _refresh(self, role: Role) -> None:
        counts = self.counts[role]
        status = []
        if role is Role.TRIAL:
            status = [f"{counts[OutcomeState.PRUNED]} pruned"]
            if self.best:
                status.append(f"best {self._metric} [green]{number(self.best[0])}[/]")
        if counts[OutcomeState.FAILED]:
            status.insert(0, f"[red]{counts[OutcomeState.FAILED]} failed[/]")
        self._progress.update(
            self._bars[role],
            completed=self.done(role),
            status=", ".join(status),
            left=self.time_left(role),
        )


def make_progress(experiment: Experiment, console: Console) -> PlainProgress:
    """Return the progress display that suits the terminal, or the pipe."""
    live = console.is_terminal and not console.is_dumb_terminal
    return (LiveProgress if live else PlainProgress)(experiment, console)
