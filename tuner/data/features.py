"""Input features: columns of the file, calendar, lags, classes, and modes of each window."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pandas.api.types import is_numeric_dtype

from tuner.data.preprocessing import Preparation, Transform, shifted
from tuner.data.reference import SeriesRef
from tuner.data.resampling import fill
from tuner.data.series_table import Series
from tuner.data.vocabulary import check_classes, number_classes
from tuner.errors import refusal
from tuner.outputs import save_arrays
from tuner.pipeline_steps import differences_of
from tuner.tables.table import RawTable

if TYPE_CHECKING:
    from tuner.data.splits import Parts
    from tuner.experiment import Experiment
    from tuner.experiment.data import Data


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of series with nothing missing, transformed but not scaled."""

    names: tuple[str, ...]  # of the input columns
    inputs: np.ndarray  # (rows, features)
    targets: np.ndarray  # (rows, targets), transformed
    truth: np.ndarray  # (rows, targets), in the data's units
    known: np.ndarray  # (rows, targets), bool: not imputed
    first: np.ndarray  # (series,): the first row of each series, counted in it, that can be read
    target_columns: tuple[int, ...]  # the input column of each target; -1 for none
    lag_columns: tuple[tuple[int, int], ...]  # (input column, target): its earlier rows
    known_columns: tuple[int, ...]  # the input columns whose values of rows to come are known
    category_columns: tuple[int, ...]  # the input columns of categories, which are 0 in `inputs`
    codes: np.ndarray  # (rows, columns of categories), in the order of these; nan for none


def make_table(series: Series, data: Preparation, transform: Transform | None = None) -> Table:
    """Fill, transform, and make the features. Every row follows from itself and earlier ones.

    Args:
        transform: what `data.transform` says, fitted; not fitted by default.

    Raises:
        DataError: a target has no logarithm, or power.
    """
    columns = list(series.frame)
    values = _filled(series, data)
    at = [columns.index(name) for name in series.targets]
    truth = values[:, at]
    transform = transform or Transform.of(data.transform)
    if transform.is_positive:
        _check_positive(series, truth, transform.pointwise)
    targets = transform.forward(truth, series.bounds)
    values = values.copy()
    values[:, at] = targets
    read = [*series.features, *(name for name in series.levels if name not in series.features)]
    named = {name: values[:, columns.index(name)] for name in read}
    for kind in data.calendar:
        angle = 2 * np.pi * _place(series, kind)
        named |= {f"{kind}_sin": np.sin(angle), f"{kind}_cos": np.cos(angle)}
    for name, lags in data.lags.items():
        for lag in lags:
            column = shifted(values[:, columns.index(name)], series.bounds, lag, np.nan)
            named[f"{name}_lag_{lag}"] = column
    inputs = np.column_stack(list(named.values()))
    readable = ~(np.isnan(inputs).any(axis=1) | np.isnan(targets).any(axis=1))
    first = [
        int(readable[start:end].argmax()) if readable[start:end].any() else end - start
        for start, end in series.bounds
    ]
    known = ~series.frame[series.targets].isna().to_numpy()
    names = list(named)
    of_targets = tuple(names.index(n) if n in series.features else -1 for n in series.targets)
    of_lags = tuple(
        (names.index(f"{name}_lag_{lag}"), target)
        for target, name in enumerate(series.targets)
        for lag in data.lags.get(name, [])
    )
    of_known = tuple(map(names.index, _known_ahead(data)))
    of_categories = [at for at, name in enumerate(names) if name in series.levels]
    codes = inputs[:, of_categories].copy()
    inputs[:, of_categories] = 0
    return Table(
        names=tuple(names),
        inputs=inputs,
        targets=targets,
        truth=truth,
        known=known,
        first=np.array(first),
        target_columns=of_targets,
        lag_columns=of_lags,
        known_columns=of_known,
        category_columns=tuple(of_categories),
        codes=codes,
    )


def _filled(series: Series, data: Preparation) -> np.ndarray:
    """Return all columns imputed, (rows, columns): the last category stays."""
    values = series.frame.to_numpy()
    filled = fill(values, series.bounds, data.missing)
    of_categories = [at for at, name in enumerate(series.frame) if name in series.levels]
    if data.missing != "refuse" and of_categories:
        filled = filled.copy()
        filled[:, of_categories] = fill(values[:, of_categories], series.bounds, "ffill")
    return filled


def _known_ahead(data: Preparation) -> list[str]:
    """Return the inputs that are known in rows to come: such columns, their lags, the calendar."""
    if data.known_future is None:
        return []
    made = [f"{kind}_{wave}" for kind in data.calendar for wave in ("sin", "cos")]
    lagged = [f"{n}_lag_{lag}" for n in data.known_future for lag in data.lags.get(n, [])]
    return [*data.known_future, *made, *lagged]


def _check_positive(series: Series, truth: np.ndarray, name: str) -> None:
    if not (truth <= 0).any():
        return
    row, at = np.argwhere(truth <= 0)[0]
    column = series.targets[at]
    filled, change = "in", "write transform: none"
    if np.isnan(series.frame[column].to_numpy()[row]):
        filled, change = "filled into", "write data.missing: ffill, or transform: none"
    got = f"{truth[row, at]} {filled} column {column!r}, {series.place(int(row))}"
    raise refusal(series.path, "data.transform", f"{name} needs values above 0", got, change=change)


def check_features(series: Series, data: Preparation) -> None:
    """Refuse features that exist twice, or that are constant by their making."""
    for name in series.frame:
        if series.frame[name].isna().all():
            rule = f"column {str(name)!r} holds no value"
            raise refusal(series.path, series.key_of(str(name)), rule, change="leave it out")
    longest, rule = int(np.diff(series.bounds).max()), "no series reaches back so far"
    reaches = sum(differences_of(data.transform))
    if reaches >= longest:
        got = f"{reaches} rows of differences and at most {longest} rows"
        raise refusal(series.path, "data.transform", rule, got, change="write a shorter one")
    for name, lags in data.lags.items():
        if max(lags) >= longest:
            got = f"{max(lags)} for {name!r} and at most {longest} rows"
            raise refusal(series.path, "data.lags", rule, got, change="write a shorter lag")
    made = [("calendar", f"{kind}_{wave}") for kind in data.calendar for wave in ("sin", "cos")]
    made += [("lags", f"{name}_lag_{lag}") for name, lags in data.lags.items() for lag in lags]
    names = [*series.features, *series.levels]
    for key, name in made:
        if name in names:
            rule = f"makes a column {name!r}, and there is one already"
            remedy = "rename that one or remove it here"
            raise refusal(series.path, f"data.{key}", rule, remedy=remedy)
        names.append(name)
    for kind in data.calendar:
        if len(set(_place(series, kind))) < 2:
            often = f" at frequency {series.frequency}" if series.frequency else ""
            rule = f"the {kind} is the same in every row{often}, which tells a model nothing"
            raise refusal(series.path, "data.calendar", rule, repr(kind), "remove it")


def _place(series: Series, kind: str) -> np.ndarray:
    """Return where each row stands in its day, week or year, from 0 to 1, (rows,).

    Times whose offset from UTC changes are in UTC.
    """
    times = series.times
    assert times is not None
    if kind == "hour":
        place = (times.hour * 3600 + times.minute * 60 + times.second) / 86_400
    elif kind == "weekday":
        place = times.day_of_week / 7
    else:
        place = (times.month - 1) / 12
    return np.asarray(place, np.float64)


@dataclass(frozen=True)
class ClassColumn:
    """The classes of a series, and the input columns that hold those of earlier rows."""

    classes: tuple[str, ...]
    columns: tuple[str, ...]  # one a class: 1 where a row is of it, else 0; () where none is read

    def without(self, series: Series) -> Series:
        """Return the series without columns of categories, and of classes, as numbers or not."""
        columns = list(series.levels)
        if self.classes:
            columns += [*series.targets, *self.columns]
        if not columns:
            return series
        targets = [] if self.classes else series.targets
        frame = series.frame.drop(columns=columns)
        return dataclasses.replace(series, frame=frame, targets=targets)

    def record(self) -> dict[str, list[str]]:
        """Return what a model's pipeline keeps for `with_class_columns`: JSON, or {}."""
        if not self.classes:
            return {}
        return {"classes": list(self.classes), "class_columns": list(self.columns)}


def number_class_column(table: RawTable, data: Data) -> tuple[RawTable, Data, ClassColumn]:
    """Return a table in which the target is numbers of classes, and the options to read it.

    The model reads a column for each class in place of the target, where that is among the
    features; by default it is.

    Returns:
        The table, `data` with its features by name, and the classes.

    Raises:
        DataError: the column holds no classes, or one alone.
    """
    (target,) = data.targets
    if target not in table.names:  # refused when columns are read
        return table, data, ClassColumn((), ())
    strings = table.raw_strings([target])[target]
    change = "write task.kind: forecast"
    classes, _ = check_classes(table.path, target, strings, table.place_of, change)
    features = data.features or [
        name
        for name in table.names
        if name not in (target, data.time, data.id, data.weight)
        and is_numeric_dtype(table.frame[name])
    ]
    if data.features is None:
        features = [*features, target]
    columns: tuple[str, ...] = ()
    if target in features:
        columns = tuple(f"{target}={name}" for name in classes)
        while set(columns) & {*table.names, *features}:
            columns = tuple(f"{name}_" for name in columns)
        at = features.index(target)
        features = [*features[:at], *columns, *features[at + 1 :]]
    chosen = data.model_copy(update={"features": features})
    column = ClassColumn(classes, columns)
    return with_class_columns(table, target, column), chosen, column


def with_class_columns(table: RawTable, target: str, column: ClassColumn) -> RawTable:
    """Return a table whose target is numbers of known classes, with the columns that are read.

    Raises:
        DataError: it holds another class.
    """
    if target not in table.names:
        return table
    strings = table.raw_strings([target])[target]
    labelled = np.flatnonzero(strings != "")
    numbers = np.full(len(strings), np.nan)
    try:
        found, of_rows = number_classes(strings[labelled])
    except ValueError as error:
        raise _unknown(table, target, strings, str(error), str(error)) from None
    place = {name: i for i, name in enumerate(column.classes)}
    for at, name in enumerate(found):
        if name not in place:
            raise _unknown(table, target, strings, strings[labelled[of_rows == at][0]], name)
    numbers[labelled] = np.array([place[name] for name in found], float)[of_rows]
    frame = table.frame.assign(**{target: numbers})
    for i, name in enumerate(column.columns):
        frame[name] = np.where(np.isnan(numbers), np.nan, numbers == i)
    return dataclasses.replace(table, frame=frame)


def _unknown(
    table: RawTable, target: str, strings: np.ndarray, raw_string: str, name: str
) -> Exception:
    row = int(np.flatnonzero(strings == raw_string)[0])
    rule = f"column {target!r} must hold classes that the model knows"
    got = f"{name!r} in {table.place_of(row)}"
    return refusal(table.path, "data.target", rule, got, "correct the data")


_MOST_NAMES = 12
_MOST_STEPS = 48  # of the horizon that are compared
_EXACT = 1e-9  # share of the variance that is left: one column follows from the other


def known_ahead(
    series: Series, table: Table, horizon: int, rows: np.ndarray
) -> Iterator[tuple[str, str]]:
    """Yield notes on columns known ahead, on rows to come, and on columns that leak a target."""
    names = [table.names[i] for i in table.known_columns]
    if not names:
        return
    more = f", ... ({len(names)})" if len(names) > _MOST_NAMES else ""
    text = ", ".join(names[:_MOST_NAMES]) + more
    if left := series.rows_to_come:
        text += f"; {left} row{'s' * (left > 1)} without target, which predict reads"
    yield "known ahead", text
    for at, target in enumerate(series.targets):
        truth = np.where(table.known[:, at], table.truth[:, at], np.nan)
        for column in table.known_columns:
            values = table.inputs[:, column]
            steps = _steps_that_tell(values, truth, rows, min(horizon, _MOST_STEPS))
            if steps is not None:
                when = "of the same row" if not steps else f"of the row {steps} before"
                text = (
                    f"{table.names[column]!r} tells {target!r} {when} exactly, in all of the "
                    f"training part: is it known when the forecast is made? If not, leave it out "
                    f"of data.known_future"
                )
                yield "suspect", text


def _steps_that_tell(
    column: np.ndarray, truth: np.ndarray, rows: np.ndarray, steps: int
) -> int | None:
    """Return after how many rows the column determines the target; None for never."""
    for step in range(steps):
        at = rows[rows + step <= rows[-1]]
        x, y = column[at + step], truth[at]
        both = ~(np.isnan(x) | np.isnan(y))
        x, y = x[both], y[both]
        varied = len(x) >= 8 and np.ptp(x) > 0 and np.ptp(y) > 0
        if varied and 1 - float(np.corrcoef(x, y)[0, 1]) ** 2 < _EXACT:
            return step
    return None


INSTALL = "pip install 'lstm-tuner[emd]'"
MOST_WINDOWS = 200_000  # in a search: each takes 2 ms where it has 24 rows, 9 ms where it has 336
MOST_BYTES = 2**31  # of all windows of a search together


def emd_is_installed() -> bool:
    """Return whether the library of empirical mode decomposition is installed."""
    return importlib.util.find_spec("PyEMD") is not None


def modes_of(windows: np.ndarray, modes: int) -> np.ndarray:
    """Return the first intrinsic mode functions of windows.

    The empirical mode decomposition of Huang et al. (1998), "The empirical mode decomposition and
    the Hilbert spectrum for nonlinear and non-stationary time series analysis", by EMD-signal. The
    modes of a window follow from its rows alone.

    Args:
        windows: (windows, rows, targets).
        modes: how many of each target, the fastest first; a window that has fewer gets zeros.

    Returns:
        (windows, rows, targets * modes), float32; the modes of a target stand side by side.
    """
    with warnings.catch_warnings():  # of its other parts, when it is imported
        warnings.simplefilter("ignore")
        from PyEMD import EMD
    n, rows, targets = windows.shape
    found = np.zeros((n, rows, targets, modes), np.float32)
    if rows < 3:
        return found.reshape(n, rows, targets * modes)  # nothing swings
    emd = EMD()
    values = windows.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # of windows that hardly swing
        for i, at in np.ndindex(n, targets):
            emd.emd(values[i, :, at], max_imf=modes)
            functions, _ = emd.get_imfs_and_residue()
            found[i, :, at, : len(functions)] = np.transpose(functions)
    return found.reshape(n, rows, targets * modes)


def save_modes(ref: SeriesRef, experiment: Experiment, folder: Path, *, trains: bool) -> None:
    """Write the modes of every window that a trial may read, of each length an array.

    Args:
        trains: whether the training part is read as well, not the evaluation part alone.
    """
    for window in _windows(experiment) if ref.shape.modes else ():
        own = ref.with_window(window)
        samples = own.evaluate_samples()
        if trains:
            samples = np.union1d(own.train_samples(), samples)
        save_arrays(folder, {f"modes_{window}": _modes_before(ref, window, samples)})


def _modes_before(ref: SeriesRef, window: int, samples: np.ndarray) -> np.ndarray:
    """Return the array `modes_N` of the windows of N rows before some samples."""
    targets = ref.load("inputs")[:, list(ref.shape.target_columns)]
    width = ref.shape.modes * ref.shape.targets
    found = np.full((max(len(targets) - window + 1, 0), window, width), np.nan, np.float32)
    if len(samples):
        rows = np.lib.stride_tricks.sliding_window_view(targets, window, axis=0).swapaxes(1, 2)
        begins = samples - window
        found[begins] = modes_of(rows[begins], ref.shape.modes)
    return found


def _windows(experiment: Experiment) -> list[int]:
    """Return how many rows a forecast may read: by a trial, by default, or as it is fixed."""
    domain, given = experiment.search_space.get("window"), experiment.given("window")
    if domain is None:
        return [given]
    searched = domain.bounds()
    if domain.type == "int":
        searched = tuple(range(domain.low, domain.high + 1, domain.step))
    longest = max(searched)
    return sorted({*searched, min(given, longest), min(experiment.task.window, longest)})


def check_modes(experiment: Experiment, path: Path, parts: Parts, n_targets: int) -> None:
    """Refuse modes that cannot be found, or would take too long or too much memory.

    Args:
        parts: of which rows each fold is.
    """
    searched, key = experiment.search_space.get("decompose"), "data.decompose"
    chosen = [experiment.data.decompose]
    if searched is not None:
        key, choices = "search_space.decompose", searched.bounds()
        chosen = [experiment.prepared_as({"decompose": c}).data.decompose for c in choices]
    n_modes = [each.components - 1 for each in chosen if each != "none" and each.components]
    if not n_modes:
        return
    n_others = math.prod(  # preparations that are written besides
        len(domain.bounds())
        for name in experiment.preparation({})
        if name != "decompose" and (domain := experiment.search_space.get(name))
    )
    windows, folds = _windows(experiment), list(zip(parts.train, parts.validation, strict=True))
    rows = (
        n_targets * n_others * sum(int(np.diff(part).sum()) for fold in folds for part in fold)
    )  # that are forecast first, in each fold
    n_windows = rows * len(windows) * len(n_modes)
    held = n_targets * n_others * sum(int(validation[:, 1].sum()) for _, validation in folds)
    n_bytes = 4 * held * sum(windows) * sum(n_modes)
    if not emd_is_installed():
        raise refusal(path, key, "emd needs EMD-signal, which is not installed", remedy=INSTALL)
    remedy = "write moving_average, fewer or shorter windows in search_space.window, or less data"
    if n_windows > MOST_WINDOWS:
        rule = f"emd splits each window, {MOST_WINDOWS:,} at most"
        raise refusal(path, key, rule, f"{n_windows:,}", remedy)
    if n_bytes > MOST_BYTES:
        rule = f"emd keeps {MOST_BYTES / 1e9:.1f} GB of windows at most"
        raise refusal(path, key, rule, f"{n_bytes / 1e9:.1f} GB", remedy)
