"""What `tuner init` is asked, and what it has written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tuner.data.dataset import Dataset
from tuner.data.guessing import Columns
from tuner.data.preparing import check_data
from tuner.experiment import Experiment, parse_value

__all__ = ["Asked", "Written", "check_text"]


@dataclass(frozen=True)
class Asked:
    """The data file, and what was said about it on the command line."""

    path: Path  # of the rows that are looked at
    columns: Columns
    features: list[str] | None
    resample: str | None
    time_given: bool  # and not guessed
    horizon: int | None
    name: str  # of the experiment, as YAML
    written_path: str  # of the data, from the experiment file, as YAML
    times_more: float = 1.0  # rows in the whole file


@dataclass(frozen=True)
class Written:
    """An experiment file, and what is told about it."""

    text: str
    does: str  # with markup
    found: str = ""
    read: tuple[str, ...] = ()  # of how the file is written, what a plain one does not have
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
