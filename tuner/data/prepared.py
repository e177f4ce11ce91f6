"""Prepared data: its facts, its arrays for jobs, and the only way to the test set."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from tuner.data.baselines import baselines_record, preparations_of
from tuner.data.features import Table, known_ahead
from tuner.data.metrics import check_own_metric
from tuner.data.preprocessing import Preparation
from tuner.data.profile import Trend, trend_of
from tuner.data.reference import SKIP, DataRef
from tuner.data.resampling import even_rows
from tuner.data.sample_names import SampleNames
from tuner.data.series_table import Series, ends_with_targets
from tuner.data.splits import Parts
from tuner.data.vocabulary import notes_of_categories
from tuner.errors import DataError, refusal
from tuner.experiment import Experiment
from tuner.metrics import METRICS
from tuner.tables.frequencies import are_open_days, few_enough, find_holidays, rows_of
from tuner.tables.timestamps import show_time


@dataclass(frozen=True)
class Part:
    """The training, validation or test part of the data."""

    name: str  # training, validation, test; with folds validation 1, validation 2, ...
    count: int
    unit: str  # row or sequence
    first: str | None = None  # the times that it runs from and to, where there are times
    last: str | None = None


_QUOTING = ("constant", "sentinel", "outlier", "stands still", "unit", "suspect")


@dataclass(frozen=True)
class Facts:
    """Facts about a file, without any of its values."""

    path: Path
    sha256: str
    rows: int
    features: tuple[str, ...]  # columns that a model sees, those made of others among them
    targets: tuple[str, ...]
    parts: tuple[Part, ...]  # in order; the last one is the test part
    frequency: str | None = None  # as pandas writes it: MS, D, h, ...
    season: int | None = None  # rows in a season, of a forecast
    classes: tuple[str, ...] = ()
    series: tuple[str, ...] = ()  # their names, where a forecast is of several
    vocabulary: int = 0  # tokens that have a number; 0 where the steps are numbers themselves
    trends: tuple[Trend, ...] = ()  # of targets of a forecast, seen without the test part
    notes: tuple[tuple[str, str], ...] = ()  # of `tuner check`: (what, how many)

    @property
    def test(self) -> Part:
        """The test part."""
        return self.parts[-1]

    def without_values(self) -> Facts:
        """Return the facts without notes that quote values: some are of the test part."""
        return replace(self, notes=tuple(n for n in self.notes if n[0] not in _QUOTING))


def counted(number: int, unit: str) -> str:
    """Return a number with its unit: 1 row, 2 rows."""
    return f"{number} {unit}{'s' * (number != 1)}"


def constant_targets(targets: Sequence[str], truth: np.ndarray) -> Iterator[tuple[str, str]]:
    """Yield a note on each target that is the same in the whole training part.

    Args:
        truth: (n, targets), of the training part; nan where it is missing.
    """
    for name, column in zip(targets, truth.T, strict=True):
        values = column[~np.isnan(column)]
        if len(values) and np.ptp(values) == 0:
            text = f"{name!r} is {values[0]:g} in all of the training part: nothing can be learned"
            yield "constant", text


def constant_features(
    table: Table, rows: np.ndarray, later: np.ndarray, targets: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield a note on each other column that is the same in the whole training part."""
    for at, (name, column) in enumerate(zip(table.names, table.inputs.T, strict=True)):
        if at in table.category_columns:
            continue
        values = column[rows]
        values = values[~np.isnan(values)]
        if name not in targets and len(values) and np.ptp(values) == 0:
            text = f"{name!r} is {values[0]:g} in all of the training part"
            after = column[later]
            moved = after[~np.isnan(after) & (after != values[0])]
            if len(moved):
                text += f", and {moved[0]:g} later: what that means was never learned"
            else:
                text += ": it tells a model nothing"
            yield "constant", f"{text}; leave it out of data.features"


def check_metric(
    metric: str, facts: Facts, part: str, truth: np.ndarray, units: np.ndarray | None = None
) -> None:
    """Refuse a metric that has no score of these values, or the same one for every prediction.

    Args:
        truth: (n, targets), or (n,) classes.
        units: (samples, targets), the divisors of MASE, nan where there is none.

    Raises:
        DataError: `tuner.metrics.Metric.undefined` says why.
    """
    undefined = METRICS[metric].undefined
    if undefined is None:
        return
    columns = truth.reshape(len(truth), -1).T
    divisors = np.empty((len(columns), 0)) if units is None else units.T
    for target, values, by in zip(facts.targets, columns, divisors, strict=True):
        why = undefined(values, by)
        if why is None:
            continue
        if why.remedy is None:
            key, remedy = f"data.split.{part.partition(' ')[0]}", "make the part larger"
            raise refusal(facts.path, key, why.rule, why.got, f"{remedy} or choose another metric")
        got = f"{why.got} for {why.column.format(target=target, part=part)}"
        raise refusal(facts.path, "objective.metric", why.rule, got, why.remedy)


def has_holidays(
    read: Series, data: Preparation, split: Callable[[Series, np.ndarray], Parts]
) -> bool | None:
    """Return whether series of open days have holidays; None where nothing depends on it.

    They have some where few of the open days of the training part are without a row, long breaks
    aside. Without holidays, a day without a row is a gap. With holidays there are fewer rows, so
    the training part may end elsewhere: the rows before both of its ends decide, and no later one.

    Args:
        data: `missing` says how missing rows are treated.
        split: returns the parts of series with even rows, the first (series,) rows of each aside.
    """
    frequency = read.frequency
    if frequency is None or not are_open_days(frequency):
        return None
    refuses = data.missing == "refuse"
    lengths: list[list[int]] = []  # of each series' training part, in rows that were read
    for holidays in (True,) if refuses else (True, False):
        with contextlib.suppress(DataError):  # refused later, if at all
            even = even_rows(replace(read, holidays=holidays), data)
            ends = split(even, np.zeros(len(even.names), int)).train[0][:, 1]
            last = [even.times_of(i)[:end].max() if end else None for i, end in enumerate(ends)]
            lengths.append(
                [
                    0 if time is None else int(read.times_of(i).searchsorted(time, side="right"))
                    for i, time in enumerate(last)
                ]
            )
    if not lengths:
        return None
    n_missing = n_every = 0
    for i, length in enumerate(np.min(lengths, axis=0)):
        if length:
            closed = len(find_holidays(read.times_of(i)[:length], frequency, holidays=True))
            n_missing += closed
            n_every += closed + int(length)
    return few_enough(n_missing, n_every) or (None if refuses else False)


def part_of(series: Series, name: str, part: np.ndarray) -> Part:
    """Return a part of the rows [start, end) of each series, (series, 2), counted in it."""
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
        train: (series, 2), the rows [start, end) of the training part, counted in each series.
        test: (series,), the first row of the test part, likewise.
        season: rows in one.
    """
    several = len(series.names) > 1
    for at, target in enumerate(series.targets):
        of_each = []
        ranges = zip(series.names, series.bounds[:, 0], train, test, strict=True)
        for name, start, (first, end), before in ranges:
            name = name if several else ""
            known, before_test = (
                table.truth[start + first : start + stop, at] for stop in (end, before)
            )
            of_each.append((name, known, before_test))
        if (found := trend_of(target, season, of_each)) is not None:
            yield found


def notes_of(
    series: Series, table: Table, experiment: Experiment, train: np.ndarray, test: np.ndarray
) -> Iterator[tuple[str, str]]:
    """Yield notes on the rows of the file: what, and how many.

    Args:
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
    rows = rows_of(train + series.bounds[:, :1])
    yield from known_ahead(series, table, experiment.task.horizon, rows)
    if data.static:
        yield "static", ", ".join(data.static)
    names = [table.names[at] for at in table.category_columns]
    yield from notes_of_categories(names, table.codes, series.levels, rows, data.id)
    yield from constant_targets(series.targets, np.where(table.known, table.truth, np.nan)[rows])
    later = np.column_stack([train[:, 1], np.maximum(train[:, 1], test)]) + series.bounds[:, :1]
    yield from constant_features(table, rows, rows_of(later), series.targets)
    if series.frequency is not None and data.resample is None:
        every, holidays = series.times_of_each(), series.holidays
        closed = sum(len(find_holidays(times, series.frequency, holidays)) for times in every)
        if closed:
            yield "holidays", f"{counted(closed, 'open day')} without a row: none is filled in"
    missing = series.frame.isna().to_numpy()
    if not missing.any():
        return
    yield from _without_targets(series, table)
    lengths = np.diff(series.bounds)[:, 0]
    place = np.arange(len(missing)) - np.repeat(series.bounds[:, 0], lengths)
    leading = place < np.repeat(table.first, lengths)
    values = counted(int(missing[~series.inserted & ~leading].sum()), "value")
    inserted = counted(int((series.inserted & ~leading).sum()), "row")
    if data.missing == SKIP:
        yield "missing", f"{values} and {inserted}; windows that cross them are left out"
        return
    yield "filled in", f"{values} and {inserted}, {data.missing}"


def _without_targets(series: Series, table: Table) -> Iterator[tuple[str, str]]:
    """Note how many rows at the end of the series have no target: they are in no score."""
    last = ends_with_targets(table.known, series.bounds)
    lacking = series.bounds[:, 1] - last
    if not lacking.any():
        return
    at = int(lacking.argmax())
    whose = f" of {series.names[at]!r}" if len(series.names) > 1 else ""
    of = "the last row" if lacking[at] == 1 else f"the last {lacking[at]} rows"
    yield "without target", f"{of}{whose}, neither trained on nor scored"


@dataclass(frozen=True)
class Prepared:
    """Arrays on disk, and facts about them."""

    facts: Facts
    folds: tuple[DataRef, ...]  # one without rolling origins; of an opened test part one
    pipeline: dict[str, Any]  # how inputs are made and outputs are read, as JSON
    name_of: SampleNames  # of samples of the last fold
    others: Callable[[Mapping[str, Any]], Prepared] | None = None  # of trials, by parameters

    def of(self, params: Mapping[str, Any]) -> Prepared:
        """Return the data as it is prepared for a trial with these parameters.

        Every preparation is made once, for the first trial that needs it. All of them are evaluated
        on the same samples.

        Args:
            params: of the trial, or of the untuned default; others are as `data` has them.
        """
        return self if self.others is None else self.others(params)


class Preparations:
    """The preparations of one experiment's data, each written when it is first asked for.

    Args:
        folder: of the arrays of the experiment's own preparation; the others lie in it.
    """

    def __init__(
        self, experiment: Experiment, folder: Path, write: Callable[[Experiment, Path], Prepared]
    ) -> None:
        self._experiment, self._folder, self._write = experiment, folder, write
        self._made: dict[tuple[str, ...], Prepared] = {}

    def of(self, params: Mapping[str, Any]) -> Prepared:
        """Return the preparation of a trial with these parameters."""
        chosen = self._experiment.preparation(params)
        key = tuple(chosen.values())
        if key not in self._made:
            folder = self._folder / f"preparation{len(self._made)}" if self._made else self._folder
            made = self._write(self._experiment.prepared_as(chosen), folder)
            self._made[key] = replace(made, others=self.of)
        return self._made[key]

    @property
    def own(self) -> Prepared:
        """The experiment's own, written before any other."""
        return self.of({})


class Dataset(ABC):
    """Checked data, all of its values still in memory."""

    experiment: Experiment
    facts: Facts

    def write(self, folder: Path) -> Prepared:
        """Write what a search may see: everything before the test part, which is dropped first.

        Everything fitted is fitted on the training rows alone, in each fold anew. Preparations that
        trials search are written when `Prepared.of` asks for them.
        """
        return self.preparations(folder).own

    def write_test(self, folder: Path) -> Prepared:
        """Write everything, with the test part to evaluate, prepared as in the last fold.

        Called by `open_test_part` alone.
        """
        return self.preparations(folder, test=True).own

    def preparations(self, folder: Path, *, test: bool = False) -> Preparations:
        """Return what writes the preparations of the data: see `write` and `write_test`."""
        write = partial(self._write, test=True) if test else self._before_test()._write
        return Preparations(self.experiment, folder, write)

    @abstractmethod
    def _before_test(self) -> Self:
        """Return the data without the values of the test part."""

    @abstractmethod
    def _write(self, experiment: Experiment, folder: Path, *, test: bool = False) -> Prepared:
        """Write the arrays of one preparation, with the test part to evaluate if `test`."""


def check_data(experiment: Experiment, *, all_data: bool = False) -> Dataset:
    """Read the data and refuse everything about it that can be refused; write nothing.

    Args:
        all_data: whether the validation part is trained on too, and everything fitted on both;
            with rolling origins, on all before the test part. Rows to evaluate are then seen in
            training: they give no score.
    """
    check_own_metric(experiment, Path(experiment.data.path))
    if experiment.task.of_series:
        from tuner.data.series import check_series

        return check_series(experiment, all_data=all_data)
    if experiment.task.kind == "translate":
        from tuner.data.sequences import check_pairs

        return check_pairs(experiment, all_data=all_data)
    from tuner.data.sequences import check_sequences

    return check_sequences(experiment, all_data=all_data)


def prepare(experiment: Experiment, folder: Path, *, all_data: bool = False) -> Prepared:
    """Read, check, split, transform and scale, and write the arrays without the test part."""
    return check_data(experiment, all_data=all_data).write(folder)


def check_same(facts: Facts, sha256: str | None) -> None:
    """Refuse a file with another sha256 than that of the file that was searched on."""
    if sha256 is not None and facts.sha256 != sha256:
        rule = f"must be the file that was searched on (sha256 {sha256[:12]})"
        raise refusal(facts.path, "data.path", rule, facts.sha256[:12], "bring the file back")


def open_test_part(
    experiment: Experiment, folder: Path, *, sha256: str | None = None, all_data: bool = False
) -> Prepared:
    """Write all data into `folder` and return it with the test part to evaluate.

    Called once, at the end of a study, which records the access. The scalers are fitted on the
    training part, as in the search (with rolling origins, in its last fold); with `all_data` on all
    before the test part. The rows to evaluate are the same for both.

    Args:
        sha256: of the data that was searched on; the file may have changed meanwhile.
        all_data: whether models were trained on the validation part too.

    Raises:
        DataError: the file has changed.
    """
    dataset = check_data(experiment, all_data=all_data)
    check_same(dataset.facts, sha256)
    return dataset.write_test(folder)


class DataSource:
    """Reads the data of a search in the process and thread of the search.

    A service derives from it, to read what others have sent in a process with limits. Whatever is
    read where, it has to be the same.
    """

    def prepare(self, experiment: Experiment, folder: Path, *, all_data: bool = False) -> Prepared:
        """Return the data without the test part: see `prepare`."""
        return prepare(experiment, folder, all_data=all_data)

    def test_part(
        self,
        experiment: Experiment,
        folder: Path,
        *,
        sha256: str | None = None,
        all_data: bool = False,
    ) -> Prepared:
        """Return the data with the test part: see `open_test_part`."""
        return open_test_part(experiment, folder, sha256=sha256, all_data=all_data)

    def baselines(self, experiment: Experiment, data: Prepared) -> dict[str, Any]:
        """Return the baselines' record: see `tuner.data.baselines.baselines_record`.

        Args:
            experiment: of the search.
            data: as `prepare` returned it.
        """
        others = [(each, data.of(each).folds) for each in preparations_of(experiment)[1:]]
        metric, season = experiment.objective.metric, data.facts.season
        return baselines_record(metric, data.folds, season, others)


HERE = DataSource()
"""This process."""
