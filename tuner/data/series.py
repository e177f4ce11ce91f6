"""Series to forecast: checked, cut, and written as the arrays that jobs refer to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tuner.data.baselines import season_of
from tuner.data.dataset import Dataset, Facts, Prepared
from tuner.data.features import check_features, make_table
from tuner.data.filling import even_rows
from tuner.data.measurable import check_measurable
from tuner.data.reading import Series, read_series
from tuner.data.reference import SeriesRef, Shape
from tuner.data.scaling import Scaler, naive_errors
from tuner.data.scratch import save_arrays
from tuner.data.series_facts import notes_of, part_of, trends_of
from tuner.data.splitting import Parts, split_rows
from tuner.data.tables import refusal
from tuner.data.times import show_time
from tuner.experiment import Experiment

__all__ = ["SeriesDataset", "check_series"]


_NAMED = 5  # series at most


def check_series(experiment: Experiment, *, all_data: bool = False) -> SeriesDataset:
    """Read the series of a forecast and refuse everything about them that can be refused.

    With `all_data` the rows of the validation part are trained on as well.

    Raises:
        DataError: naming file, key, rule, value and remedy.
    """
    data, task = experiment.data, experiment.task
    series = even_rows(read_series(data), data)
    check_features(series, data)
    table = make_table(series, data)
    window, key = _longest_window(experiment)
    parts = split_rows(
        series.bounds,
        data.split,
        series.times,
        first=table.first,
        window=window,
        horizon=task.horizon,
        file=series.path,
        window_key=key,
    )
    if all_data:
        parts = parts.with_all(table.first)
    season = task.season or season_of(series.frequency)
    facts = Facts(
        path=series.path,
        sha256=series.sha256,
        rows=series.rows,
        features=table.names,
        targets=tuple(series.targets),
        parts=tuple(part_of(series, name, part) for name, part in parts.named().items()),
        frequency=series.frequency,
        season=season,
        trends=tuple(trends_of(series, table, parts.train[-1], parts.test[:, 0], season)),
        notes=tuple(notes_of(series, table, experiment, parts.train[-1])),
    )
    dataset = SeriesDataset(experiment, series, parts, facts)
    dataset.check()
    return dataset


class SeriesDataset(Dataset):
    """Series that nothing is wrong with, the values of their test part among them."""

    def __init__(self, experiment: Experiment, series: Series, parts: Parts, facts: Facts) -> None:
        self.facts = facts
        self._experiment = experiment
        self._series = series
        self._parts = parts

    def write(self, folder: Path) -> Prepared:
        """Write what a search may see, a folder for each fold.

        A fold's folder ends with the rows that the fold is validated on.
        """
        before_test = self._series.until(self._parts.test[:, 0])  # there are no test values now
        refs: list[SeriesRef] = []
        for fold in self._search_folds(before_test):
            refs.append(fold.save(folder / f"fold{len(refs)}"))
        return Prepared(self.facts, tuple(refs), self._pipeline(fold), fold.name_of)

    def write_test(self, folder: Path) -> Prepared:
        """Write everything, the test part to evaluate, prepared as in the last fold."""
        fold = self._test_fold()
        ref = fold.save(folder / "fold0")
        return Prepared(self.facts, (ref,), self._pipeline(fold), fold.name_of)

    def check(self) -> None:
        """Refuse parts that hold no window to train on or to score, and scores that have no sense.

        Raises:
            DataError: naming file, key, rule, value and remedy.
        """
        folds = chain(self._search_folds(self._series), [self._test_fold()])
        lacking: list[str] = []
        for part, fold in zip(self.facts.parts[1:], folds, strict=True):
            self._check_fold(part.name, fold.ref)
            lacking += self._without_windows(part.name, fold.ref, fold.ref.evaluate_samples())
        lacking = self._without_windows("training", fold.ref, fold.ref.train_samples()) + lacking
        if lacking:
            notes = (*self.facts.notes, ("without windows", "; ".join(lacking)))
            self.facts = replace(self.facts, notes=notes)

    def _without_windows(self, part: str, ref: SeriesRef, samples: np.ndarray) -> list[str]:
        """Say which series have no window in a part: nothing is learned of them, or scored."""
        have = set(ref.series_of(samples).tolist())
        names = [name for i, name in enumerate(self._series.names) if i not in have]
        if not names:
            return []
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return [f"{', '.join(names[:_NAMED])}{more} in {part}"]

    def _check_fold(self, name: str, ref: SeriesRef) -> None:
        horizon = self._experiment.task.horizon
        metric = self._experiment.objective.metric
        trained = ref.with_window(ref.longest_window).train_samples()
        evaluated, key = ref.evaluate_samples(), f"data.split.{name.partition(' ')[0]}"
        for samples, part, where in (
            (trained, "training", "data.split"),
            (evaluated, name, key),
        ):
            if not len(samples):
                text = (
                    f"no window in the {part} part has {ref.longest_window} rows to read and "
                    f"{horizon} known targets after them in one series; make the part larger, or "
                    f"the window or task.horizon smaller"
                )
                raise refusal(self.facts.path, where, text)
        truth = ref.truth_of(evaluated).reshape(-1, len(self.facts.targets))
        check_measurable(metric, self.facts, name, truth, ref.naive_errors(evaluated))

    def _search_folds(self, series: Series) -> Iterator[_Fold]:
        """Yield the folds one by one, for each may be as large as the data."""
        for train, evaluate in zip(self._parts.train, self._parts.validation, strict=True):
            until = series.until(evaluate[:, 1])
            yield _make_fold(self._experiment, until, train, evaluate, self._naive_step)

    def _test_fold(self) -> _Fold:
        parts = self._parts
        args = (self._series, parts.train[-1], parts.test, self._naive_step)
        return _make_fold(self._experiment, *args)

    @property
    def _naive_step(self) -> int:
        """A season, in all folds alike; one row where the shortest training part has no two."""
        season, shortest = self.facts.season, self._parts.train[0]
        return season if season is not None and season < np.diff(shortest).max() else 1

    def _pipeline(self, fold: _Fold) -> dict[str, Any]:
        data, task = self._experiment.data, self._experiment.task
        settings = data.model_dump(
            mode="json",
            include={"time", "id", "missing", "resample", "aggregate", "calendar", "lags",
                     "transform", "scale"},
        )  # fmt: skip
        return {
            "task": task.kind,
            **settings,
            "features": list(self._series.features),
            "targets": list(self._series.targets),
            "inputs": {
                "names": list(self.facts.features),
                "offset": fold.inputs.offset.tolist(),
                "scale": fold.inputs.scale.tolist(),
            },
            "outputs": {
                "names": list(self._series.targets),
                "offset": fold.targets.offset.tolist(),
                "scale": fold.targets.scale.tolist(),
            },
            "window": self._experiment.given("window"),
            "horizon": task.horizon,
            "quantiles": list(task.quantiles),
            "frequency": self.facts.frequency,
            "day_first": self._series.date_order.day_first,
            "season": self.facts.season,
        }


@dataclass(frozen=True)
class _HeldRef(SeriesRef):
    """The reference to arrays that are not written yet."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def load(self, name: str) -> np.ndarray:
        return self.arrays[name]


@dataclass(frozen=True, eq=False)
class _Fold:
    """One split into training and evaluation, scaled by what its training rows say."""

    ref: _HeldRef
    series: Series  # up to where the evaluation ends
    inputs: Scaler
    targets: Scaler

    def name_of(self, row: int) -> str:
        """Return the series and the time, or the row, of a window's first target."""
        times, bounds = self.series.times, self.series.bounds
        of = int(bounds[:, 1].searchsorted(row, side="right"))
        place = row - bounds[of, 0] + 1 if times is None else show_time(times[row])
        return f"{self.series.names[of]} {place}".strip()

    def save(self, folder: Path) -> SeriesRef:
        """Write the arrays into a folder of their own."""
        save_arrays(folder, self.ref.arrays)
        fields = {n: getattr(self.ref, n) for n in SeriesRef.__dataclass_fields__}
        return SeriesRef(**fields | {"folder": str(folder)})


def _make_fold(
    experiment: Experiment, series: Series, train: np.ndarray, evaluate: np.ndarray, step: int
) -> _Fold:
    """Prepare series that end where the rows to evaluate end; parts are counted in each series.

    MASE divides by the errors of the forecast that a value is that of `step` rows before.
    """
    data, task = experiment.data, experiment.task
    table = make_table(series, data)
    starts = series.bounds[:, :1]
    train, evaluate = train + starts, evaluate + starts
    rows = np.concatenate([np.arange(first, end) for first, end in train])
    inputs = Scaler.fit(data.scale, table.inputs[rows])
    targets = Scaler.fit(data.scale, table.targets[rows])
    reach = np.column_stack([starts[:, 0] + table.first, series.bounds[:, 1]])
    ref = _HeldRef(
        folder="",
        shape=Shape(
            task="forecast",
            features=len(table.names),
            horizon=task.horizon,
            targets=len(series.targets),
            quantiles=tuple(task.quantiles),
        ),
        window=min(task.window, _longest_window(experiment)[0]),
        longest_window=_longest_window(experiment)[0],
        transform=data.transform,
        offset=tuple(targets.offset.tolist()),
        scale=tuple(targets.scale.tolist()),
        arrays={
            "inputs": inputs.transform(table.inputs),
            "targets": targets.transform(table.targets),
            "truth": table.truth,
            "known": np.asarray(table.known.all(axis=1)),
            "train": train,
            "evaluate": evaluate,
            "reach": reach,
            "naive": naive_errors(table.truth, table.known, train, step),
        },
    )
    return _Fold(ref, series, inputs, targets)


def _longest_window(experiment: Experiment) -> tuple[int, str]:
    """Return the longest window that a trial may read, and the key that says so."""
    if domain := experiment.search_space.get("window"):
        return int(max(domain.bounds())), "search_space.window"
    fixed, window = experiment.hyperparameters.window or 1, experiment.task.window
    return (fixed, "hyperparameters.window") if fixed > window else (window, "task.window")
