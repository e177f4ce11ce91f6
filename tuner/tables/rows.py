"""The rows of an experiment: from one or two files, from wide to long, in order of time."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from tuner.errors import DataError, nearest, refusal, show_path
from tuner.pipeline_steps import Dialect
from tuner.tables.table import RawTable, as_numbers, bounds_of
from tuner.tables.timestamps import (
    as_times,
    common_frequency,
    find_gaps,
    keeps,
    possible_orders,
    show_time,
    some_ambiguous,
    where_falling,
)

if TYPE_CHECKING:
    from tuner.experiment.data import Data

_FEWEST = 3  # columns with one stem that seem to be series
_MOST_ROWS = 50_000_000  # of the long table
_STEM = re.compile(r"(.*?[^\W\d_])[\W_]*(?:\d+|(?<=[\W_])[^\W_]+)")  # store_1, sales Berlin


class Wide(Protocol):
    """What the columns of series become; see `tuner.experiment.data.Wide`."""

    @property
    def id(self) -> str: ...  # the column that names the series
    @property
    def value(self) -> str: ...  # the column of their values
    @property
    def columns(self) -> str | list[str]: ...  # of the file: a pattern, or a list of names


@dataclass(frozen=True)
class WideColumns:
    """A `Wide` as a model's pipeline has it."""

    id: str
    value: str
    columns: str | list[str]


def columns_of_series(wide: Wide, names: Sequence[str]) -> list[str]:
    """Return the columns of a file that are series, in the order of `names`, all of its columns."""
    if isinstance(wide.columns, str):
        return [name for name in names if fnmatch.fnmatchcase(name, wide.columns)]
    return [name for name in names if name in wide.columns]


def melted(table: RawTable, wide: Wide, time: str | None) -> tuple[RawTable, np.ndarray]:
    """Return a table in which the columns of series stand one below another.

    What stands before the first value of a series is no row of it; other columns are repeated.

    Args:
        table: with a column for each series.
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
            got = f"{name!r}, which is a column of the file"
            raise refusal(path, f"data.wide.{key}", "must be a new name", got, "write another")
    if len(frame) * len(found) > _MOST_ROWS:
        rule = f"{len(frame):,} rows of {len(found):,} columns are more than {_MOST_ROWS:,} values"
        raise refusal(path, "data.wide.columns", rule, remedy="name fewer columns")
    values, rows = [], []
    for name in found:
        column, bad = as_numbers(frame[name])
        if len(bad):
            rule = f"column {name!r} must hold numbers"
            got = f"{frame[name][bad[0]]!r} in {table.place_of(bad[0])}"
            remedy, change = (
                "write a number there (1234.5)",
                "leave the column out of data.wide.columns",
            )
            raise refusal(path, "data.wide.columns", rule, got, remedy, change)
        known = np.flatnonzero(~np.isnan(column))
        first = int(known[0]) if len(known) else len(column)
        if first == len(column):
            rule = f"column {name!r} must hold numbers"
            change = "leave the column out of data.wide.columns"
            raise refusal(path, "data.wide.columns", rule, "none", change=change)
        values.append(column[first:])
        rows.append(np.arange(first, len(column)))
    together = np.concatenate(rows)
    long = frame[others].iloc[together].reset_index(drop=True)
    series = np.repeat(np.array(found, dtype=object), [len(of) for of in rows])
    long = long.assign(**{wide.id: series, wide.value: np.concatenate(values)})
    lines = together if table.lines is None else table.lines[together]
    return replace(table, frame=long, body=None, typed=None, lines=lines), together


def _found(table: RawTable, wide: Wide, time: str | None) -> list[str]:
    """Return the columns of series, none of which is missing, or the time."""
    path, names = table.path, table.names
    found = columns_of_series(wide, names)
    if isinstance(wide.columns, list):
        for name in wide.columns:
            table.check_has("data.wide.columns", name)
    if not found:
        rule = f"no column of the file is like {wide.columns!r}"
        remedy = "write a pattern that some are like"
        raise refusal(path, "data.wide.columns", rule, ", ".join(names[:8]), remedy)
    if time is not None and time in found:
        rule = "must not name the time column"
        remedy = "write a narrower pattern, or a list"
        raise refusal(path, "data.wide.columns", rule, repr(time), remedy)
    return found


def stem_of_series(numbers: Sequence[str]) -> tuple[str, str, list[str]] | None:
    """Return the pattern of columns that seem to be series of one quantity, as names tell.

    They are at least three, and at least half of the columns of numbers, whose names differ in
    their last part alone: `store_1`, `store_2`, `store_3`.

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


_ROW = re.compile(r"\brow (\d+)")


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedTable(RawTable):
    """The rows of a file, and after them those of the file that is the test part."""

    first: RawTable
    test: RawTable

    def raw_strings(self, names: Iterable[str], tokens: str | None = None) -> dict[str, np.ndarray]:
        """Return columns as both files write them, (rows,) of str."""
        names = list(names)
        if not set(names) <= set(self.first.names):  # a column that was made of others
            return super().raw_strings(names, tokens)
        parts = [table.raw_strings(names, tokens) for table in (self.first, self.test)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read_table(data: Data) -> RawTable:
    """Read the rows of an experiment.

    Raises:
        DataError: a file cannot be read, or the test file lacks a column that is used.
    """
    first = RawTable.read(Path(data.path), data.dialect, data.time)
    if data.split.test_file is None:
        return first
    path = Path(data.split.test_file)
    try:
        test = RawTable.read(path, first.reusable_dialect, data.time)
    except DataError as error:
        raise error.with_(key="data.split.test_file") from None
    for name in _used(first, data):
        if name not in test.names:
            rule = f"no column {name!r} in the file, which {show_path(first.path)} has"
            remedy = nearest(name, test.names)
            raise refusal(path, "data.split.test_file", rule, remedy=remedy)
        test.check_certain("data.split.test_file", name)
        _, bad = as_numbers(first.frame[name])
        _, bad_here = as_numbers(test.frame[name])
        if len(bad_here) and not len(bad):
            rule = f"column {name!r} must hold numbers, as in {show_path(first.path)}"
            got = f"{test.frame[name].iloc[bad_here[0]]!r} in {test.place_of(int(bad_here[0]))}"
            raise refusal(path, "data.split.test_file", rule, got, "write a number there")
    shared = [name for name in first.names if name in test.names]
    frame = pd.concat([first.frame[shared], test.frame[shared]], ignore_index=True)
    both = hashlib.sha256(f"{first.sha256} {test.sha256}".encode()).hexdigest()
    return JoinedTable(
        first.path,
        frame,
        both,
        # A row of both files is no copy to leave out: it is in training and in test.
        dialect=replace(first.dialect, drop_duplicates=bool(first.dialect.drop_duplicates)),
        ambiguous=first.ambiguous,
        notes=first.notes,
        reusable_keys=first.reusable_keys,
        first=first,
        test=test,
    )


@contextmanager
def naming_files(table: RawTable) -> Iterator[None]:
    """Have a refusal in the block that names a row of the test file name that file as well."""
    try:
        yield
    except DataError as error:
        if not isinstance(table, JoinedTable):
            raise
        known, got = len(table.first.frame), error.got or ""
        rows = [int(number) for number in _ROW.findall(f"{error.rule} {got}")]
        if not any(row > known for row in rows):
            raise

        def place(found: re.Match[str]) -> str:
            row = int(found[1]) - 1
            of_test = row >= known
            of = table.test if of_test else table.first
            return f"{of.place_of(row - known if of_test else row)} of {show_path(of.path)}"

        rule, got = _ROW.sub(place, error.rule), _ROW.sub(place, got)
        raise error.with_(rule=rule, got=got or None) from None


def _used(table: RawTable, data: Data) -> list[str]:
    """Return the columns of the first file that the experiment reads."""
    named = [data.time, data.id, *data.targets, data.text, data.tokens, data.split.group]
    named += [data.weight]
    named += [*data.lags, *(data.features or [])]
    used = [name for name in named if name is not None]
    if data.features is None and data.text is None and data.tokens is None:
        used += table.names
    return [name for name in dict.fromkeys(used) if name in table.names]


@dataclass(frozen=True, eq=False)
class Ordered:
    """The rows of series, series by series."""

    rows: np.ndarray  # (n,), of the file
    bounds: np.ndarray  # (series, 2), the rows [start, end) of each
    times: pd.DatetimeIndex  # (n,)
    notes: tuple[str, ...] = ()  # what was done to them

    def recorded_in(self, dialect: Dialect) -> Dialect:
        """Return the dialect with what was done to the rows as keys."""
        done: dict[str, Any] = {note.partition(":")[0]: True for note in self.notes}
        return replace(dialect, **done)

    def taken(self, places: np.ndarray, note: str = "") -> Ordered:
        """Return the rows that stand at some places, which keep series together."""
        of = self.bounds[:, 1].searchsorted(places, side="right")
        return Ordered(
            self.rows[places],
            bounds_of(np.bincount(of, minlength=len(self.bounds))),
            self.times[places],
            (*self.notes, note) if note else self.notes,
        )


def in_order(
    given: Ordered,
    frame: pd.DataFrame,
    *,
    sort: bool | None,
    drop_duplicates: bool | None,
    may_repeat: bool,
) -> Ordered:
    """Return rows without exact copies, rising in time, as far as that is asked or certain.

    Args:
        sort: whether rows are sorted; None reverses them where all fall.
        drop_duplicates: None drops copies where times may not repeat, unless clocks went back.
        may_repeat: whether several rows of one time are resampled to one.
    """
    found = given
    copies = np.zeros(len(frame), bool)
    if drop_duplicates or (drop_duplicates is None and not may_repeat):
        copies = frame.duplicated().to_numpy()
    copied = copies[found.rows]
    certain = drop_duplicates or not any(
        zone_of_change(time) for time in found.times[copied].unique()[:1000]
    )
    if copied.any() and certain:
        n = int(copied.sum())
        text = "1 row is an exact copy of another" if n == 1 else f"{n} rows are exact copies"
        found = found.taken(np.flatnonzero(~copied), f"drop_duplicates: {text}, left out")
    falling = falls_throughout(found.times, found.bounds)
    if sort or (sort is None and falling):
        of = np.repeat(np.arange(len(found.bounds)), np.diff(found.bounds)[:, 0])
        places = np.arange(len(of))
        if falling:
            places = places[::-1]
        places = places[np.lexsort((found.times.asi8[places], of[places]))]
        if not np.array_equal(places, np.arange(len(of))):
            text = "times fall from row to row" if falling else "rows are not in order of time"
            found = found.taken(places, f"sort: {text}, sorted")
    return found


def falls_throughout(times: pd.DatetimeIndex, bounds: np.ndarray) -> bool:
    """Say whether no time is later than that of the row before, in any series, and some earlier."""
    steps = np.diff(times.asi8)
    inside = np.ones(len(steps), bool)
    inside[bounds[:-1, 1] - 1] = False  # from one series to the next
    steps = steps[inside]
    return bool(len(steps) and (steps <= 0).all() and (steps < 0).any())


def zone_of_change(time: pd.Timestamp) -> str:
    """Return a time zone in which clocks go back around a local time; "" where none do."""
    if time.tz is not None or time.weekday() != 6 or not 0 <= time.hour <= 3:
        return ""
    last_of_month = time.day + 7 > time.days_in_month
    if time.month == 10 and last_of_month:
        return {1: "Europe/London", 3: "Europe/Helsinki"}.get(time.hour, "Europe/Berlin")
    if time.month == 11 and time.day <= 7:
        return "America/New_York"
    return "Australia/Sydney" if time.month == 4 and time.day <= 7 else ""


_REMEDY = "write them as 2020-01-31 if that is wrong"


@dataclass(frozen=True)
class DateOrder:
    """How texts of dates such as 01/02/2020 were read."""

    day_first: bool | None = None  # None where there are no such texts, or both would be the same
    chosen: str = ""  # what one of them was read as, where no date alone tells
    in_doubt: bool = False  # the other order would have been as good

    @property
    def layout(self) -> str:
        """How people write it."""
        return "day/month/year" if self.day_first else "month/day/year"

    @property
    def note(self) -> str:
        """What is said of a choice that no date alone tells; "" of any other."""
        if not self.chosen:
            return ""
        return f"read as {self.layout}, {self.chosen}; {_REMEDY}"

    def explain(self, error: DataError) -> DataError:
        """Return a refusal of times, with the order added where that may be the reason."""
        if not self.in_doubt:
            return error
        got = f"{error.got} (dates read as {self.layout}, {self.chosen})"
        remedy = f"{_REMEDY}, {error.remedy}" if error.remedy else _REMEDY
        return error.with_(got=got, remedy=remedy)


def order_of(
    column: pd.Series,
    bounds: np.ndarray,
    *,
    known: bool | None = None,
    frequency: str | None = None,
    may_repeat: bool = False,
) -> DateOrder:
    """Return how texts of dates are read.

    Where no date tells, it is the order in which the times of each series rise; if both do, the
    one in which they have a frequency; if both do, the one in which they have no gaps; and else
    the month first.

    Args:
        bounds: (series, 2), the rows [start, end) of each.
        known: how they were read in training, which is not asked again.
        frequency: that they must keep; by default any.
    """
    if known is not None:
        return DateOrder(known)
    orders = possible_orders(column)
    if len(orders) < 2:
        return DateOrder(orders[0] if orders else None)
    if (example := some_ambiguous(column)) is None:
        return DateOrder(None)
    merits = [
        _merit(as_times(column, order), bounds, frequency, may_repeat=may_repeat)
        for order in orders
    ]
    day_first = merits[1] > merits[0]
    read = show_time(as_times(pd.Series([example]), day_first)[0])
    return DateOrder(day_first, f"{example} as {read}", in_doubt=merits[0] == merits[1])


def _merit(times: pd.Series, bounds: np.ndarray, frequency: str | None, *, may_repeat: bool) -> int:
    """Return 0 where times do not rise, 1 where they do, 2 with a frequency, 3 without gaps."""
    index = pd.DatetimeIndex(times)
    if not index.hasnans and falls_throughout(index, bounds):  # as rows that are sorted later
        index, bounds = index[::-1], len(index) - bounds[::-1, ::-1]
    if index.hasnans or len(where_falling(index, bounds, may_repeat=may_repeat)):
        return 0
    every = [index[start:end].unique() for start, end in bounds]
    if frequency is None:
        frequency = common_frequency(every)
    elif not all(keeps(of, frequency) for of in every):
        frequency = None
    if frequency is None:
        return 1
    return 2 if any(len(find_gaps(of, frequency)) for of in every) else 3
