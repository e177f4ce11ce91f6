"""Preprocessing: its settings, transforms, scaling, static columns and weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from tuner.errors import refusal
from tuner.pipeline_steps import LARGEST, POINTWISE, Dialect, Step, differences_of, steps_of

if TYPE_CHECKING:
    from tuner.data.series_table import Series
    from tuner.tables.table import RawTable, Wide


class Preparation(Protocol):
    """Preprocessing options: `data` of an experiment, or the record in a model folder.

    The attributes are the keys of an experiment's `data`.
    """

    @property
    def dialect(self) -> Dialect: ...  # of the file, as declared
    @property
    def time(self) -> str | None: ...  # column of times
    @property
    def id(self) -> str | None: ...  # names the series or sequence of a row
    @property
    def wide(self) -> Wide | None: ...  # columns that are series
    @property
    def targets(self) -> list[str]: ...  # to predict; none where sequences have no label yet
    @property
    def features(self) -> list[str] | None: ...  # None for every numeric column
    @property
    def text(self) -> str | None: ...  # column of texts
    @property
    def level(self) -> str: ...  # character or word
    @property
    def tokens(self) -> str | None: ...  # column of tokens
    @property
    def vocabulary_size(self) -> int | None: ...  # tokens are numbers below it
    @property
    def max_length(self) -> int | None: ...  # of the steps of a sequence
    @property
    def keep(self) -> str: ...  # first or last steps of a longer one
    @property
    def missing(self) -> str: ...  # how missing values are filled
    @property
    def resample(self) -> str | None: ...  # a frequency
    @property
    def aggregate(self) -> str: ...  # of the rows of one step
    @property
    def calendar(self) -> Sequence[str]: ...  # features made of the time
    @property
    def lags(self) -> Mapping[str, Sequence[int]]: ...  # rows by which columns are shifted
    @property
    def known_future(self) -> Sequence[str] | None: ...  # None where not even the calendar is known
    @property
    def categories(self) -> Sequence[str]: ...  # the id may be one
    @property
    def weight(self) -> str | None: ...  # of the targets of a row
    @property
    def static(self) -> Sequence[str]: ...  # the same in all rows of a series
    @property
    def transform(self) -> Step | list[Step]: ...  # of the targets, before scaling


# Of the power of Box and Cox: beyond, next to nothing is left of the digits of values.
LAMBDAS = (-1.0, 2.0)
_LEAST = 3  # distinct values that a lambda is fitted to


@dataclass(frozen=True)
class Transform:
    """A pointwise function of the values, then differences of its values, in order.

    With f the function (the identity, the logarithm, or Box and Cox's power, 1964, eq. 1), L the
    lag operator and s_1, ..., s_k the rows that the differences reach back:
    z = (1 - L^s_k) ... (1 - L^s_1) f(y). `to_level` is f alone, which is monotone; `inverse` needs
    the s_1 + ... + s_k values of y before the first z that it is given.

    Arrays have the targets as their second axis, (rows, targets), or as their third one,
    (samples, horizon, targets), for quantiles with a last axis more.
    """

    pointwise: str = "none"  # none, log or box_cox
    differences: tuple[int, ...] = ()  # rows that each reaches back, in the order of their making
    lambdas: tuple[float, ...] = ()  # of box_cox: of each target, or () before they are fitted

    @classmethod
    def of(cls, value: Step | list[Step], lambdas: Sequence[float] = ()) -> Transform:
        """Return the transform of a value of `data.transform`; of box_cox with known lambdas."""
        pointwise = [s for s in steps_of(value) if isinstance(s, str) and s in POINTWISE]
        return cls("".join(pointwise) or "none", tuple(differences_of(value)), tuple(lambdas))

    @property
    def lost_rows(self) -> int:
        """How many of a series' first rows have no transformed value."""
        return sum(self.differences)

    @property
    def is_positive(self) -> bool:
        """Whether it needs values above 0."""
        return self.pointwise != "none"

    def fitted(self, rows: np.ndarray) -> Transform:
        """Return the transform fitted to the training rows, (rows, targets).

        Box-Cox's lambda is that of the largest likelihood, from -1 to 2: beyond, values lose their
        digits. It is 1, which keeps a column's shape, where there are too few distinct values.
        """
        if self.pointwise != "box_cox":
            return self
        return replace(self, lambdas=tuple(_fit_lambda(column) for column in rows.T))

    def forward(self, values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Transform series that stand one after another.

        Each row depends on itself and earlier rows of its series alone. The first `lost_rows` of a
        series are nan.

        Args:
            values: (rows, targets); above 0 where `is_positive`.
            bounds: (series, 2), the rows [start, end) of each series.
        """
        found = self.to_level(values)
        for rows in self.differences:
            found = _difference(found, bounds, rows)
        return found

    def inverse(self, outputs: np.ndarray, history: np.ndarray | None = None) -> np.ndarray:
        """Undo the transform over a horizon.

        Args:
            outputs: (samples, horizon, targets[, quantiles]), transformed.
            history: the true values of the `lost_rows` rows before each sample's first, in the
                data's units, (samples, lost_rows, targets); not needed without differences.

        Returns:
            The same shape, in the data's units; infinite where an output is absurd.
        """
        return self.from_level(self.without_differences(outputs, history))

    def without_differences(
        self, outputs: np.ndarray, history: np.ndarray | None = None
    ) -> np.ndarray:
        """Undo the differences alone, as `inverse` does; the result is in level space."""
        if not self.differences:
            return outputs
        assert history is not None
        assert history.shape[1] == self.lost_rows
        known = self.to_level(history)  # rows before the first step, of what was last differenced
        before: list[np.ndarray] = []
        for rows in self.differences:
            before.append(known[:, -rows:])
            known = known[:, rows:] - known[:, :-rows]
        found = outputs
        for rows, last in zip(self.differences[::-1], before[::-1], strict=True):
            found = _undo_difference(found, last, rows)
        return found

    def to_level(self, values: np.ndarray) -> np.ndarray:
        """Return the pointwise function of values: monotone, each by itself."""
        if self.pointwise == "log":
            return np.asarray(np.log(values))
        if self.pointwise == "none":
            return values
        of = self._lambdas(values)
        powers = np.where(of == 0, 1.0, of)
        logs = np.log(values)
        return np.asarray(np.where(of == 0, logs, np.expm1(powers * logs) / powers))

    def from_level(self, values: np.ndarray) -> np.ndarray:
        """Undo `to_level`; beyond its range, 0 or infinite, whichever is nearer."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self.pointwise == "log":
                return np.asarray(np.exp(values))
            if self.pointwise == "none":
                return values
            of = self._lambdas(values)
            powers = np.where(of == 0, 1.0, of)
            logs = np.log1p(np.maximum(powers * values, -1.0)) / powers
            return np.asarray(np.exp(np.where(of == 0, values, logs)))

    def _lambdas(self, values: np.ndarray) -> np.ndarray:
        axis = 1 if values.ndim == 2 else 2
        of = self.lambdas or (1.0,) * values.shape[axis]
        return np.reshape(of, (-1, *(1,) * (values.ndim - 1 - axis)))


NO_TRANSFORM = Transform()


def shifted(column: np.ndarray, bounds: np.ndarray, rows: int, missing: float) -> np.ndarray:
    """Return a column so many rows earlier in its series, (rows,), or `missing`."""
    found = np.full(len(column), missing)
    for start, end in bounds:
        found[start + rows : end] = column[start : max(start, end - rows)]
    return found


def _difference(values: np.ndarray, bounds: np.ndarray, rows: int) -> np.ndarray:
    """Return values less those so many rows before in their series, nan where there are none."""
    found = np.full(values.shape, np.nan)
    found[rows:] = values[rows:] - values[:-rows]
    for start, end in bounds:
        found[start : min(start + rows, end)] = np.nan
    return found


def _undo_difference(outputs: np.ndarray, last: np.ndarray, rows: int) -> np.ndarray:
    """Add differences up over the horizon, each phase of the season by itself.

    Args:
        outputs: (samples, horizon, targets[, quantiles]).
        last: (samples, rows, targets), what comes before.
        rows: that the difference reaches back.
    """
    found = np.empty(outputs.shape)
    trailing = (1,) * (outputs.ndim - 3)  # quantiles
    with np.errstate(over="ignore", invalid="ignore"):
        for phase in range(min(rows, outputs.shape[1])):
            begin = last[:, phase].reshape(len(last), 1, -1, *trailing)
            found[:, phase::rows] = begin + outputs[:, phase::rows].cumsum(axis=1)
    return found


def _fit_lambda(column: np.ndarray) -> float:
    from scipy.stats import boxcox  # half a second, and seldom needed

    # The likelihood's maximum does not depend on the unit; around 1 nothing overflows.
    logs = np.log(column)
    scaled = np.exp(logs - logs.mean())
    if len(np.unique(scaled)) < _LEAST:
        return 1.0
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a likelihood that is flat
        _, fitted = boxcox(scaled)
    return float(np.clip(fitted, *LAMBDAS)) if np.isfinite(fitted) else 1.0


@dataclass(frozen=True, eq=False)
class _Scaling:
    offset: np.ndarray  # (columns,), or (series, columns)
    scale: np.ndarray  # the same shape, never 0

    def sharing(self, other: Self, columns: Iterable[tuple[int, int]]) -> Self:
        """Return the scaling with that of `other` in some columns, (own column, other's column)."""
        offset, scale = self.offset.copy(), self.scale.copy()
        for column, of_other in columns:
            offset[..., column] = other.offset[..., of_other]
            scale[..., column] = other.scale[..., of_other]
        return replace(self, offset=offset, scale=scale)

    def record(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {"offset": self.offset.tolist(), "scale": self.scale.tolist()}


class Scaler(_Scaling):
    """A shift and a stretch of every column: offset and scale are (columns,)."""

    @classmethod
    def fit(cls, kind: str, rows: np.ndarray) -> Scaler:
        """Fit a scaler (standard, minmax or none) on training rows alone."""
        n_columns = rows.shape[1]
        offset, scale = np.zeros(n_columns), np.ones(n_columns)
        if kind == "standard":
            offset, scale = rows.mean(axis=0), rows.std(axis=0)
        elif kind == "minmax":
            offset, scale = rows.min(axis=0), np.ptp(rows, axis=0)
        return cls(offset, np.where(_constant(rows) | (scale == 0), 1.0, scale))

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return (values - offset) / scale as float32, clipped to finite numbers."""
        with np.errstate(over="ignore"):
            scaled = (values - self.offset) / self.scale
        return np.asarray(scaled.clip(-LARGEST, LARGEST).astype(np.float32))


class SeriesScaler(_Scaling):
    """A scaler of each series, its own or that of all: offset and scale are (series, columns)."""

    @classmethod
    def fit(cls, kind: str, values: np.ndarray, train: np.ndarray, of_all: Scaler) -> SeriesScaler:
        """Fit a scaler to the training rows of each series alone.

        A series without any has the scaler of all series. So has a column that does not change in a
        series' training rows, such as a store's size, which has no scale of its own.

        Args:
            kind: standard, minmax or none.
            values: (rows, columns), of series one after another.
            train: (series, 2), the rows [start, end) of each series that are trained on.
        """
        offset = np.tile(of_all.offset, (len(train), 1))
        scale = np.tile(of_all.scale, (len(train), 1))
        for i, (first, end) in enumerate(train):
            if first < end:
                rows = values[first:end]
                own, changes = Scaler.fit(kind, rows), ~_constant(rows)
                offset[i, changes], scale[i, changes] = own.offset[changes], own.scale[changes]
        return cls(offset, scale)

    def of(self, series: int) -> Scaler:
        """Return the scaler of one of the series."""
        return Scaler(self.offset[series], self.scale[series])

    def transform(self, values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Scale series, whose rows are [start, end) of bounds, each by its own, as float32."""
        parts = [self.of(i).transform(values[slice(*rows)]) for i, rows in enumerate(bounds)]
        return np.concatenate(parts)


def _constant(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.ptp(rows, axis=0) == 0)


def naive_errors(
    truth: np.ndarray, known: np.ndarray, train: np.ndarray, season: int
) -> np.ndarray:
    """Return the divisors of MASE, (series, targets); nan where there is no such error.

    The mean absolute error of the seasonal naive forecast in the training rows of the series
    (Hyndman and Koehler 2006, doi 10.1016/j.ijforecast.2006.03.001), without imputed values.

    Args:
        truth: (rows, targets).
        known: (rows, targets), bool.
        train: (series, 2), the rows [start, end) of each series that are trained on.
    """
    values = np.where(known, truth, np.nan)
    found = np.full((len(train), truth.shape[1]), np.nan)
    for i, (a, b) in enumerate(train):
        errors = np.abs(values[a + season : b] - values[a : max(a, b - season)])
        counts = (~np.isnan(errors)).sum(axis=0)
        sums = np.nansum(errors, axis=0)
        found[i] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return found


def repeated(series: Series, names: Sequence[str]) -> Series:
    """Return the series with the value of its first row in every row of static columns.

    A file may give it once, in the first row of a series. A later row could be a test row, so it
    gives no value.

    Raises:
        DataError: a series has another value later, or none in its first row.
    """
    if not names:
        return series
    frame = series.frame.copy()
    for name in names:
        values = frame[name].to_numpy()
        firsts = series.bounds[:, 0]
        if (lacking := np.isnan(values[firsts])).any():
            row = int(firsts[lacking.argmax()])
            rule = f"column {name!r} must hold a value in the first row of each series"
            got = f"none in {series.place(row)}"
            raise refusal(series.path, "data.static", rule, got, "fill it in")
        every = np.repeat(values[firsts], np.diff(series.bounds)[:, 0])
        if len(other := np.flatnonzero(~np.isnan(values) & (values != every))):
            row = int(other[0])
            first = int(firsts[series.number_of(row)])
            rule = f"column {name!r} must be the same in all rows of a series"
            got = f"{_shown(series, name, row)} in {series.place(row)} and "
            got += f"{_shown(series, name, first)} in its first row"
            change = "take it out of data.static"
            raise refusal(series.path, "data.static", rule, got, "correct it", change)
        frame[name] = every
    return replace(series, frame=frame)


def _shown(series: Series, name: str, row: int) -> str:
    value = float(series.frame[name].to_numpy()[row])
    if name in series.levels:
        return repr(series.levels[name][int(value)])
    return f"{value:.10g}"


def row_weights(table: RawTable, data: Preparation, targets: Sequence[np.ndarray]) -> np.ndarray:
    """Return the weight of each row, (rows,), 0 or more; 0 where it and the targets are missing.

    Args:
        targets: (rows,) each, nan where there is no value.

    Raises:
        DataError: a weight is missing beside a target, is negative, or no number.
    """
    name = data.weight
    assert name is not None
    values, bad = table.numbers("data.weight", name)
    rule = f"column {name!r} must hold a number from 0 to below 1e30 in every row"
    for row in bad[:1]:
        got = f"{table.frame[name].iloc[row]!r} in {table.place_of(int(row))}"
        raise refusal(table.path, "data.weight", rule, got, "write a number there")
    missing = np.isnan(values)
    wanted = np.zeros(len(values), bool)
    for target in targets:
        wanted |= ~np.isnan(target)
    for row in np.flatnonzero(missing & wanted)[:1]:
        got = f"none in {table.place_of(int(row))}"
        raise refusal(table.path, "data.weight", rule, got, "fill it in: 0 leaves the row out")
    for row in np.flatnonzero((values < 0) | (values >= LARGEST))[:1]:
        got = f"{values[row]:g} in {table.place_of(int(row))}"
        raise refusal(table.path, "data.weight", rule, got, "correct it: 0 leaves the row out")
    return np.where(missing, 0.0, values)
