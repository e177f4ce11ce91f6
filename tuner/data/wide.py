"""Files with a column for each series: their rows become rows of one column, series by series."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd

from tuner.data.tables import RawTable, as_numbers, refusal
from tuner.errors import nearest

__all__ = ["Wide", "WideColumns", "columns_of_series", "melted", "stem_of_series"]

_FEWEST = 3  # columns with one stem that seem to be series
_MOST_ROWS = 50_000_000  # of the long table
_STEM = re.compile(r"(.*?[^\W\d_])[\W_]*(?:\d+|(?<=[\W_])[^\W_]+)")  # store_1, sales Berlin


class Wide(Protocol):
    """What the columns of series become; see `tuner.experiment.wide.Wide`."""

    @property
    def id(self) -> str:
        """The column that names the series."""

    @property
    def value(self) -> str:
        """The column of their values."""

    @property
    def columns(self) -> str | list[str]:
        """Columns of the file: a pattern, or a list of names."""


@dataclass(frozen=True)
class WideColumns:
    """A `Wide` as a model's pipeline has it."""

    id: str
    value: str
    columns: str | list[str]


def columns_of_series(wide: Wide, names: Sequence[str]) -> list[str]:
    """Return the columns of a file that are series, in its order.

    Args:
        wide: which ones.
        names: of all columns of the file.
    """
    if isinstance(wide.columns, str):
        return [name for name in names if fnmatch.fnmatchcase(name, wide.columns)]
    return [name for name in names if name in wide.columns]


def melted(table: RawTable, wide: Wide, time: str | None) -> tuple[RawTable, np.ndarray]:
    """Return a table in which the columns of series stand one below another.

    What stands before the first value of a series is no row of it; other columns are repeated.

    Args:
        table: with a column for each series.
        wide: what they become.
        time: column of times, which is none of a series.

    Returns:
        The table, and the row of the file that each of its rows was, (rows,).

    Raises:
        DataError: there are no such columns, or they hold something else than numbers.
    """
    path, frame, names = table.path, table.frame, table.names
    found = _found(table, wide, time)
    others = [name for name in names if name not in found]
    for key, name in (("id", wide.id), ("value", wide.value)):
        if name in others:
            text = f"must be a new name, got {name!r}, which is a column of the file"
            raise refusal(path, f"data.wide.{key}", f"{text}; write another")
    if len(frame) * len(found) > _MOST_ROWS:
        text = f"{len(frame):,} rows of {len(found):,} columns are more than {_MOST_ROWS:,} values"
        raise refusal(path, "data.wide.columns", f"{text}; name fewer columns")
    values, rows = [], []
    for name in found:
        column, bad = as_numbers(frame[name])
        if len(bad):
            text = f"column {name!r} must hold numbers, got {frame[name][bad[0]]!r} in "
            remedy = "; write a number there (1234.5), or leave the column out of data.wide.columns"
            raise refusal(path, "data.wide.columns", text + table.place_of(bad[0]) + remedy)
        known = np.flatnonzero(~np.isnan(column))
        first = int(known[0]) if len(known) else len(column)
        if first == len(column):
            text = f"column {name!r} must hold numbers, got none"
            remedy = "leave the column out of data.wide.columns"
            raise refusal(path, "data.wide.columns", f"{text}; {remedy}")
        values.append(column[first:])
        rows.append(np.arange(first, len(column)))
    together = np.concatenate(rows)
    long = frame[others].iloc[together].reset_index(drop=True)
    series = np.repeat(np.array(found, dtype=object), [len(of) for of in rows])
    long = long.assign(**{wide.id: series, wide.value: np.concatenate(values)})
    lines = together if table.lines is None else table.lines[together]
    return replace(table, frame=long, body=None, given=None, lines=lines), together


def _found(table: RawTable, wide: Wide, time: str | None) -> list[str]:
    """Return the columns of series, none of which is missing, or the time."""
    path, names = table.path, table.names
    found = columns_of_series(wide, names)
    if isinstance(wide.columns, list):
        for name in wide.columns:
            if name not in names:
                text = f"no column {name!r} in the file{nearest(name, names)}"
                raise refusal(path, "data.wide.columns", text)
    if not found:
        text = f"no column of the file is like {wide.columns!r}, got {', '.join(names[:8])}"
        raise refusal(path, "data.wide.columns", f"{text}; write a pattern that some are like")
    if time is not None and time in found:
        text = f"must not name the time column, got {time!r}"
        raise refusal(path, "data.wide.columns", f"{text}; write a narrower pattern, or a list")
    return found


def stem_of_series(numbers: Sequence[str]) -> tuple[str, str, list[str]] | None:
    """Return the pattern of columns that seem to be series of one quantity, as names tell.

    They are at least three, and at least half of the columns of numbers, whose names differ in
    their last part alone: `store_1`, `store_2`, `store_3`.

    Args:
        numbers: columns of numbers, in the order of the file.

    Returns:
        The pattern, the stem, and the columns; None where there are none.
    """
    stems: dict[str, list[str]] = {}
    for name in numbers:
        if (found := _STEM.fullmatch(name)) is not None:
            stems.setdefault(found[1], []).append(name)
    if not stems:
        return None
    stem, names = max(stems.items(), key=lambda item: len(item[1]))
    if len(names) < max(_FEWEST, len(numbers) / 2) or not pd.Index(names).is_unique:
        return None
    ends = {name[len(stem)] for name in names}
    pattern = f"{stem}{ends.pop() if len(ends) == 1 and not names[0][len(stem)].isdigit() else ''}*"
    if re.search(r"[\[\]?*]", pattern[:-1]):  # which a pattern would not take as they are
        return None
    return pattern, stem, names
