"""Progress for people: live on a terminal, or in plain lines.

The coordinator's thread only counts; a thread of Rich's draws, so that a thousand epochs a
second cost no more drawing than one.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from math import isinf
from types import TracebackType
from typing import IO, Self, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.coordination.events import Asked
from tuner.errors import Interrupted, TunerError, one_line
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.records import StudyRecord
from tuner.journal.storage import Role
from tuner.outputs import Terminal
from tuner.progress.display import PipeConsole, params_line, show_next, show_result
from tuner.progress.display import number as text_of
from tuner.progress.events import JsonEvents
from tuner.progress.watcher import Beginning, InProgress, Standing, Watcher, clock_text

__all__ = [
    "CountingWatcher",
    "LiveProgress",
    "PlainProgress",
    "Rows",
    "make_watcher",
    "told_how_it_ends",
]


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


_SILENCE_S = 20.0  # after which a line says that training goes on


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


_STARTING = "starting"  # a trial whose first epoch has not ended, in place of its epochs

_A_SECOND = 5  # frames

_MOST_ROWS = 12

_OTHER_LINES = 10  # bars, counts, heading, and some of what was there before


class Rows:
    """Which trials have a row: each keeps its own until it ends, and the next takes its place."""

    def __init__(self) -> None:
        self._shown: list[InProgress | None] = []

    def update(self, running: list[InProgress], most: int) -> list[InProgress | None]:
        """Return what stands in each row; there are never fewer than before, where they fit."""
        alive = {id(trial) for trial in running}
        shown = [t if t and id(t) in alive else None for t in self._shown[:most]]
        kept = {id(trial) for trial in shown if trial}
        rest = [trial for trial in running if id(trial) not in kept]
        while rest and (None in shown or len(shown) < most):
            trial = rest.pop(0)
            if None in shown:
                shown[shown.index(None)] = trial
            else:
                shown.append(trial)
        self._shown = shown
        return list(shown)


class LiveProgress(CountingWatcher):
    """Draws the running trials and a bar with counts, the best score and the time left."""

    def __init__(
        self,
        experiment: Experiment,
        console: Console,
        n_workers: int = 1,
        *,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        transient: bool = False,
    ) -> None:
        super().__init__(experiment, console, n_workers, stopping=stopping, clock=clock)
        self._prunes = experiment.pruner.name != "none"
        self._rows = Rows()
        self._live = Live(
            get_renderable=self.frame,
            console=console,
            refresh_per_second=_A_SECOND,
            transient=transient,
        )
        self._over = False

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing; the bars stay where they are, unless they are transient."""
        self._over = True
        self._live.stop()

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """Count it; only a failure in this run gets a line of its own."""
        name = self._count_end(role, number, outcome)
        if name is not None and outcome.state is OutcomeState.FAILED:
            self.note(f"{name} failed: {outcome.reason}")

    def frame(self) -> RenderableType:
        """Return what the terminal shows now."""
        with self._lock:
            standing = self.standing
            stages = standing.stages
            if not stages:
                return ""
            parts: list[RenderableType] = [self._bars(stages), self._counts()]
            stage = stages[-1]
            if not self._over and standing.done(stage) < standing.totals[stage]:
                parts.insert(0, self._table())
            return Group(*parts)

    def _table(self) -> RenderableType:
        standing, now = self.standing, self.standing.clock()
        running = list(standing.running.values())
        most = max(1, min(_MOST_ROWS, self.console.height - _OTHER_LINES))
        rows = self._rows.update(running, most)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        epochs = max(len(_STARTING), len(f"{standing.n_epochs}/{standing.n_epochs}"))
        # As wide as the widest will be: columns that move are hard to read.
        for heading, width in (("trial", 9), ("epoch", epochs), (standing.metric, 7), ("time", 5)):
            table.add_column(heading, justify="right", no_wrap=True, min_width=width)
        table.add_column("configuration")  # the one that gives way on a narrow terminal
        for trial in rows:
            if trial is None:
                table.add_row("")
                continue
            table.add_row(
                trial.name.removeprefix("trial "),
                _STARTING if trial.since is None else f"{trial.epochs}/{standing.n_epochs}",
                text_of(trial.value),
                "-" if trial.since is None else clock_text(now - trial.since),
                _one_line(params_line(dict(trial.params)) if trial.params else ""),
            )
        unseen = len(running) - sum(row is not None for row in rows)
        more = f"          … and {unseen} more\n" if unseen else ""
        return Group(table, more)

    def _bars(self, stages: list[Role]) -> Table:
        standing = self.standing
        bars = Table.grid(padding=(0, 1))
        bars.add_column(justify="right", width=9)
        bars.add_column(width=24)
        for _ in range(3):
            bars.add_column(no_wrap=True)
        for role in stages:
            done, total = standing.done(role), standing.totals[role]
            left = standing.time_left(role) if role is stages[-1] and not self._over else ""
            if standing.stopping() and done < total:
                left = "stopping"
            bars.add_row(
                standing.titles[role],
                ProgressBar(total=None if isinf(total) else total, completed=done, width=24),
                standing.count(role),
                Text(clock_text(standing.elapsed(role)), style="yellow"),
                Text(left, style="cyan"),
            )
        return bars

    def _counts(self) -> Text:
        standing = self.standing
        parts = []
        if standing.best:
            score, trial = standing.best
            parts.append((f"best {standing.metric} {text_of(score)} (trial {trial})", "green"))
        pruned = standing.counts[Role.TRIAL][OutcomeState.PRUNED]
        if self._prunes:
            parts.append((f"{pruned} pruned", ""))
        if failed := sum(counts[OutcomeState.FAILED] for counts in standing.counts.values()):
            parts.append((f"{failed} failed", "red"))
        if standing.waiting and not standing.stopping():
            parts.append((f"{len(standing.waiting)} waiting", ""))
        text = Text(", ").join(Text(*part) for part in parts)
        return Text(" " * 10) + text


def _one_line(text: str) -> Text:
    return Text(text, style="dim", no_wrap=True, overflow="ellipsis")


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
