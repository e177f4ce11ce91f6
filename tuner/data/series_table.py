"""Series: read from a table, checked, in order of time, at one frequency."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.data.preprocessing import Preparation, repeated, row_weights
from tuner.data.vocabulary import Levels, codes_of
from tuner.errors import DataError, Setting, refusal
from tuner.pipeline_steps import LARGEST, Dialect
from tuner.tables.frequencies import (
    DateOrder,
    Ordered,
    bounds_of,
    common_frequency,
    find_frequency,
    find_gaps,
    in_order,
    keeps,
    order_of,
    rows_of,
    where_falling,
    zone_of_change,
)
from tuner.tables.table import RawTable, melted, naming_files, place_of, read_table
from tuner.tables.timestamps import (
    are_days_of_spreadsheet,
    as_times,
    is_time_of_day,
    localized,
    show_time,
    where_outside,
)

if TYPE_CHECKING:
    from tuner.experiment.data import Data

_FOOTERS = 5  # lines at most that a total may have
_PLAIN = Dialect()


@dataclass(frozen=True, eq=False)
class Series:
    """One series or several, one after another, checked: in order of time, and finite."""

    path: Path
    sha256: str  # of the file
    rows: int  # in the file
    frame: pd.DataFrame  # (rows, columns) float64: features, targets, lagged ones; nan is missing
    bounds: np.ndarray  # (series, 2): the rows [start, end) of each
    names: tuple[str, ...]  # of each, from the id column; one empty name without it
    lines: np.ndarray  # (rows,): the row of the file that each was; -1 where it was none
    inserted: np.ndarray  # (rows,), bool: was missing between two times
    times: pd.DatetimeIndex | None  # of all rows, where there is a time column
    frequency: str | None  # of every series, as pandas writes it: MS, D, h, ...
    features: list[str]
    targets: list[str]
    date_order: DateOrder  # in texts of times
    dialect: Dialect = _PLAIN  # how the file is written
    reusable_dialect: Dialect = _PLAIN  # of files of its kind, for a model
    found: tuple[str, ...] = ()  # notes on the file
    rows_to_come: int = 0  # of the file: behind the last targets, and left out
    levels: Levels = field(default_factory=dict)  # of columns of categories, which hold codes
    weights: np.ndarray | None = None  # (rows,), what targets count, 0 or more; None: all alike
    holidays: bool | None = None  # whether open days without a row are holidays; None: as inferred

    def until(self, ends: np.ndarray) -> Series:
        """Return a copy with the first rows of each series, as many as in `ends`, (series,)."""
        starts = self.bounds[:, 0]
        rows = rows_of(np.column_stack([starts, starts + ends]))
        return dataclasses.replace(
            self,
            frame=self.frame.iloc[rows].reset_index(drop=True),
            bounds=bounds_of(ends),
            lines=self.lines[rows],
            inserted=self.inserted[rows],
            times=None if self.times is None else self.times[rows],
            weights=None if self.weights is None else self.weights[rows],
        )

    def without_coming(self) -> Series:
        """Return the series up to their last targets, and count the rows behind those."""
        shorter = self.until(self.ends - self.bounds[:, 0])
        n_rows = len(self.frame) - len(shorter.frame)
        return dataclasses.replace(shorter, rows_to_come=n_rows)

    def times_of(self, series: int) -> pd.DatetimeIndex:
        """Return the times of one of the series, which has times."""
        assert self.times is not None
        return self.times[slice(*self.bounds[series])]

    def times_of_each(self) -> list[pd.DatetimeIndex]:
        """Return the times of each of the series, which have times."""
        return [self.times_of(i) for i in range(len(self.names))]

    def place(self, row: int) -> str:
        """Return where a row stands: its line in the file, its time and its series."""
        line = int(self.lines[row])
        place = "a row that is in no line" if line < 0 else place_of(self.path, line, self.dialect)
        if self.times is not None:
            place += f" ({show_time(self.times[row])})"
        return place + self.whose(self.number_of(row))

    def number_of(self, row: int) -> int:
        """Return the number of the series that a row belongs to."""
        return int(self.bounds[:, 1].searchsorted(row, side="right"))

    def whose(self, series: int) -> str:
        """Return the series by name where there are several, for a message; else ""."""
        return f" of series {self.names[series]!r}" if len(self.names) > 1 else ""

    @property
    def ends(self) -> np.ndarray:
        """The row after the last one with a target of each series, (series,).

        Rows to come follow. It is the end of a series without any target.
        """
        has = self.frame[self.targets].notna().any(axis=1).to_numpy()
        found = ends_with_targets(has[:, None], self.bounds)
        return np.where(found == self.bounds[:, 0], self.bounds[:, 1], found)

    def key_of(self, column: str) -> str:
        """Return the key of the experiment that a column is read for."""
        if column in self.targets:
            return "data.target"
        if column in self.levels:
            return "data.categories"
        return "data.features" if column in self.features else "data.lags"


def ends_with_targets(known: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return the row after the last one of each series with all targets, (series,).

    Args:
        known: (rows, targets), bool: in the file, not imputed.
        bounds: (series, 2), the rows [start, end) of each series.
    """
    rows = np.where(known.all(axis=1), np.arange(len(known)), -1)
    return np.array([rows[start:end].max(initial=start - 1) + 1 for start, end in bounds])


def read_series(data: Data) -> Series:
    """Read the file at `data.path`, an absolute path, and check the columns that are used.

    Without `data.features` every numeric column with a name is a feature, but for the time, the id
    and the weight. Missing values stay missing if `data.missing` allows them. With
    `data.known_future` the rows to come, behind a series' last target, are left out.

    Raises:
        DataError: the file or a column breaks a rule; naming file, key, rule, value and remedy.
    """
    table = read_table(data)
    with naming_files(table):
        return series_of(table, data)


def series_of(
    table: RawTable,
    data: Preparation,
    frequency: str | None = None,
    *,
    day_first: bool | None = None,
    holidays: bool | None = None,
    coming: bool = False,
) -> Series:
    """Return the series in a table, and check the columns that are used.

    Args:
        frequency: that the rows must keep; by default any.
        day_first: whether 1/2/2020 is in February; by default inferred.
        holidays: whether open days without a row are holidays; by default inferred.
        coming: whether rows behind the last target are kept.
    """
    file, in_file = table, np.arange(len(table.frame))
    if data.wide is not None:
        table, in_file = melted(file, data.wide, data.time)
    in_file = in_file if file.lines is None else file.lines[in_file]
    _check_names(table, data)
    columns, features, levels = _columns_of(table, data)
    targets = [columns[name] for name in data.targets]
    weights = None if data.weight is None else row_weights(table, data, targets)
    order, bounds, series_names = _group(table, data.id)
    times, date_order = None, DateOrder()
    dialect, reusable, notes = table.dialect, table.reusable_dialect, table.notes
    if data.time is not None:
        rows, date_order = _in_time(table, data, order, bounds, frequency, day_first)
        order, bounds, times = rows.rows, rows.bounds, _localized(table, rows)
        dialect, reusable = rows.recorded_in(dialect), rows.recorded_in(reusable)
        notes = (*notes, *rows.notes)
    series = Series(
        path=table.path,
        sha256=file.sha256,
        rows=len(file.frame),
        frame=pd.DataFrame(columns).iloc[order].reset_index(drop=True),
        bounds=bounds,
        names=series_names,
        lines=in_file[order],
        inserted=np.zeros(len(order), bool),
        times=times,
        frequency=None,
        features=features,
        targets=data.targets,
        date_order=date_order,
        dialect=dialect,
        reusable_dialect=reusable,
        found=notes,
        levels=levels,
        holidays=holidays,
        weights=None if weights is None else weights[order],
    )
    series = repeated(series, data.static)
    if data.known_future is not None and not coming and (series.ends < bounds[:, 1]).any():
        series = series.without_coming()
    series = dataclasses.replace(series, frequency=_check_times(series, data, frequency))
    _check_finite(series, data)
    return series


def _check_names(table: RawTable, data: Preparation) -> None:
    keys = "targets", "time", "id", "features", "lags", "known_future", "categories", "static"
    for key in keys:
        names = getattr(data, key) or []
        for name in [names] if isinstance(names, str) else names:
            table.check_has("data.target" if key == "targets" else f"data.{key}", name)
            if key == "lags" and name in (data.time, data.id):
                which = "time" if name == data.time else "id"
                rule = "must name columns of numbers"
                got = f"{name!r}, which is the {which}"
                raise refusal(table.path, "data.lags", rule, got, "remove it")


def _columns_of(
    table: RawTable, data: Preparation
) -> tuple[dict[str, np.ndarray], list[str], Levels]:
    columns = {name: _numbers(table, "data.target", name) for name in data.targets}
    features = data.features or [
        name
        for name in table.names
        if name not in (data.time, data.id, data.weight)
        and (name in columns or is_numeric_dtype(table.frame[name]))
    ]
    known_future = data.known_future or []
    categories = [name for name in data.categories if name != data.id]
    features = list(dict.fromkeys([*features, *known_future, *data.static, *categories]))
    of_categories, levels = codes_of(table, data.categories)
    columns |= of_categories
    for key, used in (
        ("data.known_future", known_future), ("data.static", data.static),
        ("data.features", features), ("data.lags", data.lags),
    ):  # fmt: skip
        for name in used:
            if name not in columns:
                columns[name] = _numbers(table, key, name)
    return columns, features, levels


def _in_time(
    table: RawTable,
    data: Preparation,
    order: np.ndarray,
    bounds: np.ndarray,
    frequency: str | None,
    day_first: bool | None,
) -> tuple[Ordered, DateOrder]:
    """Return the rows in order of time, and how their dates were read."""
    assert data.time is not None
    column, resampled = table.times(data.time), data.resample is not None
    date_order = order_of(
        column.iloc[order],
        bounds,
        known=day_first,
        frequency=None if resampled else frequency,
        may_repeat=resampled,
    )
    times = _parse_times(table, data, column, date_order)[order]
    rows = in_order(
        Ordered(order, bounds, times),
        table.frame,
        sort=table.dialect.sort,
        drop_duplicates=table.dialect.drop_duplicates,
        may_repeat=resampled,
    )
    return rows, date_order


def _numbers(table: RawTable, key: str, name: str) -> np.ndarray:
    path, frame = table.path, table.frame
    values, bad = table.numbers(key, name)
    column = frame[name]
    if len(bad) == len(frame) and not any(is_numeric_dtype(frame[c]) for c in frame):
        got = f"{column[0]!r} in {table.place_of(0)} of {name!r}"
        raise refusal(path, key, "the file has no numeric column", got, "give numbers")
    if len(bad):
        rule = f"column {name!r} must hold numbers"
        got = f"{column[bad[0]]!r} in {table.place_of(bad[0])}"
        change = "choose another column"
        if key == "data.target" and len(bad) == int(column.notna().sum()):
            change += ", or write task.kind: classify and task.window for the coming row's class"
        elif key in ("data.features", "data.known_future", "data.static"):
            change += f", or write data.categories: [{name}]"
        raise refusal(path, key, rule, got, "write a number there (1234.5)", change)
    return values


def _group(table: RawTable, column: str | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the rows of the file series by series, each one's bounds there, and their names."""
    if column is None:
        n_rows = len(table.frame)
        return np.arange(n_rows), np.array([[0, n_rows]]), ("",)
    ids = table.raw_strings([column])[column]
    if (bad := np.flatnonzero(ids == "")).size:
        rule = f"column {column!r} must say in every row which series it belongs to"
        got = f"none in {table.place_of(bad[0])}"
        raise refusal(table.path, "data.id", rule, got, "fill it in")
    codes, found = pd.factorize(ids)
    bounds = bounds_of(np.bincount(codes))
    return np.argsort(codes, kind="stable"), bounds, tuple(map(str, found))


def _parse_times(
    table: RawTable, data: Preparation, column: pd.Series, order: DateOrder
) -> pd.DatetimeIndex:
    path, parsed = table.path, as_times(column, order.day_first)
    if (bad := np.flatnonzero(parsed.isna())).size:
        value = table.frame[column.name][bad[0]]
        got = "none" if pd.isna(value) else repr(value.item() if hasattr(value, "item") else value)
        rule, remedy, ways = _no_time(table, column, parsed, order, value, bad)
        rule, got = f"column {column.name!r} {rule}", f"{got} in {table.place_of(bad[0])}"
        raise refusal(path, "data.time", rule, got, remedy, ways_out(data, *ways))
    if (bad := where_outside(parsed)).size:
        rule = f"column {column.name!r} must hold times of the years 1678 to 2261"
        got = f"{str(column[bad[0]])!r} (read as {show_time(parsed[bad[0]])}) in "
        got += table.place_of(bad[0])
        remedy = "write years with four digits (2010-01-31 or 2010-01)"
        raise refusal(path, "data.time", rule, got, remedy, ways_out(data))
    return pd.DatetimeIndex(parsed)


def _no_time(
    table: RawTable,
    column: pd.Series,
    parsed: pd.Series,
    order: DateOrder,
    value: Any,
    bad: np.ndarray,
) -> tuple[str, str, Sequence[str | Setting]]:
    """Return rule, remedy and changes for the first value that is no time, in row `bad[0]`."""
    rule, remedy = "must hold a time in every row", "write 1960-01-31, 1960-01 or 1960, say"
    below = len(parsed) - int(bad[0])
    if is_time_of_day(value):
        rule, remedy = "must hold dates, not times of day alone", "write 2020-01-31 08:15, say"
        return rule, remedy, ["name the column of dates too in data.read.time_columns"]
    if (date_format := table.dialect.date_format) is not None:
        rule += f" as data.read.date_format says ({date_format})"
        return rule, "correct the row or the format", ()
    if order.day_first is not None and as_times(column.iloc[bad[:1]]).notna().all():
        return f"must hold dates in one order, here {order.layout}", "write 1960-01-31, say", ()
    if are_days_of_spreadsheet(column):
        note = " if these are the days of a spreadsheet"
        way = Setting("data.read.date_format", "excel", note)
        return f"{rule} that is certain", "", [way]
    if mark := next((m for m in ("#", "//", "%") if str(value).startswith(m)), None):
        return rule, "", [Setting("data.read.comment", f'"{mark}"', " if this is no row")]
    if below <= _FOOTERS and len(bad) == below:
        note = " if a total stands below the rows"
        return rule, "", [Setting("data.read.skip_footer", str(below), note)]
    if parsed.notna().mean() < 0.5:
        return rule, remedy, [Setting("data.read.date_format", '"%d.%m.%Y"', ", say")]
    return rule, remedy, ()


def _localized(table: RawTable, rows: Ordered) -> pd.DatetimeIndex:
    """Return the times in the time zone that is declared."""
    zone = table.dialect.timezone
    if zone is None:
        return rows.times
    try:
        return localized(rows.times, rows.bounds, zone)
    except ValueError as error:  # a time that does not exist, or one of two
        rule, got = f"times must be those of {zone}", f"one that is not: {error}"
        remedy = "correct the row, or choose another time zone"
        raise refusal(table.path, "data.read.timezone", rule, got, remedy) from None


def _check_times(series: Series, data: Preparation, frequency: str | None) -> str | None:
    """Return the frequency of the rows; None where they have none, or are to be resampled."""
    if series.times is None:
        return None
    try:
        _check_order(series, series.times, may_repeat=data.resample is not None)
        if data.resample is not None:
            return None
        if frequency is None:
            return _check_regular(series, data)
        return _check_frequency(series, data, frequency)
    except DataError as error:
        raise series.date_order.explain(error) from None


def _check_order(series: Series, times: pd.DatetimeIndex, *, may_repeat: bool) -> None:
    path = series.path
    falling = where_falling(times, series.bounds, may_repeat=may_repeat)
    if not len(falling):
        return
    row = int(falling[0])
    here, before = show_time(times[row]), show_time(times[row - 1])
    place, place_before = (
        place_of(path, int(series.lines[r]), series.dialect) for r in (row, row - 1)
    )
    place += series.whose(series.number_of(row))
    zone = zone_of_change(times[row])
    if zone and times[row - 1] - times[row] <= pd.Timedelta("1h"):
        got = f"{here} in {place} after {before} in {place_before}"
        rule = "an hour comes twice where clocks go back"
        change = Setting("data.read.timezone", zone, ", or where the times are from")
        raise refusal(path, "data.time", rule, got, change=change)
    ways = []
    if len(series.names) == 1 and times.has_duplicates:
        note = "name the column that tells several series apart as data.id"
        ways = [Setting("data.id", None, note)]
    if times[row] == times[row - 1]:
        rule = "no time may appear twice"
        got = f"{here} in {place_before} and in {place}"
        raise refusal(path, "data.time", rule, got, "keep one of the rows", ways)
    got = f"{here} in {place} after {before} in {place_before}"
    ways = [Setting("data.read.sort", "true"), *ways]
    raise refusal(path, "data.time", "times must rise", got, change=ways)


def _check_finite(series: Series, data: Preparation) -> None:
    values = series.frame.to_numpy()
    usable = np.abs(values) < LARGEST  # False for nan as well
    if data.missing != "refuse":
        usable |= np.isnan(values)
    elif data.known_future is not None:
        lengths = np.diff(series.bounds)[:, 0]
        coming = np.arange(len(values)) >= np.repeat(series.ends, lengths)
        usable |= np.isnan(values) & coming[:, None]
    if usable.all():
        return
    row, at = np.argwhere(~usable)[0]
    name, value = str(series.frame.columns[at]), float(values[row, at])
    rule = f"column {name!r} must hold a finite number (below 1e30) in every row"
    got, remedy, change = str(value), "correct it", "choose another column"
    if name in series.levels:
        rule, got = f"column {name!r} must hold a category in every row", "none"
        remedy, change = "fill it in", "write data.missing: ffill, or choose another column"
    elif np.isnan(value):
        remedy = "fill it in"
        change = "write data.missing: ffill (or interpolate), or choose another column"
    got = f"{got} in {series.place(int(row))}"
    raise refusal(series.path, series.key_of(name), rule, got, remedy, change)


_STEPS = {  # with their days
    "1s": 1 / 86_400, "1min": 1 / 1440, "5min": 1 / 288, "15min": 1 / 96, "1h": 1 / 24, "6h": 0.25,
    "1D": 1.0, "7D": 7.0, "MS": 30.0, "QS": 91.0, "YS": 365.0,
}  # fmt: skip
_MONTHS = {"MS": 1, "QS": 3, "YS": 12}  # in a step; the others are of one length


def _check_regular(series: Series, data: Preparation) -> str | None:
    """Return the frequency of series with times; None where they have too few rows for one."""
    every = series.times_of_each()
    frequency = common_frequency(every)
    if frequency is None:
        if max(map(len, every)) < 3:
            return None
        raise _uneven(series, data, every)
    if data.missing == "refuse":
        _check_gaps(series, data, every, frequency)
    return frequency


def _check_frequency(series: Series, data: Preparation, frequency: str) -> str:
    """Return the frequency that a model was trained on, if series with times have it.

    Few rows may have several: those of one working week are daily ones too. Where they have it
    only with gaps, it must be the one that is found in them.
    """
    every = series.times_of_each()
    if not all(keeps(times, frequency) for times in every) or (
        any(len(find_gaps(times, frequency, series.holidays)) for times in every)
        and common_frequency(every) not in (None, frequency)
    ):
        found = common_frequency(every)
        longest = max(every, key=len)
        got = found or f"a first step of {_step(longest[1] - longest[0])}"
        rule = f"the model was trained on rows at frequency {frequency}"
        raise refusal(series.path, "data.time", rule, got, f"give it rows at frequency {frequency}")
    if data.missing == "refuse":
        _check_gaps(series, data, every, frequency)
    return frequency


def ways_out(data: Preparation, *ways: str | Setting) -> Sequence[str | Setting]:
    """Return changes of the experiment; for one series also to leave the times out.

    Without times, several series would be split each by its own rows: a training row of one could
    be later than a test row of another.
    """
    if data.id is None:
        note = "leave data.time out to take the rows as they come"
        ways = (*ways, Setting("data.time", None, note))
    return ways


def _check_gaps(
    series: Series, data: Preparation, every: list[pd.DatetimeIndex], frequency: str
) -> None:
    for i, times in enumerate(every):
        missing = find_gaps(times, frequency, series.holidays)
        if len(missing):
            row = int(series.bounds[i, 0] + times.searchsorted(missing[0]))
            place = place_of(series.path, int(series.lines[row]), series.dialect)
            got = f"{len(missing)} missing at frequency {frequency}, the first "
            got += f"{show_time(missing[0])} before {place}{series.whose(i)}"
            rule = "times must have no gaps"
            change = ways_out(data, Setting("data.missing", "ffill", " (or interpolate)"))
            raise refusal(series.path, "data.time", rule, got, "add the rows", change)


def _uneven(series: Series, data: Preparation, every: list[pd.DatetimeIndex]) -> Exception:
    """Return the refusal of series that have no common frequency."""
    found = {i: find_frequency(times) for i, times in enumerate(every) if len(times) > 2}
    change = ways_out(data, _resampling(every))
    if at := [i for i, frequency in found.items() if frequency is None]:
        times = every[at[0]]
        steps = times[1:] - times[:-1]
        row = int(np.flatnonzero(steps != steps[0])[0]) + 1
        place = series.place(int(series.bounds[at[0], 0]) + row)
        got = f"a step of {_step(steps[0])} at first and of {_step(steps[row - 1])} in {place}"
        return refusal(series.path, "data.time", "times must be evenly spaced", got, change=change)
    first = next(iter(found))
    other = next((i for i in found if found[i] != found[first]), None)
    if other is None:  # one of two rows, then, which do not lie on the others' steps
        other = int(np.diff(series.bounds)[:, 0].argmin())
    got = f"{found[first]} in {series.names[first]!r} and {found.get(other, 'another')} in "
    got += repr(series.names[other])
    rule = "the times of all series must have one frequency"
    return refusal(series.path, "data.time", rule, got, change=change)


def _resampling(every: list[pd.DatetimeIndex]) -> Setting:
    """Return a step for `data.resample`: the shortest usual one of which every step has rows.

    Where there is none, it is as long as most steps are, and steps without rows are imputed.
    """
    for step in _STEPS:
        if all(_have_rows(times, step) for times in every):
            return Setting("data.resample", step, ", say")
    usual = float(np.median(np.concatenate([np.diff(times.asi8) for times in every])))
    usual *= np.timedelta64(1, every[0].unit) / np.timedelta64(1, "D")
    longest = next((step for step, days in _STEPS.items() if days >= 0.99 * usual), "YS")
    return Setting("data.resample", longest, ", say, and data.missing: ffill")


def _have_rows(times: pd.DatetimeIndex, step: str) -> bool:
    """Return whether each step between the first row and the last has a row."""
    wall = times.tz_localize(None)
    if step in _MONTHS:
        places = np.asarray(wall.year * 12 + wall.month - 1) // _MONTHS[step]
    else:
        places = np.asarray((wall - pd.Timestamp(0)) // pd.Timedelta(step))
    n = int(places[-1] - places[0]) + 1
    return n > 2 and len(np.unique(places)) == n


def _step(step: pd.Timedelta) -> str:
    return str(step).removesuffix(" 00:00:00").removeprefix("0 days ")
