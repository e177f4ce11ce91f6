"""Splits series into training, validation and test rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tuner.data.sequence_table import Draw, draw_sequences, rows_in
from tuner.data.series_table import Series
from tuner.errors import near_miss, refusal, show_path
from tuner.experiment.data import Data, Folds, Split
from tuner.tables.table import JoinedTable, RawTable
from tuner.tables.timestamps import show_time

if TYPE_CHECKING:
    from tuner.data.sequence_table import SequenceTable

_PARTS = ("training", "validation", "test")
_WORDS = {
    "train": 0, "training": 0,
    "validation": 1, "valid": 1, "val": 1, "dev": 1,
    "test": 2, "testing": 2,
}  # fmt: skip
_COLUMN, _FILE, _GROUP = "data.split.column", "data.split.test_file", "data.split.group"


@dataclass(frozen=True, eq=False)
class OwnCuts:
    """The first row of the validation and test parts, counted in each series."""

    test: np.ndarray  # (series,)
    validation: np.ndarray | None  # (series,); None where `data.split.validation` gives it


def own_cuts(table: RawTable, data: Data, read: Series, even: Series) -> OwnCuts | None:
    """Return the beginnings of parts that a column or a test file declares; else None.

    Parts follow one another in time, in each series and, where there are times, in all of them:
    every training row is earlier than every validation row.

    Raises:
        DataError: a row is of no part, out of order, or a part is empty.
    """
    if (codes := _codes(table, data)) is None:
        return None
    rows = read.lines if table.lines is None else table.lines.searchsorted(read.lines)
    codes = codes[rows]
    _check_order_of_parts(table, read, codes)
    cuts = [_begins(read, even, codes, part) for part in (1, 2)]
    return OwnCuts(cuts[1], None if isinstance(table, JoinedTable) else cuts[0])


def draw_parts(
    table: SequenceTable, data: Data, labels: np.ndarray | None, classes: tuple[str, ...]
) -> Draw:
    """Return the parts of independent sequences, drawn or as they are given.

    Args:
        labels: of the sequences, (sequences,), numbers of `classes`; None without classes.

    Raises:
        DataError: a part is empty or too small, a word is unknown, or a class is not trained.
    """
    raw, n = table.raw, len(table.names)
    groups = None if data.split.group is None else _group_of_sequences(table, data.split.group)
    codes = _codes(raw, data)
    if codes is None:
        return _drawn(np.arange(n), table, data, labels, classes, groups)
    part = _part_of_sequences(table, codes)
    if isinstance(raw, JoinedTable):
        key, rest, test = _FILE, np.flatnonzero(part != 2), np.flatnonzero(part == 2)
        if groups is not None:
            for group in np.intersect1d(groups[rest], groups[test])[:1]:
                rule = "no group may be in both files"
                raise refusal(raw.test.path, _GROUP, rule, repr(group), "take it out of one")
        drawn = _drawn(rest, table, data, labels, classes, groups)
        draw = Draw(drawn.training, drawn.validation, test)
    else:
        key, draw = _COLUMN, Draw(*(np.flatnonzero(part == code) for code in range(3)))
    for name, members in draw.named().items():
        if not len(members):
            rule = f"no sequence is of the {name} part"
            raise refusal(raw.path, key, rule, remedy=f"write {_word(name)} in some")
    where = "validation or test alone; train on some of it, or leave it out"
    _check_trained(raw.path, key, draw, labels, classes, where)
    return draw


def _part_of_sequences(table: SequenceTable, codes: np.ndarray) -> np.ndarray:
    """Return the part of each sequence, (sequences,), from the parts of the rows of the file."""
    raw, of_rows = table.raw, codes[table.rows]
    part = of_rows[table.bounds[:, 0]]
    for row in np.flatnonzero(of_rows != np.repeat(part, np.diff(table.bounds)[:, 0]))[:1]:
        at = int(table.bounds[:, 1].searchsorted(row, side="right"))
        name = str(table.names[at])
        if isinstance(raw, JoinedTable):
            rule = "no sequence may be in both files"
            got = f"{name!r} in {show_path(raw.path)} too"
            raise refusal(raw.test.path, _FILE, rule, got, "give the ones of the test other ids")
        rule, place = "all rows of a sequence must be of one part", table.rows[row]
        got = f"{_PARTS[of_rows[row]]} after {_PARTS[part[at]]} for {name!r} in "
        got += raw.place_of(int(place))
        raise refusal(raw.path, _COLUMN, rule, got, "write one word")
    return np.asarray(part)


def _drawn(
    members: np.ndarray,
    table: SequenceTable,
    data: Data,
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    groups: np.ndarray | None,
) -> Draw:
    """Draw the parts of some sequences, (n,), rising; a group stays in one part."""
    own = strata = None if labels is None else labels[members]
    names, unit, of = table.names[members], "sequence", np.arange(len(members))
    if groups is not None:
        of, names = pd.factorize(groups[members])
        unit = "group"
        if own is not None:
            firsts = own[np.unique(of, return_index=True)[1]]
            strata = firsts if (firsts[of] == own).all() else None  # a group has several classes
    draw = draw_sequences(
        np.asarray(names), data.split, file=table.path, labels=strata, classes=classes,
        with_test=data.split.test_file is None, unit=unit,
    )  # fmt: skip
    draw = Draw(*(members[np.isin(of, part)] for part in draw.named().values()))
    if strata is None:
        where = "groups of validation and test alone; try another data.split.seed"
        _check_trained(table.path, _GROUP, draw, labels, classes, where)
    return draw


def _check_trained(
    path: Path,
    key: str,
    draw: Draw,
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    where: str,
) -> None:
    """Refuse a class that no training sequence has, with the parts that have it."""
    if labels is not None:
        for number in np.setdiff1d(labels, labels[draw.training])[:1]:
            rule = "every class must occur in the training part"
            raise refusal(path, key, rule, f"{classes[number]!r} in {where}")


def _codes(table: RawTable, data: Data) -> np.ndarray | None:
    """Return the number of each row's part, (rows,), or None without a declaration.

    With a test file all other rows have that of training.
    """
    if isinstance(table, JoinedTable):
        return np.where(np.arange(len(table.frame)) < len(table.first.frame), 0, 2)
    if (name := data.split.column) is None:
        return None
    words = _column(table, name, _COLUMN)
    codes = np.array([_WORDS.get(word.lower(), -1) for word in words])
    for row in np.flatnonzero(codes < 0)[:1]:
        got = repr(words[row]) if words[row] else "none"
        meant = near_miss(words[row].lower(), _WORDS)
        remedy = f"did you mean {meant!r}?" if meant else "write one of them"
        rule = f"column {name!r} must say train, validation or test in every row"
        raise refusal(table.path, _COLUMN, rule, f"{got} in {table.place_of(int(row))}", remedy)
    for code, part in enumerate(_PARTS):
        if code not in codes:
            rule = f"column {name!r} must have rows of all three parts"
            got = f"none of {part}"
            raise refusal(table.path, _COLUMN, rule, got, f"write {_word(part)} in some")
    return codes


def _column(table: RawTable, name: str, key: str) -> np.ndarray:
    table.check_has(key, name)
    return table.raw_strings([name])[name]


def _group_of_sequences(table: SequenceTable, name: str) -> np.ndarray:
    """Return the group of each sequence, (sequences,) of str: the same in all its rows."""
    raw, words = table.raw, _column(table.raw, name, _GROUP)[table.rows]
    for row in np.flatnonzero(words == "")[:1]:
        rule = f"column {name!r} must hold a value in every row"
        got = f"none in {raw.place_of(int(table.rows[row]))}"
        raise refusal(raw.path, _GROUP, rule, got, "write one, or remove the row")
    return table.one_of_each(_GROUP, name, words, words)


def _check_order_of_parts(table: RawTable, read: Series, codes: np.ndarray) -> None:
    """Refuse rows that are of an earlier part than a row before them."""
    if read.times is None:
        inside = np.ones(len(codes), bool)
        inside[read.bounds[:, 0]] = False
        for row in np.flatnonzero((np.diff(codes, prepend=0) < 0) & inside)[:1]:
            rule = "rows must go from train to validation to test"
            got = f"{_PARTS[codes[row]]} in {read.place(int(row))} after {_PARTS[codes[row - 1]]}"
            raise refusal(table.path, _COLUMN, rule, got, "correct the column, or sort the rows")
        return
    for later in (1, 2):
        before, after = np.flatnonzero(codes < later), np.flatnonzero(codes >= later)
        last, first = before[read.times[before].argmax()], after[read.times[after].argmin()]
        if read.times[last] < read.times[first]:
            continue
        if isinstance(table, JoinedTable):
            rule = f"its times must come after those of {show_path(table.path)}, which end at "
            rule += show_time(read.times[last])
            got = show_time(read.times[first])
            raise refusal(table.test.path, _FILE, rule, got, "give later rows")
        rule = "rows must go in time from train to validation to test"
        got = f"{_PARTS[codes[last]]} in {read.place(int(last))} and {_PARTS[codes[first]]} in "
        got += read.place(int(first))
        raise refusal(table.path, _COLUMN, rule, got, "cut all series at the same times")


def _begins(read: Series, even: Series, codes: np.ndarray, part: int) -> np.ndarray:
    """Return the first row of each even series that is of a part or a later one, (series,)."""
    found = []
    for i, (start, end) in enumerate(read.bounds):
        length = int(np.diff(even.bounds[i])[0])
        of_part = np.flatnonzero(codes[start:end] >= part)
        if not len(of_part):
            found.append(length)
        elif read.times is None:
            found.append(int(of_part[0]))
        else:  # the row that the first one of the part is resampled to
            at = even.times_of(i).searchsorted(read.times[start + of_part[0]], side="right")
            found.append(max(0, int(at) - 1))
    return np.array(found)


def _word(part: str) -> str:
    return "train" if part == "training" else part


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows of the targets of each part: (series, 2), [start, end) counted in each series.

    A part that a series lacks starts where it ends.
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
        """Return the parts of one fold, the last, which trains on all rows before the test part.

        Transforms are still fitted on its training part, so that intervals which are calibrated in
        their space hold for both models.

        Args:
            first: (series,), how many of each series' first rows cannot be read.
        """
        end = self.validation[-1][:, 1]
        train = np.column_stack([np.minimum(first, end), end])
        return Parts((train,), self.validation[-1:], self.test, transformed=self.train[-1])


@dataclass(frozen=True)
class _Cut:
    """Where rows, or times, are cut; negative where a part is too long."""

    n_rows: int
    begins: tuple[int, ...]  # of the validation part of each fold, and of the test part
    gap: int = 0  # rows between training and validation

    @property
    def train_ends(self) -> tuple[int, ...]:
        return tuple(begin - self.gap for begin in self.begins[:-1])


@dataclass(frozen=True)
class Need:
    """The rows of one sample."""

    window: int  # the longest that is read
    horizon: int
    window_key: str = "task.window"  # the key of the experiment that sets it

    def __str__(self) -> str:
        return f"window {self.window} + horizon {self.horizon}"


def split_rows(
    bounds: np.ndarray,
    split: Split,
    times: pd.DatetimeIndex | None,
    *,
    first: np.ndarray,
    need: Need,
    file: Path | str,
    own: OwnCuts | None = None,
) -> Parts:
    """Cut series into parts, each long enough for a window's targets in one of the series.

    With times all series are cut at the same ones, so that no training row of one is later than a
    validation row of another: fractions and numbers of rows are of the distinct times. Without
    times each series is cut by its own rows.

    Args:
        bounds: (series, 2), the rows [start, end) of each series.
        first: (series,), how many of each series' first rows cannot be read.

    Raises:
        DataError: a date is of no use, or a part is too short.
    """
    if own is not None:
        split = split.model_copy(update={"test": 0})
    line, ends, begins = _cut_series(bounds, split, times, need.horizon, file, own)
    lengths = np.diff(bounds)[:, 0]
    stops = np.column_stack([begins[:, 1:], lengths])
    parts = Parts(
        tuple(np.column_stack([np.minimum(first, end), end]) for end in ends.T),
        tuple(np.column_stack([begins[:, k], stops[:, k]]) for k in range(ends.shape[1])),
        np.column_stack([begins[:, -1], lengths]),
    )
    if isinstance(split.validation, Folds):
        _check_folds(parts, line, split.validation, need, file)
    else:
        _check_order(line, split, times, file)
        n_validation, n_test = line.begins[1] - line.begins[0], line.n_rows - line.begins[1]
        if n_test >= line.n_rows or not _longest(parts.train[0]):
            rule = f"no row is left to train on, validation takes {max(0, n_validation)} and test "
            rule += f"{n_test} of {line.n_rows} rows{_unread(first)}"
            raise refusal(file, "data.split", rule, remedy="make validation or test smaller")
        _check_length(split.key_of("validation"), parts.validation[0], line, need.horizon, file)
    _check_length(split.key_of("test"), parts.test, line, need.horizon, file)
    if (n_train := _longest(parts.train[0])) < (n_rows := need.window + need.horizon):
        key = need.window_key
        rule = f"the training part needs {n_rows} rows ({need})"
        got = f"{n_train} of {line.n_rows}{_unread(first)}"
        smaller = f"make {key}, task.horizon, data.split.validation or data.split.test smaller"
        raise refusal(file, key, rule, got, smaller)
    return parts


def _cut_series(
    bounds: np.ndarray,
    split: Split,
    times: pd.DatetimeIndex | None,
    horizon: int,
    file: Path | str,
    own: OwnCuts | None,
) -> tuple[_Cut, np.ndarray, np.ndarray]:
    """Return the cut of the longest series, or of the times, and those of each series.

    The latter are the ends of training and the beginnings of the other parts, (series, cuts).
    """
    lengths = np.diff(bounds)[:, 0]
    longest = int(lengths.argmax())
    if own is not None and own.validation is not None:
        begins = np.column_stack([own.validation, own.test])
        line = _Cut(int(lengths[longest]), (int(begins[longest, 0]), int(begins[longest, 1])))
        return line, own.validation[:, None], begins
    cut = lengths if own is None else own.test  # rows of each series that the extents are of
    if times is None:
        cuts = [_cut(int(n), split, None, horizon, file) for n in cut]
        ends, begins = (
            np.array(of).clip(0)
            for of in zip(*((c.train_ends, c.begins) for c in cuts), strict=True)
        )
        return cuts[int(cut.argmax())], ends, begins
    every = [times[start : start + n] for (start, _), n in zip(bounds, cut, strict=True)]
    distinct = pd.DatetimeIndex(every[0].append(every[1:])).unique().sort_values()
    line = _cut(len(distinct), split, distinct, horizon, file)
    return line, _find(every, distinct, line.train_ends), _find(every, distinct, line.begins)


def _check_order(
    line: _Cut, split: Split, times: pd.DatetimeIndex | None, file: Path | str
) -> None:
    validation, test = line.begins
    if isinstance(split.validation, str) and 0 < test <= validation:
        assert times is not None
        begin = show_time(times.unique().sort_values()[test])
        rule = f"must begin before the test part ({begin})"
        remedy = "write an earlier date"
        raise refusal(file, "data.split.validation", rule, split.validation, remedy)


def _check_length(key: str, part: np.ndarray, line: _Cut, horizon: int, file: Path | str) -> None:
    if (n_part := _longest(part)) < horizon:
        larger = f"make {key} larger" if key.endswith(("validation", "test")) else "give it more"
        rule = f"the part needs as many rows as the horizon, {horizon}"
        got = f"{n_part} of {line.n_rows}"
        raise refusal(file, key, rule, got, f"{larger} or task.horizon smaller")


def _check_folds(parts: Parts, line: _Cut, folds: Folds, need: Need, file: Path | str) -> None:
    """Refuse pieces that are shorter than the horizon, and too little before the first of them."""
    size, key, horizon = line.begins[1] - line.begins[0], "data.split.validation", need.horizon
    if size < horizon:
        rule = f"a piece needs as many rows as the horizon, {horizon}"
        got = f"{size} of {line.n_rows}"
        raise refusal(file, f"{key}.size", rule, got, "make it larger or task.horizon smaller")
    if (n_train := _longest(parts.train[0])) < need.window + horizon:
        n_test = line.n_rows - line.begins[-1]
        rule = f"fold 1 needs {need.window + horizon} rows to train on ({need})"
        got = f"{n_train} of {line.n_rows} before {folds.folds} pieces of {size}, a gap of "
        got += f"{line.gap} and {n_test} for the test"
        raise refusal(file, f"{key}.folds", rule, got, "make folds, size or the window smaller")
    for i, part in enumerate(parts.validation):
        if (n_part := _longest(part)) < horizon:
            rule = f"piece {i + 1} has no series with as many rows as the horizon, {horizon}"
            raise refusal(file, f"{key}.size", rule, n_part, "make it larger")


def _longest(part: np.ndarray) -> int:
    return int(np.diff(part).max())


def _unread(first: np.ndarray) -> str:
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
    if isinstance(extent, int | float):
        return end - rows_in(extent, n_rows)
    key = f"data.split.{name}"
    if times is None:
        rule = "a date needs a time column"
        raise refusal(file, key, rule, repr(extent), "set data.time, or write 0.2 or 24, say")
    try:
        date = pd.Timestamp(extent)
        if date.tzinfo is None:
            date = date.tz_localize(times.tz)
    except ValueError as error:
        rule = "must be a time in the series"
        raise refusal(file, key, rule, f"{extent!r}: {error}", "write another date") from None
    if date.tzinfo is not None and times.tz is None:
        rule = "the times have no time zone"
        raise refusal(file, key, rule, repr(extent), "write the date without one")
    if not times[0] <= date <= times[-1]:
        rule = f"must lie in the series, {show_time(times[0])} to {show_time(times[-1])}"
        raise refusal(file, key, rule, extent, "write a date in between")
    return int(times.searchsorted(date))
