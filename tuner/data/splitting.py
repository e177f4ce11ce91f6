"""Cuts series into training, validation and test rows, in that order of time."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.data.own_split import OwnCuts
from tuner.data.tables import refusal
from tuner.data.times import show_time
from tuner.experiment.schema import Folds, Split

__all__ = ["Parts", "split_rows"]


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows whose targets belong to each part.

    Each is (series, 2): the rows [start, end) of each series, counted from its first one. A
    series may lack a part: start and end are then the same.
    """

    train: tuple[np.ndarray, ...]  # of each fold; one without rolling origins
    validation: tuple[np.ndarray, ...]  # of each fold, and each begins where the last one ended
    test: np.ndarray
    transformed: np.ndarray | None = None  # what transforms are fitted on, where not on `train`

    def named(self) -> dict[str, np.ndarray]:
        """Return the parts by name, in order; of the training parts the last fold's."""
        several = len(self.validation) > 1
        named = {"training": self.train[-1]}
        for i, part in enumerate(self.validation):
            named[f"validation {i + 1}" if several else "validation"] = part
        return named | {"test": self.test}

    def with_all(self, first: np.ndarray) -> Parts:
        """Return the parts where one fold trains on all rows before the test part.

        It is the last fold, whose validation rows are trained on as well. Transforms are fitted
        on its training part as before: what was calibrated in their space holds for both models.

        Args:
            first: (series,), how many of each series' first rows cannot be read.
        """
        end = self.validation[-1][:, 1]
        train = np.column_stack([np.minimum(first, end), end])
        return Parts((train,), self.validation[-1:], self.test, transformed=self.train[-1])


@dataclass(frozen=True)
class _Cut:
    """Where a line of rows, or of times, is cut; negative where a part is too long."""

    n_rows: int
    begins: tuple[int, ...]  # of the validation part of each fold, and of the test part
    gap: int = 0

    @property
    def train_ends(self) -> tuple[int, ...]:
        return tuple(begin - self.gap for begin in self.begins[:-1])


def split_rows(
    bounds: np.ndarray,
    split: Split,
    times: pd.DatetimeIndex | None,
    *,
    first: np.ndarray,
    window: int,
    horizon: int,
    file: Path | str,
    window_key: str = "task.window",
    own: OwnCuts | None = None,
) -> Parts:
    """Cut series into parts, each long enough for a window's targets in one of the series.

    With times all series are cut at the same ones, so that none is trained on what is later than
    what another is validated on: fractions and numbers of rows are of the distinct times. Without
    times each series is cut by its own rows.

    Args:
        bounds: (series, 2), the rows [start, end) of each series.
        split: the extent of the parts.
        times: of all rows.
        first: (series,), how many of each series' first rows cannot be read.
        window: the longest that is read.
        horizon: rows ahead.
        file: to be named when refused.
        window_key: the key of the experiment that says how long the window is.
        own: where parts begin that the extents do not tell.

    Raises:
        DataError: a date is of no use, or a part is too short.
    """
    lengths = np.diff(bounds)[:, 0]
    cut = lengths if own is None else own.test  # rows of each series that the extents are of
    if own is not None:
        split = split.model_copy(update={"test": 0})
    if own is not None and own.validation is not None:
        ends, begins = own.validation[:, None], np.column_stack([own.validation, own.test])
        longest = int(lengths.argmax())
        line = _Cut(int(lengths[longest]), (int(begins[longest, 0]), int(begins[longest, 1])))
    elif times is None:
        cuts = [_cut(int(n), split, None, horizon, file) for n in cut]
        line = cuts[int(cut.argmax())]
        ends = np.array([c.train_ends for c in cuts]).clip(0)
        begins = np.array([c.begins for c in cuts]).clip(0)
    else:
        every = [times[start : start + n] for (start, _), n in zip(bounds, cut, strict=True)]
        distinct = pd.DatetimeIndex(every[0].append(every[1:])).unique().sort_values()
        line = _cut(len(distinct), split, distinct, horizon, file)
        ends = _find(every, distinct, line.train_ends)
        begins = _find(every, distinct, line.begins)
    stops = np.column_stack([begins[:, 1:], lengths])
    parts = Parts(
        tuple(np.column_stack([np.minimum(first, end), end]) for end in ends.T),
        tuple(np.column_stack([begins[:, k], stops[:, k]]) for k in range(ends.shape[1])),
        np.column_stack([begins[:, -1], lengths]),
    )
    if isinstance(split.validation, Folds):
        _check_folds(parts, line, split.validation, window, horizon, file)
    else:
        _check_order(line, split, times, file)
        n_validation, n_test = line.begins[1] - line.begins[0], line.n_rows - line.begins[1]
        if n_test >= line.n_rows or not _longest(parts.train[0]):
            text = (
                f"no row is left to train on, validation takes {max(0, n_validation)} and test "
                f"{n_test} of {line.n_rows} rows{_unread(first)}; make validation or test smaller"
            )
            raise refusal(file, "data.split", text)
        _check_length(split.key_of("validation"), parts.validation[0], line, horizon, file)
    _check_length(split.key_of("test"), parts.test, line, horizon, file)
    if (n_train := _longest(parts.train[0])) < window + horizon:
        text = (
            f"the training part needs {window + horizon} rows (window {window} + horizon "
            f"{horizon}), got {n_train} of {line.n_rows}{_unread(first)}; make {window_key}, "
            f"task.horizon, data.split.validation or data.split.test smaller"
        )
        raise refusal(file, window_key, text)
    return parts


def _check_order(
    line: _Cut, split: Split, times: pd.DatetimeIndex | None, file: Path | str
) -> None:
    validation, test = line.begins
    if isinstance(split.validation, str) and 0 < test <= validation:
        assert times is not None
        begin = show_time(times.unique().sort_values()[test])
        text = f"must begin before the test part ({begin}), got {split.validation}; "
        raise refusal(file, "data.split.validation", text + "write an earlier date")


def _check_length(key: str, part: np.ndarray, line: _Cut, horizon: int, file: Path | str) -> None:
    if (n_part := _longest(part)) < horizon:
        larger = f"make {key} larger" if key.endswith(("validation", "test")) else "give it more"
        text = f"the part needs as many rows as the horizon, {horizon}, got {n_part} of "
        raise refusal(file, key, f"{text}{line.n_rows}; {larger} or task.horizon smaller")


def _check_folds(
    parts: Parts, line: _Cut, folds: Folds, window: int, horizon: int, file: Path | str
) -> None:
    """Refuse pieces that are shorter than the horizon, and too little before the first of them."""
    size, key = line.begins[1] - line.begins[0], "data.split.validation"
    if size < horizon:
        text = f"a piece needs as many rows as the horizon, {horizon}, got {size} of {line.n_rows}"
        raise refusal(file, f"{key}.size", f"{text}; make it larger or task.horizon smaller")
    if (n_train := _longest(parts.train[0])) < window + horizon:
        n_test = line.n_rows - line.begins[-1]
        text = (
            f"fold 1 needs {window + horizon} rows to train on (window {window} + horizon "
            f"{horizon}), got {n_train} of {line.n_rows} before {folds.folds} pieces of {size}, a "
            f"gap of {line.gap} and {n_test} for the test; make folds, size or the window smaller"
        )
        raise refusal(file, f"{key}.folds", text)
    for i, part in enumerate(parts.validation):
        if (n_part := _longest(part)) < horizon:
            text = f"piece {i + 1} has no series with as many rows as the horizon, {horizon}, got "
            raise refusal(file, f"{key}.size", f"{text}{n_part}; make it larger")


def _longest(part: np.ndarray) -> int:
    return int(np.diff(part).max())


def _unread(first: np.ndarray) -> str:
    """Say how many rows are not read, if that is part of what went wrong."""
    if not (n_rows := int(first.min())):
        return ""
    return f" (the first {n_rows} have no difference, lag or known value)"


def _find(
    every: list[pd.DatetimeIndex], distinct: pd.DatetimeIndex, cuts: tuple[int, ...]
) -> np.ndarray:
    """Return the first row of each series at or after each cut, (series, cuts)."""
    at = np.array(cuts).clip(0)
    inside = distinct[np.minimum(at, len(distinct) - 1)]
    rows = [np.where(at < len(distinct), t.searchsorted(inside), len(t)) for t in every]
    return np.stack(rows)


def _cut(
    n_rows: int, split: Split, times: pd.DatetimeIndex | None, horizon: int, file: Path | str
) -> _Cut:
    """Cut a line of rows, or of times."""
    test = _begin(n_rows, "test", split.test, n_rows, times, file)
    if not isinstance(split.validation, Folds):
        begin = _begin(n_rows, "validation", split.validation, test, times, file)
        return _Cut(n_rows, (begin, test))
    folds = split.validation
    size = test - _begin(n_rows, "validation.size", folds.size, test, times, file)
    gap = horizon - 1 if folds.gap == "auto" else folds.gap
    begins = tuple(test - size * k for k in range(folds.folds, -1, -1))
    return _Cut(n_rows, begins, gap)


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
