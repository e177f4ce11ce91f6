"""A split of one's own: parts that a column or a test file tells, and groups that stay together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tuner.data.drawing import Draw, draw_sequences
from tuner.data.reading import Series
from tuner.data.source import JoinedTable
from tuner.data.tables import RawTable, refusal
from tuner.data.times import show_time
from tuner.errors import near_miss, nearest, show_path
from tuner.experiment.data import Data

if TYPE_CHECKING:
    from tuner.data.sequence_table import SequenceTable

__all__ = ["OwnCuts", "draw_parts", "own_cuts"]

_PARTS = ("training", "validation", "test")
_WORDS = {
    "train": 0, "training": 0,
    "validation": 1, "valid": 1, "val": 1, "dev": 1,
    "test": 2, "testing": 2,
}  # fmt: skip
_COLUMN, _FILE, _GROUP = "data.split.column", "data.split.test_file", "data.split.group"


@dataclass(frozen=True, eq=False)
class OwnCuts:
    """Where the parts of series begin, counted from the first row of each."""

    test: np.ndarray  # (series,)
    validation: np.ndarray | None  # (series,); None where `data.split.validation` says it


def own_cuts(table: RawTable, data: Data, read: Series, even: Series) -> OwnCuts | None:
    """Return where the parts of series begin that a column or a test file tells; else None.

    Parts follow one another in time, in each series and, where there are times, in all of them:
    no row that is trained on is as late as one that is validated on.

    Args:
        table: the rows of the file.
        data: says which column, or which file.
        read: the series as they were read.
        even: the same with a row at every step.

    Raises:
        DataError: a row is of no part, out of order, or a part is empty.
    """
    if (codes := _codes(table, data)) is None:
        return None
    rows = read.lines if table.lines is None else table.lines.searchsorted(read.lines)
    codes = codes[rows]
    _check_order(table, data, read, codes)
    cuts = [_begins(read, even, codes, part) for part in (1, 2)]
    return OwnCuts(cuts[1], None if isinstance(table, JoinedTable) else cuts[0])


def draw_parts(
    raw: RawTable,
    table: SequenceTable,
    data: Data,
    labels: np.ndarray | None,
    classes: tuple[str, ...],
) -> Draw:
    """Return the parts of independent sequences, drawn or as they are given.

    Args:
        raw: the rows of the file.
        table: the sequences in it.
        data: says how they are drawn, or where it is written.
        labels: of the sequences, (sequences,), numbers of `classes`; None where a sequence has
            no class.
        classes: their names.

    Raises:
        DataError: a part is empty or too small, a word is unknown, or a class is not trained.
    """
    split, n = data.split, len(table.names)
    groups = None if split.group is None else _of_sequences(raw, table, split.group, _GROUP)
    codes = _codes(raw, data)
    if codes is None:
        return _drawn(np.arange(n), table, data, labels, classes, groups)
    of_rows = codes[table.rows]
    part = of_rows[table.bounds[:, 0]]
    where = np.flatnonzero(of_rows != np.repeat(part, np.diff(table.bounds)[:, 0]))
    for row in where[:1]:
        at = int(table.bounds[:, 1].searchsorted(row, side="right"))
        name = str(table.names[at])
        if isinstance(raw, JoinedTable):
            text = f"no sequence may be in both files, got {name!r} in {show_path(raw.path)} too"
            raise refusal(raw.test.path, _FILE, f"{text}; give the ones of the test other ids")
        text = f"all rows of a sequence must be of one part, got {_PARTS[of_rows[row]]} after "
        text += f"{_PARTS[part[at]]} for {name!r} in {raw.place_of(int(table.rows[row]))}"
        raise refusal(raw.path, _COLUMN, f"{text}; write one word")
    if isinstance(raw, JoinedTable):
        rest, test = np.flatnonzero(part != 2), np.flatnonzero(part == 2)
        if groups is not None:
            for group in np.intersect1d(groups[rest], groups[test])[:1]:
                text = f"no group may be in both files, got {group!r}; take it out of one"
                raise refusal(raw.test.path, _GROUP, text)
        drawn = _drawn(rest, table, data, labels, classes, groups)
        draw = Draw(drawn.training, drawn.validation, test)
    else:
        draw = Draw(*(np.flatnonzero(part == code) for code in range(3)))
    _check_trained(raw, draw, labels, classes, _FILE if isinstance(raw, JoinedTable) else _COLUMN)
    return draw


def _drawn(
    members: np.ndarray,
    table: SequenceTable,
    data: Data,
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    groups: np.ndarray | None,
) -> Draw:
    """Draw the parts of some sequences, (n,), rising; those of a group come into one part."""
    split, with_test = data.split, data.split.test_file is None
    own = None if labels is None else labels[members]
    if groups is None:
        draw = draw_sequences(
            table.names[members], split, file=table.path, labels=own, classes=classes,
            with_test=with_test,
        )  # fmt: skip
        return Draw(*(members[part] for part in draw.named().values()))
    of, names = pd.factorize(groups[members])
    strata = None
    if own is not None:
        firsts = own[np.unique(of, return_index=True)[1]]
        strata = firsts if (firsts[of] == own).all() else None  # else a group has several classes
    draw = draw_sequences(
        np.asarray(names), split, file=table.path, labels=strata, classes=classes,
        with_test=with_test, unit="group",
    )  # fmt: skip
    draw = Draw(*(members[np.isin(of, part)] for part in draw.named().values()))
    if own is not None and strata is None:
        _check_trained_groups(table, draw, labels, classes)
    return draw


def _check_trained(
    raw: RawTable, draw: Draw, labels: np.ndarray | None, classes: tuple[str, ...], key: str
) -> None:
    """Refuse a part that is empty, and a class that no training sequence has."""
    for name, part in draw.named().items():
        if not len(part):
            text = f"no sequence is of the {name} part; write {_word(name)} in some"
            raise refusal(raw.path, key, text)
    if labels is not None:
        for number in np.setdiff1d(labels, labels[draw.training])[:1]:
            text = f"every class must occur in the training part, got {classes[number]!r} in "
            text += "validation or test alone; train on some of it, or leave it out"
            raise refusal(raw.path, key, text)


def _check_trained_groups(
    table: SequenceTable, draw: Draw, labels: np.ndarray | None, classes: tuple[str, ...]
) -> None:
    assert labels is not None
    for number in np.setdiff1d(labels, labels[draw.training])[:1]:
        text = f"every class must occur in the training part, got {classes[number]!r} in groups of "
        text += "validation and test alone; try another data.split.seed"
        raise refusal(table.path, _GROUP, text)


def _codes(table: RawTable, data: Data) -> np.ndarray | None:
    """Return the number of each row's part, (rows,); None where nothing tells it.

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
        text = f"column {name!r} must say train, validation or test in every row, got {got} in "
        raise refusal(table.path, _COLUMN, f"{text}{table.place_of(int(row))}; {remedy}")
    for code, part in enumerate(_PARTS):
        if code not in codes:
            text = f"column {name!r} must have rows of all three parts, got none of {part}; write "
            raise refusal(table.path, _COLUMN, f"{text}{_word(part)} in some")
    return codes


def _column(table: RawTable, name: str, key: str) -> np.ndarray:
    """Return a column as it is written, (rows,) of str."""
    if name not in table.names:
        text = f"no column {name!r} in the file{nearest(name, table.names)}"
        raise refusal(table.path, key, text)
    return table.written([name])[name]


def _of_sequences(raw: RawTable, table: SequenceTable, name: str, key: str) -> np.ndarray:
    """Return what a column says of each sequence, (sequences,) of str: the same in all its rows."""
    words = _column(raw, name, key)[table.rows]
    for row in np.flatnonzero(words == "")[:1]:
        text = f"column {name!r} must hold a value in every row, got none in "
        place = raw.place_of(int(table.rows[row]))
        raise refusal(raw.path, key, f"{text}{place}; write one, or remove the row")
    first = words[table.bounds[:, 0]]
    for row in np.flatnonzero(words != np.repeat(first, np.diff(table.bounds)[:, 0]))[:1]:
        at = int(table.bounds[:, 1].searchsorted(row, side="right"))
        text = f"column {name!r} must be the same in all rows of a sequence, got {words[row]!r} "
        text += f"after {first[at]!r} in {raw.place_of(int(table.rows[row]))} (sequence "
        raise refusal(raw.path, key, f"{text}{str(table.names[at])!r}); write one value")
    return np.asarray(first)


def _check_order(table: RawTable, data: Data, read: Series, codes: np.ndarray) -> None:
    """Refuse rows that are of an earlier part than a row before them."""
    joined = isinstance(table, JoinedTable)
    if read.times is None:
        inside = np.ones(len(codes), bool)
        inside[read.bounds[:, 0]] = False
        for row in np.flatnonzero((np.diff(codes, prepend=0) < 0) & inside)[:1]:
            got = f"{_PARTS[codes[row]]} in {read.place(int(row))} after {_PARTS[codes[row - 1]]}"
            text = f"rows must go from train to validation to test, got {got}; "
            raise refusal(table.path, _COLUMN, f"{text}correct the column, or sort the rows")
        return
    for later in (1, 2):
        before, after = np.flatnonzero(codes < later), np.flatnonzero(codes >= later)
        last, first = before[read.times[before].argmax()], after[read.times[after].argmin()]
        if read.times[last] < read.times[first]:
            continue
        if joined:
            text = f"its times must come after those of {show_path(table.path)}, which end at "
            text += f"{show_time(read.times[last])}, got {show_time(read.times[first])}; "
            assert isinstance(table, JoinedTable)
            raise refusal(table.test.path, _FILE, f"{text}give later rows")
        text = f"rows must go in time from train to validation to test, got {_PARTS[codes[last]]} "
        text += f"in {read.place(int(last))} and {_PARTS[codes[first]]} in "
        text += f"{read.place(int(first))}; cut all series at the same times"
        raise refusal(table.path, _COLUMN, text)


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
        else:  # of rows that become one, that which holds the first of them
            at = even.times_of(i).searchsorted(read.times[start + of_part[0]], side="right")
            found.append(max(0, int(at) - 1))
    return np.array(found)


def _word(part: str) -> str:
    return "train" if part == "training" else part
