"""What is said about series that were read: the sizes of their parts, and what was done to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tuner.data.categories import notes_of_categories
from tuner.data.dataset import Part, counted
from tuner.data.features import Table, ends_with_targets
from tuner.data.gaps import SKIP
from tuner.data.known_columns import known_ahead
from tuner.data.measurable import constant_features, constant_targets
from tuner.data.reading import Series
from tuner.data.times import find_holidays, show_time
from tuner.data.trend import Trend, trend_of
from tuner.experiment import Experiment

__all__ = ["notes_of", "part_of", "trends_of"]


def part_of(series: Series, name: str, part: np.ndarray) -> Part:
    """Return what is said of a part, (series, 2), the rows [start, end) counted in each series."""
    rows = part + series.bounds[:, :1]
    held = rows[rows[:, 1] > rows[:, 0]]
    found = Part(name, int(np.diff(held).sum()), "row")
    if not len(held) or (series.times is None and len(series.names) > 1):
        return found
    if series.times is None:
        return replace(found, first=f"row {held[0, 0] + 1}", last=f"row {held[0, 1]}")
    first, last = series.times[held[:, 0]].min(), series.times[held[:, 1] - 1].max()
    shown = [show_time(first), show_time(last)]
    if len(shown[0]) != len(shown[1]):  # one of them is midnight
        shown = [str(first), str(last)]
    return replace(found, first=shown[0], last=shown[1])


def trends_of(
    series: Series, table: Table, train: np.ndarray, test: np.ndarray, season: int | None
) -> Iterator[Trend]:
    """Yield the targets whose level moves before the test part begins.

    Args:
        series: with even rows.
        table: that was made of them.
        train: (series, 2), the rows [start, end) of the training part, counted in each series.
        test: (series,), the first row of the test part, likewise.
        season: rows in one.
    """
    several = len(series.names) > 1
    for at, target in enumerate(series.targets):
        of_each = [
            (
                series.names[i] if several else "",
                table.truth[start + first : start + end, at],
                table.truth[start + first : start + before, at],
            )
            for i, ((start, _), (first, end), before) in enumerate(
                zip(series.bounds, train, test, strict=True)
            )
        ]
        if (found := trend_of(target, season, of_each)) is not None:
            yield found


def notes_of(
    series: Series, table: Table, experiment: Experiment, train: np.ndarray, test: np.ndarray
) -> Iterator[tuple[str, str]]:
    """Say what became of the rows of the file: what, and how many.

    Args:
        series: with even rows.
        table: that was made of them.
        experiment: how.
        train: (series, 2), the rows [start, end) of the training part, counted in each series.
        test: (series,), the first row of the test part, likewise.
    """
    data = experiment.data
    for found in series.found:
        yield "read", found
    if series.date_order.note:
        yield "dates", series.date_order.note
    if data.id is not None:
        yield "series", str(len(series.names))
    if data.resample is not None:
        text = f"{counted(len(series.frame), 'row')} of {data.resample}, {data.aggregate}"
        if series.frequency != data.resample:
            text += f", frequency {series.frequency}"
        yield "resampled", text
    rows = np.concatenate([np.arange(*part) for part in train + series.bounds[:, :1]])
    yield from known_ahead(series, table, experiment.task.horizon, rows)
    if data.static:
        yield "static", ", ".join(data.static)
    names = [table.names[at] for at in table.category_columns]
    yield from notes_of_categories(names, table.codes, series.levels, rows, data.id)
    yield from constant_targets(series.targets, np.where(table.known, table.truth, np.nan)[rows])
    later = np.column_stack([train[:, 1], np.maximum(train[:, 1], test)]) + series.bounds[:, :1]
    validated = np.concatenate([np.arange(*part) for part in later])
    yield from constant_features(table, rows, validated, series.targets)
    if series.frequency is not None and data.resample is None:
        each = range(len(series.names))
        closed = sum(
            len(find_holidays(series.times_of(i), series.frequency, series.holidays)) for i in each
        )
        if closed:
            yield "holidays", f"{counted(closed, 'open day')} without a row: none is filled in"
    missing = series.frame.isna().to_numpy()
    if not missing.any():
        return
    yield from _without_targets(series, table)
    lengths = np.diff(series.bounds)[:, 0]
    place = np.arange(len(missing)) - np.repeat(series.bounds[:, 0], lengths)
    leading = place < np.repeat(table.first, lengths)
    values = counted(int(missing[~series.put_in & ~leading].sum()), "value")
    put_in = counted(int((series.put_in & ~leading).sum()), "row")
    if data.missing == SKIP:
        yield "missing", f"{values} and {put_in}; windows that cross them are left out"
        return
    yield "filled in", f"{values} and {put_in}, {data.missing}"


def _without_targets(series: Series, table: Table) -> Iterator[tuple[str, str]]:
    """Say how many rows at the end of the series have no target: they are in no score."""
    last = ends_with_targets(table.known, series.bounds)
    lacking = series.bounds[:, 1] - last
    if not lacking.any():
        return
    at = int(lacking.argmax())
    whose = f" of {series.names[at]!r}" if len(series.names) > 1 else ""
    of = "the last row" if lacking[at] == 1 else f"the last {lacking[at]} rows"
    yield "without target", f"{of}{whose}, neither trained on nor scored"
