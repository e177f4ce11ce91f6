"""What is done to the columns of a file, whoever says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tuner.data.wide import Wide
from tuner.dialect import Dialect
from tuner.transform_steps import Step

__all__ = ["Preparation"]


class Preparation(Protocol):
    """Which columns are read, and how: `data` of an experiment, or the record beside a model.

    The attributes are the keys of an experiment's `data`.
    """

    @property
    def dialect(self) -> Dialect:
        """What is declared of how the file writes its table."""

    @property
    def time(self) -> str | None:
        """Column of times."""

    @property
    def id(self) -> str | None:
        """Column that says which series or sequence a row belongs to."""

    @property
    def wide(self) -> Wide | None:
        """Columns of the file that are series."""

    @property
    def targets(self) -> list[str]:
        """Columns to predict; none where sequences have no label yet."""

    @property
    def features(self) -> list[str] | None:
        """Columns that the model sees; None for every numeric one."""

    @property
    def text(self) -> str | None:
        """Column of texts."""

    @property
    def level(self) -> str:
        """What a text is cut into."""

    @property
    def tokens(self) -> str | None:
        """Column of tokens."""

    @property
    def vocabulary_size(self) -> int | None:
        """Tokens are numbers below it."""

    @property
    def max_length(self) -> int | None:
        """Steps that are read of a sequence at most."""

    @property
    def keep(self) -> str:
        """Which steps of a longer one: its first or its last."""

    @property
    def missing(self) -> str:
        """What is done about missing values."""

    @property
    def resample(self) -> str | None:
        """Frequency that the rows are brought to."""

    @property
    def aggregate(self) -> str:
        """What the rows of one step are made into."""

    @property
    def calendar(self) -> Sequence[str]:
        """Features made of the time."""

    @property
    def lags(self) -> Mapping[str, Sequence[int]]:
        """Features made of columns: their values so many rows before."""

    @property
    def known_future(self) -> Sequence[str] | None:
        """Columns whose coming values are known; None where not even the calendar's are."""

    @property
    def categories(self) -> Sequence[str]:
        """Columns whose values are categories; that of the series' names may be one."""

    @property
    def weight(self) -> str | None:
        """Column of what a row's targets count in loss and metric; none where a model predicts."""

    @property
    def static(self) -> Sequence[str]:
        """Columns that are the same in all rows of a series."""

    @property
    def transform(self) -> Step | list[Step]:
        """Done to the target columns before scaling; see `tuner.transform_steps`."""
