"""Series to forecast: checked, cut, and written as the arrays that jobs refer to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np

from tuner.data.features import (
    ClassColumn,
    Table,
    check_features,
    check_modes,
    make_table,
    number_class_column,
    save_modes,
)
from tuner.data.metrics import fewest_residuals
from tuner.data.prepared import (
    Dataset,
    Facts,
    Prepared,
    check_metric,
    counted,
    has_holidays,
    notes_of,
    part_of,
    trends_of,
)
from tuner.data.preprocessing import Scaler, SeriesScaler, Transform, naive_errors
from tuner.data.profile import suspects_of
from tuner.data.reference import SKIP, SeriesRef, Shape, without_gaps
from tuner.data.resampling import even_rows
from tuner.data.sample_names import SampleNames
from tuner.data.series_table import Series, series_of
from tuner.data.splits import Need, Parts, own_cuts, split_rows
from tuner.data.vocabulary import Levels, known_levels, numbered
from tuner.errors import DataError, refusal
from tuner.experiment import Experiment
from tuner.experiment.data import Data
from tuner.outputs import save_arrays
from tuner.tables.frequencies import rows_of, season_of
from tuner.tables.table import naming_files, read_table

_NAMED = 5  # series at most


def check_series(experiment: Experiment, *, all_data: bool = False) -> SeriesDataset:
    """Read the series of a forecast and refuse everything about them that can be refused.

    With `all_data` the rows of the validation part are trained on as well.
    """
    task = experiment.task
    every = experiment.read_rows
    lags = {name: rows for one in every for name, rows in one.data.lags.items()}
    data = every[0].data.model_copy(update={"lags": lags})  # with all columns that are read
    raw, column = read_table(data), ClassColumn((), ())
    with naming_files(raw):
        if task.of_coming_class:
            raw, data, column = number_class_column(raw, data)
        read = series_of(raw, data)
        window, key = _longest_window(experiment)

        def split(even: Series, first: np.ndarray) -> Parts:
            return split_rows(
                even.bounds,
                data.split,
                even.times,
                first=first,
                need=Need(window, task.horizon, key),
                file=even.path,
                own=own_cuts(raw, data, read, even),
            )

        read = replace(read, holidays=has_holidays(read, data, split))
        series = even_rows(read, data)
    tables = [_checked_table(series, each, experiment) for each in every]
    _check_calendars(series, experiment)
    first = np.max([table.first for table in tables], axis=0)
    parts = split(series, first)
    if all_data:
        parts = parts.with_all(first)
    check_modes(experiment, series.path, parts, len(series.targets))
    season = None if column.classes else task.season or season_of(series.frequency)
    train, test = parts.train[-1], parts.test[:, 0]
    trends = () if column.classes else tuple(trends_of(series, tables[0], train, test, season))
    notes = notes_of(series, tables[0], experiment, train, test)
    facts = Facts(
        path=series.path,
        sha256=series.sha256,
        rows=series.rows,
        features=tables[0].names,
        targets=tuple(series.targets),
        parts=tuple(part_of(series, name, part) for name, part in parts.named().items()),
        frequency=series.frequency,
        season=season,
        classes=column.classes,
        series=tuple(series.names) if len(series.names) > 1 else (),
        trends=trends,
        notes=(*notes, *suspects_of(column.without(read))),
    )
    dataset = SeriesDataset(experiment, series, parts, facts, first, column)
    dataset.check()
    return dataset


def _checked_table(series: Series, chosen: Experiment, experiment: Experiment) -> Table:
    """Return the table of a preparation; a refusal names the key that chooses it."""
    try:
        check_features(series, chosen.data)
        return make_table(series, chosen.data)
    except DataError as error:
        raise _of_choice(error, chosen, experiment) from None


def _check_calendars(series: Series, experiment: Experiment) -> None:
    domain = experiment.search_space.get("calendar")
    for choice in domain.bounds() if domain else ():
        chosen = experiment.prepared_as({"calendar": choice})
        try:
            check_features(series, chosen.data)
        except DataError as error:
            raise _of_choice(error, chosen, experiment) from None


def _of_choice(error: DataError, chosen: Experiment, experiment: Experiment) -> DataError:
    """Return a refusal of the data as one of the searched choice that causes it."""
    for name in experiment.preparation({}):
        if error.key == f"data.{name}" and chosen.given(name) != experiment.given(name):
            remedy = f"leave the choice {chosen.given(name)} out"
            return error.with_(key=f"search_space.{name}", remedy=remedy, changes=())
    return error


@dataclass(eq=False)
class SeriesDataset(Dataset):
    """Checked series, with the values of their test part."""

    experiment: Experiment
    series: Series
    parts: Parts
    facts: Facts
    first: np.ndarray  # (series,), the first rows that every preparation can read
    column: ClassColumn

    def _before_test(self) -> Self:
        return replace(self, series=self.series.until(self.parts.test[:, 0]))

    def _write(self, experiment: Experiment, folder: Path, *, test: bool = False) -> Prepared:
        refs: list[SeriesRef] = []
        for fold in [self._test_fold(experiment)] if test else self._search_folds(experiment):
            refs.append(fold.save(folder / f"fold{len(refs)}", experiment, trains=not test))
        facts = replace(self.facts.without_values(), features=fold.names)
        return Prepared(facts, tuple(refs), self._pipeline(experiment, fold), fold.sample_names)

    def check(self) -> None:
        """Refuse parts without a window to train on or to score, and metrics without a value."""
        own = self.experiment.prepared_as({})
        folds = chain(self._search_folds(own), [self._test_fold(own)])
        lacking: list[str] = []
        fewer: list[str] = []
        fold_of_validation: SeriesRef | None = None
        for part, fold in zip(self.facts.parts[1:], folds, strict=True):
            self._check_fold(part.name, fold.ref)
            fold_of_validation = fold.ref if part.name != "test" else fold_of_validation
            scored = fold.ref.evaluate_samples()
            lacking += self._without_windows(part.name, fold.ref, scored)
            if (n_scored := fold.ref.count_of(scored)) < part.count:
                fewer.append(f"{n_scored} of {counted(part.count, part.unit)} in {part.name}")
        lacking = self._without_windows("training", fold.ref, fold.ref.train_samples()) + lacking
        self._check_intervals(fold_of_validation)
        for what, found in (("scored", fewer), ("without windows", lacking)):
            if found:
                notes = (*self.facts.notes, (what, "; ".join(found)))
                self.facts = replace(self.facts, notes=notes)

    def _check_intervals(self, validation: SeriesRef | None) -> None:
        """Refuse intervals of a level that needs more validation residuals."""
        levels = self.experiment.task.intervals
        if not levels or validation is None:
            return
        n_windows, level = len(validation.evaluate_samples()), max(levels)
        if n_windows < (fewest := fewest_residuals(level)):
            rule = f"{level:g} needs the residuals of {fewest} validation windows"
            remedy = "make data.split.validation larger, or the share smaller"
            raise refusal(self.facts.path, "task.intervals", rule, n_windows, remedy)

    def _without_windows(self, part: str, ref: SeriesRef, samples: np.ndarray) -> list[str]:
        have = set(ref.series_of(samples).tolist())
        names = [name for i, name in enumerate(self.series.names) if i not in have]
        if not names:
            return []
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return [f"{', '.join(names[:_NAMED])}{more} in {part}"]

    def _check_fold(self, name: str, ref: _HeldRef) -> None:
        horizon = self.experiment.task.horizon
        metric = self.experiment.objective.metric
        trained = self._trained(ref)
        key = self.experiment.data.split.key_of(name.partition(" ")[0])
        evaluated = ref.evaluate_samples()
        for samples, part, where in ((trained, "training", "data.split"), (evaluated, name, key)):
            if not len(samples):
                self._check_weights(part, ref)
                rule = f"no window in the {part} part has {ref.longest_window} rows to read and "
                rule += f"{horizon} known targets after them in one series"
                remedy = "make the part larger, or the window or task.horizon smaller"
                raise refusal(self.facts.path, where, rule, remedy=remedy)
        if self.facts.classes:
            self._check_classes(name, ref, trained)
            check_metric(metric, self.facts, name, ref.truth_of(evaluated))
            return
        truth = ref.truth_of(evaluated).reshape(-1, len(self.facts.targets))
        weights = ref.weights_of(evaluated)
        truth = truth if weights is None else truth[weights.ravel() > 0]
        check_metric(metric, self.facts, name, truth, ref.naive_errors(evaluated))

    def _check_weights(self, part: str, ref: _HeldRef) -> None:
        """Refuse a part whose windows are all left out as their targets have weight 0."""
        unweighted = replace(ref, weighted=False)
        training = part == "training"
        samples = self._trained(unweighted) if training else unweighted.evaluate_samples()
        if ref.weighted and len(samples):
            rule = f"column {self.experiment.data.weight!r} must be above 0 for some target of the "
            remedy = "give some more weight, or remove data.weight"
            raise refusal(self.facts.path, "data.weight", f"{rule}{part} part", "0 for all", remedy)

    def _check_classes(self, name: str, ref: _HeldRef, trained: np.ndarray) -> None:
        known = np.unique(ref.truth_of(trained))
        others = "later rows, or rows of weight 0," if ref.weighted else "later rows"
        for number, label in enumerate(self.facts.classes):
            if number not in known:
                rule = f"every class must occur in what is trained on before the {name} part"
                got = f"{label!r} in {others} alone"
                remedy = "make that part smaller, or leave the rows out"
                raise refusal(self.facts.path, "data.target", rule, got, remedy)

    def _trained(self, ref: _HeldRef) -> np.ndarray:
        """Return the samples that every preparation and window can train on."""
        reach = ref.load("reach").copy()
        reach[:, 0] = np.minimum(ref.starts + self.first, reach[:, 1])
        read_by_all = replace(ref, arrays=ref.arrays | {"reach": reach})
        return read_by_all.with_window(ref.longest_window).train_samples()

    def _search_folds(self, experiment: Experiment) -> Iterator[_Fold]:
        for train, evaluate in zip(self.parts.train, self.parts.validation, strict=True):
            until = self.series.until(evaluate[:, 1])
            yield self._fold(experiment, until, train, evaluate)

    def _test_fold(self, experiment: Experiment) -> _Fold:
        parts = self.parts
        return self._fold(experiment, self.series, parts.train[-1], parts.test)

    def _fold(
        self, experiment: Experiment, series: Series, train: np.ndarray, evaluate: np.ndarray
    ) -> _Fold:
        """Prepare series that end where the rows to evaluate end; parts are counted in each series.

        A transform is fitted on the training part of the search, everything else on `train`.
        Where other preparations can be read from later rows on, this one trains on all rows that it
        can read, and is evaluated on those that all can.
        """
        data, longest = experiment.data, _longest_window(experiment)[0]
        table, starts = make_table(series, data), series.bounds[:, :1]
        measured, evaluate = train + starts, evaluate + starts
        fitted = train if self.parts.transformed is None else self.parts.transformed
        train = _readable(train, table.first) + starts
        read_by_all = starts[:, 0] + self.first + longest
        read_by_all[self.first <= table.first] = 0
        evaluate[:, 0] = np.minimum(np.maximum(evaluate[:, 0], read_by_all), evaluate[:, 1])
        straightened = rows_of(_readable(fitted, table.first) + starts)
        transform = Transform.of(data.transform).fitted(table.truth[straightened])
        if transform.lambdas:
            table = make_table(series, data, transform)
        rows, classes = rows_of(train), len(self.column.classes)
        scales = _Scales.fit(table, data, train, rows, classes=classes > 0)
        inputs, targets = scales.of(table, series.bounds)
        known = dict[str, tuple[str, ...]]()
        for at, codes in zip(table.category_columns, table.codes.T, strict=True):
            name = table.names[at]
            known[name] = known_levels(codes[rows], series.levels[name])
            inputs[:, at] = numbered(codes, series.levels[name], known[name])
        arrays = {
            "inputs": inputs,
            "known": np.asarray(table.known.all(axis=1)),
            "train": train,
            "evaluate": evaluate,
            "reach": np.column_stack([starts[:, 0] + table.first, series.bounds[:, 1]]),
        }
        if classes:
            arrays["truth"] = np.nan_to_num(table.truth[:, 0]).astype(np.int64)  # that count
        else:
            naive = naive_errors(table.truth, table.known, measured, self._naive_step)
            arrays |= {"targets": targets, "truth": table.truth, "naive": naive}
        if series.weights is not None:
            arrays["weights"] = series.weights
        if data.missing == SKIP:
            whole, has_targets = without_gaps(series, data)
            arrays |= {"whole": whole, "known": np.asarray(has_targets.all(axis=1))}
        if scales.own is not None:
            arrays |= {"offsets": scales.own[1].offset, "scales": scales.own[1].scale}
        ref = self._ref(experiment, table, transform, scales, known, arrays)
        return _Fold(replace(ref, starts=starts[:, 0]), table.names, series, scales, known)

    def _ref(
        self,
        experiment: Experiment,
        table: Table,
        transform: Transform,
        scales: _Scales,
        known: Levels,
        arrays: dict[str, np.ndarray],
    ) -> _HeldRef:
        data, task, classes = experiment.data, experiment.task, len(self.column.classes)
        decompose, longest = data.decompose, _longest_window(experiment)[0]
        shape = Shape(
            task="coming_class" if classes else "forecast",
            features=len(table.names),
            classes=classes,
            horizon=task.horizon,
            targets=len(self.series.targets),
            quantiles=tuple(task.quantiles),
            target_columns=table.target_columns,
            lag_columns=table.lag_columns,
            known_columns=table.known_columns,
            categories=tuple(
                (at, 1 + len(known[table.names[at]])) for at in table.category_columns
            ),
            trend=0 if decompose == "none" else decompose.length or 0,
            modes=0 if decompose == "none" else (decompose.components or 1) - 1,
        )
        return _HeldRef(
            folder="",
            shape=shape,
            window=min(task.window, longest),
            longest_window=longest,
            transform=transform,
            offset=tuple(scales.targets.offset.tolist()),
            scale=tuple(scales.targets.scale.tolist()),
            own_scales=scales.own is not None,
            skips_gaps=data.missing == SKIP,
            season=self._naive_step,
            weighted=self.series.weights is not None,
            step_weights=tuple(task.step_weights or ()),
            arrays=arrays,
        )

    @property
    def _naive_step(self) -> int:
        season, shortest = self.facts.season, self.parts.train[0]
        return season if season is not None and season < np.diff(shortest).max() else 1

    def _pipeline(self, experiment: Experiment, fold: _Fold) -> dict[str, Any]:
        data, task = experiment.data, experiment.task
        settings = data.model_dump(
            mode="json",
            include={"time", "id", "missing", "resample", "aggregate", "calendar", "lags",
                     "transform", "decompose", "scale", "scale_by", "wide"},
        )  # fmt: skip
        if data.known_future is not None:
            settings["known_future"] = data.known_future
        if data.static:
            settings["static"] = data.static
        if fold.categories:
            settings["categories"] = {name: list(of) for name, of in fold.categories.items()}
        return {
            "task": fold.ref.shape.task,
            **settings,
            **self.column.record(),
            "features": list(self.series.features),
            "targets": list(self.series.targets),
            "inputs": {"names": list(fold.names), **fold.scales.inputs.record()},
            "outputs": {"names": list(self.series.targets), **fold.scales.targets.record()},
            "lambdas": list(fold.ref.transform.lambdas),
            "series": fold.scales.record(list(self.series.names)),
            "window": experiment.given("window"),
            "horizon": task.horizon,
            "quantiles": list(task.quantiles),
            "frequency": self.facts.frequency,
            "day_first": self.series.date_order.day_first,
            "holidays": self.series.holidays,
            "read": self.series.reusable_dialect.to_dict(),
            "season": self.facts.season,
        }


@dataclass(frozen=True)
class _HeldRef(SeriesRef):
    """The reference to arrays that are not written yet."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    starts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # of the series

    def load(self, name: str) -> np.ndarray:
        return self.arrays[name]


@dataclass(frozen=True, eq=False)
class _Fold:
    """One split into training and evaluation, scaled by its training rows."""

    ref: _HeldRef
    names: tuple[str, ...]  # of the input columns
    series: Series  # up to where the evaluation ends
    scales: _Scales
    categories: Levels  # that the training part holds, in the order of their numbers

    @property
    def sample_names(self) -> SampleNames:
        """What windows are called: the series and the time, or the row, of their first target."""
        return SampleNames(self.series.names, self.series.bounds, self.series.times)

    def save(self, folder: Path, experiment: Experiment, *, trains: bool = True) -> SeriesRef:
        """Write the arrays into a folder of their own."""
        save_arrays(folder, self.ref.arrays)
        save_modes(self.ref, experiment, folder, trains=trains)
        fields = {n: getattr(self.ref, n) for n in SeriesRef.__dataclass_fields__}
        return SeriesRef(**fields | {"folder": str(folder)})


@dataclass(frozen=True, eq=False)
class _Scales:
    """Scalers that are fitted on training rows."""

    inputs: Scaler
    targets: Scaler
    own: tuple[SeriesScaler, SeriesScaler] | None  # of inputs and targets, where series differ

    @classmethod
    def fit(
        cls, table: Table, data: Data, train: np.ndarray, rows: np.ndarray, *, classes: bool
    ) -> _Scales:
        of_targets = "none" if classes else data.scale
        targets = Scaler.fit(of_targets, table.targets[rows])
        # A target's earlier rows are in the target's unit, so that one level can be taken off both.
        inputs = Scaler.fit(data.scale, table.inputs[rows]).sharing(targets, table.lag_columns)
        if data.scale_by != "series":
            return cls(inputs, targets, None)
        own_targets = SeriesScaler.fit(of_targets, table.targets, train, targets)
        own_inputs = SeriesScaler.fit(data.scale, table.inputs, train, inputs)
        own = own_inputs.sharing(own_targets, table.lag_columns), own_targets
        return cls(inputs, targets, own)

    def of(self, table: Table, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the scaled inputs and targets of a table."""
        if self.own is None:
            return self.inputs.transform(table.inputs), self.targets.transform(table.targets)
        inputs, targets = self.own
        return inputs.transform(table.inputs, bounds), targets.transform(table.targets, bounds)

    def record(self, names: list[str]) -> dict[str, Any] | None:
        """Return what `pipeline.json` keeps of the scalers of series with these names."""
        if self.own is None:
            return None
        pairs = zip(("inputs", "outputs"), self.own, strict=True)
        return {"names": names} | {key: scaler.record() for key, scaler in pairs}


def _readable(part: np.ndarray, first: np.ndarray) -> np.ndarray:
    return np.column_stack([np.minimum(first, part[:, 1]), part[:, 1]])


def _longest_window(experiment: Experiment) -> tuple[int, str]:
    """Return the longest window that a trial may read, and its key."""
    if domain := experiment.search_space.get("window"):
        return int(max(domain.bounds())), "search_space.window"
    fixed, window = experiment.hyperparameters.window or 1, experiment.task.window
    return (fixed, "hyperparameters.window") if fixed > window else (window, "task.window")
