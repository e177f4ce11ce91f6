"""Prepares the data of a search, once and without the test part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuner.data.reading import Series, read_series
from tuner.data.reference import DataRef
from tuner.data.scaling import Scaler, first_usable_row, transform_targets
from tuner.data.splitting import Parts, split_rows
from tuner.data.tables import refusal
from tuner.experiment import Experiment

__all__ = ["Prepared", "check_data", "prepare", "write_arrays"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A series on disk as arrays, and what is known of it."""

    ref: DataRef
    series: Series  # the facts of the whole file; for a search, the values before the test part
    parts: Parts
    input_scaler: Scaler  # of the feature columns

    @property
    def rows(self) -> int:
        """Rows in the file."""
        return self.series.rows


def check_data(experiment: Experiment) -> tuple[Series, Parts]:
    """Read the data and refuse everything about it that can be refused; write nothing.

    Raises:
        DataError: naming file, key, rule, value and remedy.
    """
    data, task = experiment.data, experiment.task
    series = read_series(data)
    parts = split_rows(
        series.rows,
        data.split,
        series.times,
        window=task.window,
        horizon=task.horizon,
        file=series.path,
        first=first_usable_row(data.transform),
    )
    for name in ("validation", "test"):
        first, end = parts.named()[name]
        if experiment.objective.metric == "r2" and end - first < 2:
            text = "r2 needs at least 2 rows, got 1; make the part larger or choose another metric"
            raise refusal(series.path, f"data.split.{name}", text)
    transform_targets(series, data.transform)
    return series, parts


def prepare(experiment: Experiment, folder: Path) -> Prepared:
    """Read, check, split, transform and scale, and write the arrays without the test rows.

    Raises:
        DataError: as `check_data` does, before anything is written.
    """
    series, parts = check_data(experiment)
    series = series.until(parts.test[0])  # from here on the test values do not exist
    return write_arrays(experiment, series, parts, folder, evaluate=parts.validation)


def write_arrays(
    experiment: Experiment,
    series: Series,
    parts: Parts,
    folder: Path,
    *,
    evaluate: tuple[int, int],
) -> Prepared:
    """Write the series' rows into `folder`, scaled by what its training rows alone say."""
    data, task = experiment.data, experiment.task
    train = slice(*parts.train)
    targets = transform_targets(series, data.transform)
    frame = series.frame.copy()
    frame[series.targets] = targets
    inputs = frame[series.features].to_numpy()
    input_scaler = Scaler.fit(data.scale, inputs[train])
    target_scaler = Scaler.fit(data.scale, targets[train])

    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "inputs.npy", input_scaler.transform(inputs).astype(np.float32))
    np.save(folder / "targets.npy", target_scaler.transform(targets).astype(np.float32))
    np.save(folder / "truth.npy", series.frame[series.targets].to_numpy())
    ref = DataRef(
        folder=str(folder),
        window=task.window,
        horizon=task.horizon,
        train=parts.train,
        evaluate=evaluate,
        transform=data.transform,
        offset=tuple(target_scaler.offset.tolist()),
        scale=tuple(target_scaler.scale.tolist()),
    )
    return Prepared(ref, series, parts, input_scaler)
