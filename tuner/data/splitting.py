"""Cuts a series into training, validation and test rows, in that order of time."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pandas as pd

from tuner.data.tables import refusal
from tuner.data.times import show_time
from tuner.experiment.schema import Split

__all__ = ["Parts", "split_rows"]


@dataclass(frozen=True)
class Parts:
    """The rows [start, end) whose targets belong to each part; each begins where one ends."""

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]

    def named(self) -> dict[str, tuple[int, int]]:
        """Return the parts by name, in order."""
        return {"training": self.train, "validation": self.validation, "test": self.test}


def split_rows(
    n_rows: int,
    split: Split,
    times: pd.DatetimeIndex | None,
    *,
    window: int,
    horizon: int,
    file: Path | str,
    first: int = 0,
) -> Parts:
    """Cut the rows [first, n_rows) into three parts, each long enough for a window's targets.

    Raises:
        DataError: a date is of no use, or a part is too short.
    """
    test = _begin(n_rows, "test", split.test, n_rows, times, file)
    validation = _begin(n_rows, "validation", split.validation, test, times, file)
    if isinstance(split.validation, str) and test > 0 and validation >= test:
        begin = f"row {test + 1}" if times is None else show_time(times[test])
        text = f"must begin before the test part ({begin}), got {split.validation}; "
        raise refusal(file, "data.split.validation", text + "write an earlier date")
    if validation <= first:
        n_validation, n_test = test - validation, n_rows - test
        text = (
            f"no row is left to train on, validation takes {n_validation} and test {n_test} of "
            f"{n_rows} rows; make validation or test smaller"
        )
        raise refusal(file, "data.split", text)
    for name, n_part in (("validation", test - validation), ("test", n_rows - test)):
        if n_part < horizon:
            text = (
                f"the part needs as many rows as the horizon, {horizon}, got {n_part} of {n_rows}; "
                f"make data.split.{name} larger or task.horizon smaller"
            )
            raise refusal(file, f"data.split.{name}", text)
    if validation - first < window + horizon:
        text = (
            f"the training part needs {window + horizon} rows (window {window} + horizon "
            f"{horizon}), got {validation - first} of {n_rows}; make task.window, task.horizon, "
            f"data.split.validation or data.split.test smaller"
        )
        raise refusal(file, "task.window", text)
    return Parts((first, validation), (validation, test), (test, n_rows))


def _begin(
    n_rows: int,
    name: str,
    extent: float | str,
    end: int,
    times: pd.DatetimeIndex | None,
    file: Path | str,
) -> int:
    """Return the first row of the part that ends at row `end`; negative if it is too long."""
    if isinstance(extent, int):
        return end - extent
    if isinstance(extent, float):
        rows = Decimal(str(extent)) * n_rows  # as written: a half is a half
        return end - int(rows.to_integral_value(ROUND_HALF_UP))
    key = f"data.split.{name}"
    if times is None:
        text = f"a date needs a time column, got {extent!r}; set data.time, or write 0.2 or 24, say"
        raise refusal(file, key, text)
    try:
        date = pd.Timestamp(extent)
        if date.tzinfo is None:
            date = date.tz_localize(times.tz)
    except ValueError as error:
        text = f"must be a time in the series, got {extent!r}: {error}; write another date"
        raise refusal(file, key, text) from None
    if date.tzinfo is not None and times.tz is None:
        text = f"the times have no time zone, got {extent!r}; write the date without one"
        raise refusal(file, key, text)
    if not times[0] <= date <= times[-1]:
        text = (
            f"must lie in the series, {show_time(times[0])} to {show_time(times[-1])}, "
            f"got {extent}; write a date in between"
        )
        raise refusal(file, key, text)
    return int(times.searchsorted(date))
