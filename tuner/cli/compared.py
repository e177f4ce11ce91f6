"""What one sees of a comparison: each search as it goes, then how the strategies differ."""

from __future__ import annotations

import abc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from tuner.cli.planned import Planned
from tuner.experiment import Experiment
from tuner.watching.choosing import make_watcher
from tuner.watching.display import PipeConsole, console, number, show_next
from tuner.watching.events import JsonEvents
from tuner.watching.standing import clock_text
from tuner.watching.watcher import Watcher

if TYPE_CHECKING:
    from tuner.comparison.comparison import Comparison
    from tuner.coordination.records import StudyRecord

__all__ = ["Events", "Lines", "Show"]


class Show(abc.ABC):
    """Shows a comparison from its beginning to its result."""

    def __init__(self) -> None:
        self.whole = Watcher()  # is told how the comparison ends
        self._said: set[str] = set()

    @abc.abstractmethod
    def begun(self, experiments: Sequence[Experiment], planned: Sequence[Planned]) -> None:
        """All has been checked; `experiments` are those of the strategies."""

    @abc.abstractmethod
    def watcher(self, experiment: Experiment, n_workers: int) -> Watcher:
        """Return what shows the next search."""

    @abc.abstractmethod
    def note(self, text: str) -> None:
        """Show what a person should read, while there is a search or not."""

    @abc.abstractmethod
    def found(self, read: Callable[[], StudyRecord]) -> None:
        """A search was made by an earlier run; `read` reads it."""

    @abc.abstractmethod
    def searched(self, planned: Planned, record: StudyRecord, seconds: float) -> None:
        """A search of this run came to its end."""

    @abc.abstractmethod
    def result(self, comparison: Comparison, folder: Path, commands: list[tuple[str, str]]) -> None:
        """Show how the strategies differ, where more is written, and what to type next."""

    def news(self, texts: Sequence[str]) -> list[str]:
        """Return those of the texts that no earlier search has shown."""
        found = [text for text in texts if text not in self._said]
        self._said.update(found)
        return found


class Lines(Show):
    """A line for each search, over what shows the one that runs; then a table."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        super().__init__()
        self._console = PipeConsole(highlight=False, soft_wrap=True)
        self._stopping = stopping
        self._watcher: Watcher | None = None
        self._n_searches = 0  # that no earlier run has made
        self._seconds: list[float] = []  # that those took which are done

    def begun(self, experiments: Sequence[Experiment], planned: Sequence[Planned]) -> None:
        """Say how much there is to do."""
        self._n_searches = sum(not one.done for one in planned)
        names = ", ".join(e.strategy.name for e in experiments)
        seeds = sorted({one.experiment.seed for one in planned})
        which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
        n_before = len(planned) - self._n_searches
        before = f", {n_before} of them made before" if n_before else ""
        self.note(
            f"comparing {names} on {experiments[0].name}: {which}, "
            f"{experiments[0].n_trials} trials each, {len(planned)} searches{before}"
        )

    def watcher(self, experiment: Experiment, n_workers: int) -> Watcher:
        """Return the table of a search, which vanishes with it, or its lines."""
        settings = experiment.finalists.model_copy(update={"top": 0})  # none are retrained
        experiment = experiment.model_copy(update={"finalists": settings})
        self._watcher = make_watcher(experiment, n_workers, self._stopping, False, transient=True)
        return self._watcher

    def note(self, text: str) -> None:
        """Print a line."""
        if self._watcher is not None:
            self._watcher.note(text)
        else:
            self._console.print(text, markup=False)

    def found(self, read: Callable[[], StudyRecord]) -> None:
        """Print nothing: how many they are is said at the beginning."""

    def searched(self, planned: Planned, record: StudyRecord, seconds: float) -> None:
        """Print what it came to, and how long the others will take."""
        self._seconds.append(seconds)
        n_ended, n_all = len(self._seconds), self._n_searches
        best, metric = record.best, record.experiment.objective.metric
        score = f"{metric} {number(best.value)} (trial {best.number})" if best else "none complete"
        parts = [f"{n_ended} of {n_all}: {planned.study}", score, clock_text(seconds)]
        if n_ended < n_all:
            left_s = (n_all - n_ended) * sum(self._seconds) / n_ended
            parts.append(f"about {clock_text(left_s)} left")
        self.note("  ".join(parts))

    def result(self, comparison: Comparison, folder: Path, commands: list[tuple[str, str]]) -> None:
        """Print the table and the verdict."""
        from tuner.comparison.files import FILES
        from tuner.comparison.page import confidence_text, interval_text
        from tuner.comparison.verdict import score_text

        table = Table(box=box.SIMPLE_HEAD)
        rows = comparison.rows
        interval = confidence_text(rows[0])
        table.add_column("strategy")
        for heading in (f"median {comparison.metric}", interval, "seconds"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows:
            scores = score_text(row.median), interval_text(row)
            table.add_row(row.strategy, *scores, f"{row.seconds:.1f}")
        console.print(table)
        if comparison.to_beat is not None:
            console.print(escape(comparison.to_beat), soft_wrap=True)
        console.print(f"[bold]{escape(comparison.verdict)}.[/]", soft_wrap=True)
        files = f"[bold]{escape(str(folder / FILES[0]))}[/], and {', '.join(FILES[1:])} beside it"
        console.print(f"wrote {files}", soft_wrap=True)
        show_next(commands)


class Events(Show):
    """The events of every search, one search after another, and at last the comparison's."""

    def __init__(self) -> None:
        super().__init__()
        self._events = JsonEvents(sys.stdout)
        self.whole = self._events

    def begun(self, experiments: Sequence[Experiment], planned: Sequence[Planned]) -> None:
        """Write nothing: every search says what it is."""

    def watcher(self, experiment: Experiment, n_workers: int) -> Watcher:
        """Return the same for all."""
        return self._events

    def note(self, text: str) -> None:
        """Write an event."""
        self._events.note(text)

    def found(self, read: Callable[[], StudyRecord]) -> None:
        """Write its result."""
        self._events.result(read(), [])

    def searched(self, planned: Planned, record: StudyRecord, seconds: float) -> None:
        """Write its result."""
        self._events.result(record, [])

    def result(self, comparison: Comparison, folder: Path, commands: list[tuple[str, str]]) -> None:
        """Write all but the curves, which are in the folder."""
        self._events.comparison(comparison.to_json() | {"folder": str(folder)})
