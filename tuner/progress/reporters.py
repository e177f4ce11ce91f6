"""Reporters of a search: a live table on a terminal, plain lines, or JSON for programs.

The coordinator's thread only counts. Rich draws in its own thread, so the cost of drawing does not
depend on the number of events.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Self, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.coordination.coordinator import Asked, Observer, SearchStart
from tuner.errors import Interrupted, TunerError, one_line
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.records import StudyRecord
from tuner.journal.storage import Role, TrialKey
from tuner.outputs import Terminal
from tuner.progress.display import PipeConsole, params_line, show_next, show_result
from tuner.progress.display import number as text_of
from tuner.progress.progress import InProgress, Progress, Stage, clock_text
from tuner.results.summary import summarize


class Reporter(Observer):
    """Shows a search from its beginning to its result. This base class shows nothing.

    It is a context manager for the search; `result` and `ended` are called after its exit.
    """

    muted = False
    """Whether notes are not shown: they are of a time before the user joined the search."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the terminal."""

    def result(self, record: StudyRecord, commands: list[tuple[str, str]]) -> None:
        """The search is done; `commands` are what to type next, each with a remark."""

    def ended(self, state: str, reason: str | None, exit_status: int) -> None:
        """The last call; `state` is done, interrupted or failed.

        `reason` is the message that the entry point prints; None if the search is done.
        """


class _ConsoleReporter(Progress, Reporter):
    """Prints messages and the result on a console."""

    def __init__(self, console: Console, **progress: Callable[[], Any]) -> None:
        super().__init__(**progress)  # the arguments of `Progress`
        self.console = console
        self._noted = set[str]()

    def result(self, record: StudyRecord, commands: list[tuple[str, str]]) -> None:
        show_result(record, said=self._noted)
        show_next(commands)

    def lost(self, key: TrialKey, reason: str) -> None:
        super().lost(key, reason)
        self.note(f"{key.name} runs again: {reason}")

    def note(self, text: str) -> None:
        if not self.muted:
            self._noted.add(text)
            self.console.print(text, markup=False)


_SILENCE_S = 20.0  # without a line, after which a line about a running trial is printed


class PlainReporter(_ConsoleReporter):
    """Prints a line for every trial that ends in this run."""

    def __init__(self, console: Console, **progress: Callable[[], Any]) -> None:
        super().__init__(console, **progress)
        self._last_line = self.clock()

    def asked(self, trial: Asked) -> None:
        super().asked(trial)
        if trial.repeat_of is not None:
            self.note(f"{trial.key.name} repeats trial {trial.repeat_of}: not trained again")

    def epoch(self, key: TrialKey, epoch: Epoch) -> None:
        super().epoch(key, epoch)
        if self.clock() - self._last_line > _SILENCE_S:
            at = f"epoch {epoch.epoch + 1}, {self.metric} {text_of(epoch.metric)}"
            self._print(f"{key.name} is running: {at}", self.time_left(self.stage(key)))

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        super().finished(key, outcome, earlier)
        if earlier:
            return
        stage, value, score, best = self.stage(key), outcome.objective, "", ""
        reason = f": {outcome.reason}" if outcome.reason else ""
        if value is not None:
            score = f"{self.metric} {text_of(value)}"
        if self.best and key.role is Role.TRIAL:
            best = f"best {text_of(self.best[0])} (trial {self.best[1]})"
        line = f"[{stage.count}] {key.name} {outcome.state}{reason}"
        self._print(line, score, best, self.time_left(stage))

    def note(self, text: str) -> None:
        self._last_line = self.clock()
        super().note(text)

    def _print(self, *parts: str) -> None:
        self.note("  ".join(part for part in parts if part))


_STARTING = "starting"  # in place of the epochs, until the first one ends
_FRAMES_PER_SECOND = 5
_MOST_ROWS = 12
_OTHER_LINES = 10  # bars, counts, heading, and some earlier output


class Rows:
    """Assigns rows to trials: a trial keeps its row until it ends, then the next one gets it."""

    def __init__(self) -> None:
        self._shown: list[InProgress | None] = []

    def update(self, running: list[InProgress], most: int) -> list[InProgress | None]:
        """Return the trial of each row; the number of rows does not fall, unless `most` does."""
        alive = {id(trial) for trial in running}
        shown = [t if id(t) in alive else None for t in self._shown[:most]]
        kept = {id(trial) for trial in shown}
        rest = [trial for trial in running if id(trial) not in kept]
        shown += [None] * (min(most, len(running)) - len(shown))
        self._shown = [trial or (rest.pop(0) if rest else None) for trial in shown]
        return list(self._shown)


class LiveReporter(_ConsoleReporter):
    """Draws the running trials and a bar with counts, the best score and the time left."""

    def __init__(
        self, console: Console, *, transient: bool = False, **progress: Callable[[], Any]
    ) -> None:
        super().__init__(console, **progress)
        self._rows, self._over, self._prunes = Rows(), False, False
        self._live = Live(
            get_renderable=self.frame,
            console=console,
            refresh_per_second=_FRAMES_PER_SECOND,
            transient=transient,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing; the bars stay on the terminal, unless they are transient."""
        self._over = True
        self._live.stop()

    def begin(self, experiment: Experiment, *args: Any, **keys: Any) -> None:
        super().begin(experiment, *args, **keys)
        self._prunes = experiment.pruner.name != "none"

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        super().finished(key, outcome, earlier)
        if outcome.state is OutcomeState.FAILED and not earlier:
            self.note(f"{key.name} failed: {outcome.reason}")

    def frame(self) -> RenderableType:
        """Return the current display."""
        with self.lock:
            stages = self.begun_stages()
            if not stages:
                return ""
            parts: list[RenderableType] = [self._bars(stages), self._counts()]
            if not self._over and stages[-1].done < stages[-1].total:
                parts.insert(0, self._table())
            return Group(*parts)

    def _table(self) -> RenderableType:
        now, running = self.clock(), list(self.running.values())
        most = max(1, min(_MOST_ROWS, self.console.height - _OTHER_LINES))
        rows = self._rows.update(running, most)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        epochs = max(len(_STARTING), len(f"{self.n_epochs}/{self.n_epochs}"))
        # Columns have fixed widths, because columns that move are hard to read.
        for heading, width in (("trial", 9), ("epoch", epochs), (self.metric, 7), ("time", 5)):
            table.add_column(heading, justify="right", no_wrap=True, min_width=width)
        table.add_column("configuration")  # shortened on a narrow terminal
        for trial in rows:
            if trial is None:
                table.add_row("")
                continue
            params = params_line(dict(trial.params)) if trial.params else ""
            table.add_row(
                trial.key.name.removeprefix("trial "),
                _STARTING if trial.since is None else f"{trial.epochs}/{self.n_epochs}",
                text_of(trial.value),
                "-" if trial.since is None else clock_text(now - trial.since),
                Text(params, style="dim", no_wrap=True, overflow="ellipsis"),
            )
        unseen = len(running) - sum(row is not None for row in rows)
        more = f"          … and {unseen} more\n" if unseen else ""
        return Group(table, more)

    def _bars(self, stages: list[Stage]) -> Table:
        bars = Table.grid(padding=(0, 1))
        bars.add_column(justify="right", width=9)
        bars.add_column(width=24)
        for _ in range(3):
            bars.add_column(no_wrap=True)
        for stage in stages:
            left = self.time_left(stage) if stage is stages[-1] and not self._over else ""
            if self.stopping() and stage.done < stage.total:
                left = "stopping"
            total = None if math.isinf(stage.total) else stage.total
            bars.add_row(
                stage.title,
                ProgressBar(total=total, completed=stage.done, width=24),
                stage.count,
                Text(clock_text(self.elapsed(stage)), style="yellow"),
                Text(left, style="cyan"),
            )
        return bars

    def _counts(self) -> Text:
        parts = []
        if self.best:
            score, trial = self.best
            parts.append((f"best {self.metric} {text_of(score)} (trial {trial})", "green"))
        if self._prunes:
            parts.append((f"{self.stages[Role.TRIAL].counts[OutcomeState.PRUNED]} pruned", ""))
        if failed := sum(s.counts[OutcomeState.FAILED] for s in self.stages.values()):
            parts.append((f"{failed} failed", "red"))
        if self.waiting and not self.stopping():
            parts.append((f"{len(self.waiting)} waiting", ""))
        return Text(" " * 10) + Text(", ").join(Text(*part) for part in parts)


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON, in one line unless indented; numbers that are not finite are null."""
    separators = None if indent else (",", ":")
    return json.dumps(_finite(value), allow_nan=False, indent=indent, separators=separators)


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value


class EventWriter(Reporter, ABC):
    """Makes an object of each event, for JSON; `docs/commands.md` lists them and their keys.

    A resumed search first reports what its earlier runs had finished, marked `earlier`.

    Args:
        clock: returns seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._begun = False

    @abstractmethod
    def write(self, event: dict[str, Any]) -> None:
        """Write an event; any thread calls this with a note, the coordinator's with all others.

        The first key is `event`, its name; the second one is `time`.
        """

    def on_start(self, start: SearchStart) -> None:
        self._begun, record = True, start.record
        experiment = record.experiment
        self._write(
            "begun",
            study=record.name,
            id=record.id,
            journal=start.journal,
            experiment=experiment.name,
            strategy=experiment.strategy.name,
            seed=experiment.seed,
            metric=experiment.objective.metric,
            direction=experiment.objective.direction,
            trials=experiment.n_trials,
            trained=len(record.trained),
            epochs=experiment.budget.epochs * experiment.n_folds,
            workers=start.n_workers,
            executor=start.executor,
            asynchronous=experiment.asynchronous,
        )

    def asked(self, trial: Asked) -> None:
        self._trial("asked", trial.key, params=trial.params, repeat_of=trial.repeat_of)

    def dispatched(self, key: TrialKey, cost: float) -> None:
        self._trial("dispatched", key, cost=cost)

    def epoch(self, key: TrialKey, epoch: Epoch) -> None:
        self._trial(
            "epoch",
            key,
            epoch=epoch.epoch + 1,
            value=epoch.metric,
            train_loss=epoch.train_loss,
            val_loss=epoch.val_loss,
            fold=epoch.fold,
        )

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        self._trial(
            "finished",
            key,
            state=outcome.state.value,
            value=outcome.objective,
            reason=outcome.reason,
            epochs=len(outcome.history),
            seconds=round(outcome.seconds, 3),
            weights=outcome.n_weights,
            latency_ms=outcome.latency_ms,
            earlier=earlier,
        )

    def lost(self, key: TrialKey, reason: str) -> None:
        self._trial("lost", key, reason=reason)

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def result(self, record: StudyRecord, commands: list[tuple[str, str]]) -> None:
        """Write the result as `tuner show --json` prints it, without the trials."""
        self._write("result", **summarize(record).to_json())

    def comparison(self, facts: Mapping[str, Any]) -> None:
        """Write the result of a comparison, after those of its searches."""
        self._begun = True  # even if all searches were run before
        self._write("comparison", **facts)

    def ended(self, state: str, reason: str | None, exit_status: int) -> None:
        """Write how the search ended, unless its input was refused before it began."""
        if self._begun:
            self._write("ended", state=state, reason=reason, exit_status=exit_status)

    def _trial(self, event: str, key: TrialKey, **facts: Any) -> None:
        which: dict[str, Any] = {"role": key.role.value, "trial": key.number}
        if key.role is Role.FINALIST:
            which["configuration"] = key.configuration
        if key.role is not Role.TRIAL:
            which["repeat"] = key.repeat
        self._write(event, **which, **facts)

    def _write(self, event: str, **facts: Any) -> None:
        self.write({"event": event, "time": round(self._clock(), 3), **facts})


class JsonReporter(EventWriter):
    """Writes each event to a stream as JSON, in a line, at once."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._stream = stream
        self._lock = threading.Lock()  # the tracker writes notes from a thread of its own

    def write(self, event: dict[str, Any]) -> None:
        line = to_json(event)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


_MANY = 3  # failures


class FailureNotice(Observer):
    """Writes one note if every trial so far has failed, after three failures in this run."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note, self._failures, self._over = note, 0, False

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        if self._over or key.role is not Role.TRIAL:
            return
        if outcome.state is not OutcomeState.FAILED:
            self._over = True
        elif not earlier:
            self._failures += 1
            if self._failures == _MANY:
                self._over = True
                self._note(f"every trial so far has failed: {outcome.reason}; Ctrl-C stops")


def make_reporter(
    stopping: Callable[[], bool],
    *,
    as_json: bool,
    transient: bool = False,
    clock: Callable[[], float] | None = None,
) -> Reporter:
    """Return the reporter for standard output: live on a terminal, else plain, or JSON.

    Args:
        stopping: returns whether no further trial starts.
        as_json: whether to write events as JSON.
        transient: whether the live display vanishes when the search ends.
        clock: returns seconds since 1970 where the search runs; None for this machine.
    """
    if as_json:
        return JsonReporter(sys.stdout)
    clocks = {} if clock is None else {"clock": clock, "wall": clock}
    console = PipeConsole(highlight=False, soft_wrap=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return PlainReporter(console, stopping=stopping, **clocks)
    terminal = Console(file=cast("IO[str]", Terminal(sys.stdout)), highlight=False, soft_wrap=True)
    return LiveReporter(terminal, transient=transient, stopping=stopping, **clocks)


@contextlib.contextmanager
def reported_end(reporter: Reporter) -> Iterator[None]:
    """Report how a search ended."""
    try:
        yield
    except BaseException as error:
        state = "interrupted" if isinstance(error, Interrupted) else "failed"
        status = error.exit_status if isinstance(error, TunerError) else 1
        reporter.ended(state, one_line(error) or type(error).__name__, status)
        raise
    reporter.ended("done", None, 0)
