"""Prepared data: its facts, its arrays for jobs, and the only way to the test set."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.data.features import Table, ends_with_targets, known_ahead
from tuner.data.metrics import check_own_metric
from tuner.data.preprocessing import Preparation
from tuner.data.profile import Trend, trend_of
from tuner.data.reference import SKIP, DataRef
from tuner.data.resampling import even_rows
from tuner.data.series_table import Series
from tuner.data.splits import Parts
from tuner.data.vocabulary import notes_of_categories
from tuner.errors import DataError, refusal
from tuner.experiment import Experiment
from tuner.metrics import METRICS
from tuner.tables.frequencies import are_open_days, few_enough, find_holidays
from tuner.tables.timestamps import show_time

if TYPE_CHECKING:
    from tuner.experiment import Experiment


@dataclass(frozen=True)
class Part:
    """What is trained on, validated on, or tested on."""

    name: str  # training, validation, test; with folds validation 1, validation 2, ...
    count: int
    unit: str  # row or sequence
    first: str | None = None  # the times that it runs from and to, where there are times
    last: str | None = None


_QUOTING = ("constant", "sentinel", "outlier", "stands still", "unit", "suspect")


@dataclass(frozen=True)
class Facts:
    """What is known of a file, without any of its values."""

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
    notes: tuple[tuple[str, str], ...] = ()  # what `tuner check` says besides: (what, how many)

    @property
    def test(self) -> Part:
        """The test part."""
        return self.parts[-1]

    def without_values(self) -> Facts:
        """Return the facts without notes that quote values: some are of the test part."""
        return replace(self, notes=tuple(n for n in self.notes if n[0] not in _QUOTING))


@dataclass(frozen=True)
class Prepared:
    """Arrays on disk, and what is known of them."""

    facts: Facts
    folds: tuple[DataRef, ...]  # one without rolling origins; of an opened test part one
    pipeline: dict[str, Any]  # how inputs are made and outputs are read, as JSON
    name_of: Callable[[int], str]  # what people call a sample of the last fold
    others: Callable[[Mapping[str, Any]], Prepared] | None = None  # of trials, by parameters

    def of(self, params: Mapping[str, Any]) -> Prepared:
        """Return the data as a trial with these parameters has it prepared.

        Every preparation is made when the first trial asks for it, and once. All of them are
        evaluated on the same samples.

        Args:
            params: of the trial, or of the untuned default; what is not among them is as `data`
                has it.
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
        key = tuple(self._experiment.preparation(params).values())
        if key not in self._made:
            folder = self._folder
            if self._made:
                folder /= f"preparation{len(self._made)}"
            chosen = self._experiment.preparation(params)
            made = self._write(self._experiment.prepared_as(chosen), folder)
            self._made[key] = replace(made, others=self.of)
        return self._made[key]

    @property
    def own(self) -> Prepared:
        """The experiment's own, written before any other."""
        return self.of({})


class Dataset(ABC):
    """Data that nothing is wrong with, all of its values still in memory."""

    facts: Facts

    @abstractmethod
    def write(self, folder: Path) -> Prepared:
        """Write what a search may see: everything that does not belong to the test part.

        The test values are dropped first. What is fitted is fitted on the training rows alone,
        in each fold anew. Preparations that trials have besides come as `Prepared.of` is asked.
        """

    @abstractmethod
    def write_test(self, folder: Path) -> Prepared:
        """Write everything, the test part to evaluate, prepared as in the last fold.

        To be called by `tuner.data.prepared` alone.
        """


def counted(number: int, unit: str) -> str:
    """Write a number with its unit, for a note: 1 row, 2 rows."""
    return f"{number} {unit}{'s' * (number != 1)}"


def check_data(experiment: Experiment, *, all_data: bool = False) -> Dataset:
    """Read the data and refuse everything about it that can be refused; write nothing.

    Args:
        all_data: whether the validation part is trained on too, and everything fitted on both;
            with rolling origins, on all before the test part. What is evaluated then was seen
            in training: it gives no score.
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
    """Refuse a file that is not the one that was searched on, whose sha256 it is."""
    if sha256 is not None and facts.sha256 != sha256:
        rule = f"must be the file that was searched on (sha256 {sha256[:12]})"
        raise refusal(facts.path, "data.path", rule, facts.sha256[:12], "bring the file back")


def open_test_part(
    experiment: Experiment, folder: Path, *, sha256: str | None = None, all_data: bool = False
) -> Prepared:
    """Write all data into `folder` and return it with the test part to evaluate.

    To be called once, at the end of a study, by the one who records that the test was opened.
    The scalers are those of the search (with rolling origins, of its last fold), for they are
    fitted on the same training part; of models that were trained on all before the test part,
    those that are fitted on that. The rows to evaluate are the same for both.

    Args:
        sha256: of the data that was searched on; the file may have changed meanwhile.
        all_data: whether it is for models that were trained on the validation part too.

    Raises:
        DataError: the file is not what it was.
    """
    dataset = check_data(experiment, all_data=all_data)
    check_same(dataset.facts, sha256)
    return dataset.write_test(folder)


def constant_targets(targets: Sequence[str], truth: np.ndarray) -> Iterator[tuple[str, str]]:
    """Say which targets are the same in the whole training part: there is nothing to learn.

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
    """Say which other columns are the same in the whole training part: they tell nothing."""
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
    """Refuse a metric that has no score of these values, or the same one whatever is predicted.

    Args:
        truth: (n, targets), what is to be predicted; (n,) classes.
        units: (samples, targets), what MASE divides by, with nan where there is nothing.

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
    """Say whether series of open days have holidays; None where it is of no use to decide.

    They have some where few of the open days of the training part are without a row, long breaks
    aside. Where it has none, a day without a row is a gap.
    With holidays there are fewer rows, so the training part may end elsewhere: what is before
    both of its ends decides. What is later, in the test part say, moves nothing.

    Args:
        data: says what is done about missing rows.
        split: returns the parts of series with even rows, the first (series,) rows of each aside.
    """
    frequency = read.frequency
    if frequency is None or not are_open_days(frequency):
        return None
    refuses = data.missing == "refuse"
    lengths: list[list[int]] = []  # of each series' training part, in rows that were read
    for holidays in (True,) if refuses else (True, False):
        with contextlib.suppress(DataError):  # refused later on, if it comes to that
            even = even_rows(replace(read, holidays=holidays), data)
            ends = split(even, np.zeros(len(even.names), int)).train[0][:, 1]
            lengths.append(
                [
                    int(read.times_of(i).searchsorted(even.times_of(i)[:end].max(), side="right"))
                    if end
                    else 0
                    for i, end in enumerate(ends)
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
    values = counted(int(missing[~series.inserted & ~leading].sum()), "value")
    inserted = counted(int((series.inserted & ~leading).sum()), "row")
    if data.missing == SKIP:
        yield "missing", f"{values} and {inserted}; windows that cross them are left out"
        return
    yield "filled in", f"{values} and {inserted}, {data.missing}"


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
