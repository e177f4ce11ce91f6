"""Columns that an exported model reads, and warnings and errors about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tuner.errors import DataError
from tuner.pipeline_steps import Dialect, Step
from tuner.tables.rows import WideColumns, columns_of_series

__all__ = ["Columns", "PredictionWarning", "distinct", "for_a_model"]


def distinct(names: Sequence[str]) -> list[str]:
    """Return the names, with underscores behind repeated ones."""
    found: list[str] = []
    for name in names:
        while name in found:
            name += "_"
        found.append(name)
    return found


class PredictionWarning(UserWarning):
    """Part of the data has no prediction, or is unknown to the model."""


def for_a_model(error: DataError) -> DataError:
    """Return the error without the key of an experiment and the remedy that changes one."""
    key = "resample" if error.key == "data.resample" else None  # the model's own step
    remedy = error.remedy or ("correct the data" if error.changes else None)
    return error.with_(key=key, remedy=remedy, changes=())


@dataclass(frozen=True)
class Columns:
    """The columns that are read, as a `tuner.data.preprocessing.Preparation`."""

    time: str | None
    id: str | None
    targets: list[str]  # of a forecast; a sequence needs no label
    features: list[str] | None
    missing: str
    text: str | None = None
    level: str = "character"
    tokens: str | None = None
    vocabulary_size: int | None = None
    max_length: int | None = None
    keep: str = "first"
    resample: str | None = None
    aggregate: str = "mean"
    calendar: list[str] = field(default_factory=list)
    lags: dict[str, list[int]] = field(default_factory=dict)
    known_future: list[str] | None = None
    categories: list[str] = field(default_factory=list)
    static: list[str] = field(default_factory=list)
    weight: None = None  # of targets in training: there are none to come
    transform: Step | list[Step] = "none"
    wide: WideColumns | None = None
    dialect: Dialect = field(default_factory=Dialect)

    @property
    def numbers(self) -> list[str]:
        """The numeric columns; of a wide file those after reshaping."""
        return list(dict.fromkeys([*(self.features or []), *self.targets, *self.lags]))

    @property
    def names(self) -> list[str]:
        """The names of all columns that are read."""
        others = (self.id, self.time, self.text, self.tokens)
        return [*(name for name in others if name is not None), *self.numbers]

    def names_in(self, known: list[str]) -> list[str]:
        """Return the columns that are read of those in a file."""
        if self.wide is None:
            return self.names
        made = (self.wide.id, self.wide.value)
        return [
            *(name for name in self.names if name not in made),
            *columns_of_series(self.wide, known),
        ]
