"""The columns that a model sees: those of the file, and those made of the time and of lags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuner.data.filling import fill
from tuner.data.preparation import Preparation
from tuner.data.reading import Series
from tuner.data.tables import refusal
from tuner.data.transforms import Transform
from tuner.transform_steps import differences_of

__all__ = ["Table", "check_features", "ends_with_targets", "make_table"]

_SECONDS = 86_400


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of series with nothing missing, transformed and not scaled yet."""

    names: tuple[str, ...]  # of the input columns
    inputs: np.ndarray  # (rows, features)
    targets: np.ndarray  # (rows, targets), transformed
    truth: np.ndarray  # (rows, targets), in the data's units
    known: np.ndarray  # (rows, targets), bool: not filled in
    first: np.ndarray  # (series,): the first row of each series, counted in it, that can be read
    target_columns: tuple[int, ...]  # the input column of each target; -1 for none
    lag_columns: tuple[tuple[int, int], ...]  # (input column, target): its earlier rows
    known_columns: tuple[int, ...]  # the input columns whose values of rows to come are known
    category_columns: tuple[int, ...]  # the input columns of categories, which are 0 in `inputs`
    codes: np.ndarray  # (rows, columns of categories), in the order of these; nan for none


def make_table(series: Series, data: Preparation, transform: Transform | None = None) -> Table:
    """Fill, transform, and make the features. Every row follows from itself and earlier ones.

    Args:
        series: with even rows.
        data: how.
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
            column = _shift(values[:, columns.index(name)], series.bounds, lag)
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
    """Return all columns with nothing missing, (rows, columns); between categories lies no line."""
    values = series.frame.to_numpy()
    filled = fill(values, series.bounds, data.missing)
    of_categories = [at for at, name in enumerate(series.frame) if name in series.levels]
    if data.missing != "refuse" and of_categories:
        filled = filled.copy()
        filled[:, of_categories] = fill(values[:, of_categories], series.bounds, "ffill")
    return filled


def _known_ahead(data: Preparation) -> list[str]:
    """Return the names of the inputs that are known in rows to come.

    Beside the columns that are declared so, what the time says, and earlier rows of such columns.
    """
    if data.known_future is None:
        return []
    made = [f"{kind}_{wave}" for kind in data.calendar for wave in ("sin", "cos")]
    lagged = [f"{n}_lag_{lag}" for n in data.known_future for lag in data.lags.get(n, [])]
    return [*data.known_future, *made, *lagged]


def _check_positive(series: Series, truth: np.ndarray, name: str) -> None:
    """Refuse targets, (rows, targets), that are not above 0."""
    if not (truth <= 0).any():
        return
    row, at = np.argwhere(truth <= 0)[0]
    column = series.targets[at]
    was_filled = bool(np.isnan(series.frame[column].to_numpy()[row]))
    where = f"{'filled into' if was_filled else 'in'} column {column!r}"
    remedy = "write data.missing: ffill, or transform: none"
    text = (
        f"{name} needs values above 0, got {truth[row, at]} {where}, "
        f"{series.place(int(row))}; {remedy if was_filled else 'write transform: none'}"
    )
    raise refusal(series.path, "data.transform", text)


def ends_with_targets(known: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return the row after the last one of each series whose targets were in the file, (series,).

    Args:
        known: (rows, targets), as `Table` has it.
        bounds: (series, 2), the rows [start, end) of each.
    """
    whole = np.asarray(known.all(axis=1))
    found = []
    for start, end in bounds:
        rows = np.flatnonzero(whole[start:end])
        found.append(start + rows[-1] + 1 if len(rows) else start)
    return np.array(found)


def check_features(series: Series, data: Preparation) -> None:
    """Refuse features that are there twice, or that tell a model nothing.

    Raises:
        DataError: naming key, column and remedy.
    """
    for name in series.frame:
        if series.frame[name].isna().all():
            text = f"column {str(name)!r} holds no value; leave it out"
            raise refusal(series.path, series.key_of(str(name)), text)
    longest = int(np.diff(series.bounds).max())
    reaches = sum(differences_of(data.transform))
    if reaches >= longest:
        text = f"no series reaches back so far, got {reaches} rows of differences and at most "
        raise refusal(series.path, "data.transform", f"{text}{longest} rows; write a shorter one")
    for name, lags in data.lags.items():
        if max(lags) >= longest:
            text = f"no series reaches back so far, got {max(lags)} for {name!r} and at most "
            raise refusal(series.path, "data.lags", f"{text}{longest} rows; write a shorter lag")
    made = [("calendar", f"{kind}_{wave}") for kind in data.calendar for wave in ("sin", "cos")]
    made += [("lags", f"{name}_lag_{lag}") for name, lags in data.lags.items() for lag in lags]
    names = [*series.features, *series.levels]
    for key, name in made:
        if name in names:
            text = f"makes a column {name!r}, and there is one already; rename that one or remove"
            raise refusal(series.path, f"data.{key}", f"{text} it here")
        names.append(name)
    for kind in data.calendar:
        if len(set(_place(series, kind))) < 2:
            often = f" at frequency {series.frequency}" if series.frequency else ""
            text = f"the {kind} is the same in every row{often}, which tells a model nothing"
            raise refusal(series.path, "data.calendar", f"{text}, got {kind!r}; remove it")


def _place(series: Series, kind: str) -> np.ndarray:
    """Return where each row stands in its day, week or year, from 0 to 1, (rows,).

    Times are as they were read: in UTC, where their offset from it changes.
    """
    times = series.times
    assert isinstance(times, pd.DatetimeIndex)
    if kind == "hour":
        place = (times.hour * 3600 + times.minute * 60 + times.second) / _SECONDS
    elif kind == "weekday":
        place = times.day_of_week / 7
    else:
        place = (times.month - 1) / 12
    return np.asarray(place, np.float64)


def _shift(column: np.ndarray, bounds: np.ndarray, lag: int) -> np.ndarray:
    """Return the column `lag` rows before, (rows,); nan where a series does not reach back."""
    shifted = np.full(len(column), np.nan)
    for start, end in bounds:
        shifted[start + lag : end] = column[start : max(start, end - lag)]
    return shifted
