"""What `tuner init` is asked and proposes: the rows it looks at, plans, lines of YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuner.data.prepared import Dataset, check_data
from tuner.errors import InputError, show_path
from tuner.experiment import Experiment, parse_value
from tuner.experiment.yaml_files import text_of
from tuner.planning.columns import Columns

_MOST_NAMES = 8  # of a list that people read
_COLUMN = 39  # of comments behind short lines
_MOST_BYTES = 2_000_000  # that are looked at in two seconds
_LARGE = 2  # times as many: of a file that is hardly larger, all


@dataclass(frozen=True)
class Request:
    """What is asked for: the data file, its guessed columns, and the options of `tuner init`."""

    path: Path  # of the rows that are looked at
    columns: Columns
    features: list[str] | None
    resample: str | None
    time_given: bool  # and not guessed
    horizon: int | None
    name: str  # of the experiment
    written_path: str  # of the data, from the experiment file
    times_more: float = 1.0  # rows in the whole file


@dataclass(frozen=True)
class Proposal:
    """A proposed experiment file, and facts about it for the user."""

    text: str
    does: str  # with markup
    found: str = ""
    read: tuple[str, ...] = ()  # unusual parts of its dialect
    filled: bool = False  # missing values are filled in
    made_up: tuple[int, int] = (0, 1)  # rows that are in no line, of how many
    known_ahead: str = ""  # columns, and in which rows
    not_read: list[str] = field(default_factory=list)  # columns of numbers
    seconds: float = 0.0  # that a trial takes, about, where that is known
    hourly: bool = False  # the rows of a forecast are hours apart, or less


def check_text(text: str, data: Path, file: Path) -> Dataset:
    """Check an experiment before it is written, and return its data.

    Raises:
        InputError: what `tuner check` would refuse.
    """
    raw = parse_value(text, str(file))
    raw["data"]["path"] = str(data)
    return check_data(Experiment.model_validate(raw))


@dataclass(frozen=True)
class Sample:
    """The file that is inspected: the data file, or a copy of its first lines."""

    path: Path
    times_more: float  # bytes, and so about rows, in the data file; 1 for the whole file


@contextmanager
def sampled(path: Path, most: int = _MOST_BYTES) -> Iterator[Sample]:
    """Yield a copy of the first lines of a large text file; of any other file, the file.

    An error about the sample names the data file: its lines are the same.
    """
    head = _first_lines(path, most)
    if head is None:
        yield Sample(path, 1.0)
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(head)
        try:
            yield Sample(copy, path.stat().st_size / len(head))
        except InputError as error:
            if error.where != show_path(copy):
                raise
            raise error.with_(where=show_path(path)) from None


def _first_lines(path: Path, most: int) -> bytes | None:
    """Return whole lines from the beginning of a large text file; None of any other file."""
    try:
        if path.stat().st_size <= _LARGE * most:
            return None
        with path.open("rb") as file:
            head = file.read(most)
    except OSError:
        return None  # reading it raises the error
    end = head.rfind(b"\n")
    while end >= 0 and head.count(b'"', 0, end) % 2:  # within a quoted value
        end = head.rfind(b"\n", 0, end)
    if b"\0" in head or head.count(b"\n", 0, end + 1) < 2:
        return None
    return head[: end + 1]


@dataclass(frozen=True)
class Choice:
    """A value, as YAML, and the reason for it."""

    value: str
    why: str


@dataclass(frozen=True)
class SearchPlan:
    """The part of a plan that every task has."""

    metric: Choice
    hidden_sizes: tuple[int, int]
    learning_rates: tuple[float, float]
    batch_sizes: tuple[int, ...]
    trials: int
    epochs: int
    patience: int
    startup: int  # trials before the pruner acts
    warmup: int  # epochs that it leaves alone

    def space_lines(self) -> list[str]:
        """Return the lines of the search space that are the same for every task."""
        (least, most), (slow, fast) = self.hidden_sizes, self.learning_rates
        return [
            *key("hidden_size", {"type": "int", "low": least, "high": most, "log": True}),
            *key("dropout", {"type": "float", "low": 0.0, "high": 0.5}),
            *key("learning_rate", {"type": "float", "low": slow, "high": fast, "log": True}),
        ]

    def search_lines(self) -> list[str]:
        """Return strategy, budget, pruner and objective."""
        pruner = f"n_startup_trials: {self.startup}, n_warmup_steps: {self.warmup}"
        return [
            commented("strategy: {name: tpe}", "tuner strategies lists them"),
            f"budget: {{trials: {self.trials}, epochs: {self.epochs}, patience: {self.patience}}}",
            commented(f"pruner: {{name: median, {pruner}}}", "ends poor trials"),
            commented(f"objective: {{metric: {self.metric.value}}}", self.metric.why),
        ]


def listed(names: Sequence[str]) -> str:
    """Return names in one line; of a long list, the first ones and the number of the others."""
    if len(names) <= _MOST_NAMES + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMES])} and {len(names) - _MOST_NAMES} more"


def printable(text: str) -> str:
    """Return a text for a comment: characters that cannot be printed become blanks."""
    return "".join(c if c.isprintable() else " " for c in text)


def commented(text: str, why: str) -> str:
    """Return a line with a comment behind it."""
    return f"{text:<{_COLUMN}}  # {why}" if why else text


def key(name: str, value: Any, why: str = "") -> list[str]:
    """Return the line of a key in a block, with a comment; no line if the value is None."""
    if isinstance(value, Choice):
        return [commented(f"  {name}: {value.value}", value.why)]
    return [] if value is None else [commented(f"  {name}: {text_of(value)}", why)]


def choices(name: str, values: Sequence[str | int | float | bool]) -> list[str]:
    """Return the line of a search space for a parameter with several values; no line for one."""
    return key(name, {"type": "categorical", "choices": values} if len(values) > 1 else None)


def batch_sizes_for(samples: int) -> tuple[int, ...]:
    """Return the batch sizes to search for a number of training windows or sequences."""
    if samples < 1000:
        return (8, 16, 32)
    return (16, 32, 64) if samples < 5000 else (64, 128, 256)
