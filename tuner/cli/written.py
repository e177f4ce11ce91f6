"""What `tuner init` is asked, and what it has written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tuner.data.guessing import Columns

__all__ = ["Asked", "Written"]


@dataclass(frozen=True)
class Asked:
    """The data file, and what was said about it on the command line."""

    path: Path
    columns: Columns
    features: list[str] | None
    resample: str | None
    time_given: bool  # and not guessed
    horizon: int | None
    name: str  # of the experiment, as YAML
    written_path: str  # of the data, from the experiment file, as YAML


@dataclass(frozen=True)
class Written:
    """An experiment file, and what is told about it."""

    text: str
    does: str  # with markup
    found: str = ""
    filled: bool = False  # missing values are filled in
    not_read: list[str] = field(default_factory=list)  # columns of numbers
