"""Which columns an exported model reads, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuner.data.wide import WideColumns, columns_of_series
from tuner.dialect import Dialect
from tuner.transform_steps import Step

__all__ = ["Columns"]


@dataclass(frozen=True)
class Columns:
    """Which columns are read, and how; a `tuner.data.preparation.Preparation`."""

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
        """Those that hold numbers; of a wide file the columns that it becomes."""
        return list(dict.fromkeys([*(self.features or []), *self.targets, *self.lags]))

    @property
    def names(self) -> list[str]:
        """Of all that are read."""
        others = (self.id, self.time, self.text, self.tokens)
        return [*(name for name in others if name is not None), *self.numbers]

    def names_in(self, known: list[str]) -> list[str]:
        """Return the columns of a file that are read, of all that it has."""
        if self.wide is None:
            return self.names
        made = (self.wide.id, self.wide.value)
        return [
            *(name for name in self.names if name not in made),
            *columns_of_series(self.wide, known),
        ]
