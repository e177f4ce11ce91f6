"""The linear forecast: a ridge regression from a window to the horizon, for every series one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tuner.data.metrics import score
from tuner.data.reference import SeriesRef
from tuner.data.thinning import some_of
from tuner.experiment.metrics import METRICS

__all__ = [
    "MARGIN",
    "PENALTIES",
    "LinearForecast",
    "WindowChoice",
    "choose_window",
    "too_many_columns",
]

PENALTIES = tuple(10.0**exponent for exponent in range(1, -9, -1))
"""That are tried, as shares of the mean sum of squares of a column; the strongest first."""

MARGIN = 0.02
"""Share of the score by which windows as they are must be better than without the last value."""

_MOST_COLUMNS = 2_500  # numbers in a window: normal equations of so many take seconds
_MOST_WORK = 3e10  # multiplications for the normal equations; beyond, some windows are taken
_MOST_SCORED = 200_000  # numbers that a choice is scored on
_CHUNK = 2**22  # numbers of windows that are laid out at a time


@dataclass(frozen=True)
class WindowChoice:
    """What the validation rows have decided: nothing that is fitted."""

    window: int  # rows
    last_off: bool  # the target's last value is taken off the window, and added to the forecast
    penalty: float  # of `PENALTIES`


class LinearForecast:
    """A linear map from the window to all steps and targets, in the units that models see.

    It reads the columns that a model reads, those that are known ahead also in the rows to come,
    and is fitted on the windows that a model is trained on, each weighing the mean of its targets'
    weights; of very many windows on some. Its
    coefficients are those of scikit-learn's `Ridge` (an intercept, which is not penalized, and one
    penalty for all columns).
    """

    def __init__(self, ref: SeriesRef, choice: WindowChoice) -> None:
        """Fit on the training part of `ref`."""
        moments = _Moments(ref, choice.window)
        self._ref, self._fitted = ref, moments.changed(choice.last_off).solve(choice.penalty)

    def predict(self, samples: np.ndarray, otherwise: np.ndarray | None = None) -> np.ndarray:
        """Return the forecasts in the data's units, (samples, horizon, targets).

        Of all of them: nothing is needed otherwise.
        """
        return self._fitted.predict(self._ref, samples)


def too_many_columns(ref: SeriesRef) -> str | None:
    """Say why there is no linear forecast; None where there is one."""
    n_columns = _n_columns(ref, ref.window)
    if n_columns <= _MOST_COLUMNS:
        return None
    return (
        f"its window of {ref.window:,} rows has {n_columns:,} numbers, and more than "
        f"{_MOST_COLUMNS:,} take too long"
    )


def choose_window(metric: str, ref: SeriesRef) -> WindowChoice:
    """Choose window, penalty and whether the last value is taken off, by the validation rows.

    Windows are the experiment's and the longest that is searched. The last value is taken off
    unless windows as they are score better by more than `MARGIN`: what does without the level
    holds where the level moves on.

    Args:
        metric: decides; the first of equals is taken.
        ref: of the search, which evaluates the validation part.
    """
    windows = sorted({ref.window, max(ref.window, ref.longest_window)})
    windows = [w for w in windows if _n_columns(ref, w) <= _MOST_COLUMNS] or windows[:1]
    samples = ref.evaluate_samples()
    each = ref.shape.horizon * ref.shape.targets
    samples = samples[some_of(len(samples), _MOST_SCORED // each)]
    truth, sign = ref.truth_of(samples), METRICS[metric].sign
    n_quantiles = len(ref.shape.quantiles)
    best, best_cost = WindowChoice(windows[0], False, PENALTIES[0]), np.inf
    for window in windows:
        moments = _Moments(ref, window)
        for last_off in (False, True) if moments.levels else (False,):
            changed = moments.changed(last_off)
            for penalty in PENALTIES:
                predicted = changed.solve(penalty).predict(ref, samples)
                if n_quantiles:
                    predicted = np.repeat(predicted[..., None], n_quantiles, axis=-1)
                cost = sign * score(metric, truth, predicted, ref, samples)
                if moments.levels and not last_off:
                    cost += MARGIN * abs(cost)
                if cost < best_cost:  # never where it is nan
                    best, best_cost = WindowChoice(window, last_off, penalty), cost
    return best


class _Moments:
    """Means and centred products of the training windows and of what came after them."""

    def __init__(self, ref: SeriesRef, window: int) -> None:
        self.window, self.levels = window, _own_columns(ref)
        starts = ref.with_window(window).fitted_samples()
        n_columns, n_outputs = _n_columns(ref, window), ref.shape.horizon * ref.shape.targets
        most = max(int(_MOST_WORK / n_columns**2), min(len(starts), 2 * n_columns), 1)
        starts = starts[some_of(len(starts), most)]
        # Sums of squares of numbers far from 0 lose digits: what windows share is taken off first.
        shift_x = windows_of(ref, starts[:1], window)[0]
        shift_y = _after(ref, starts[:1])[0]
        sum_x, sum_y, total = np.zeros(n_columns), np.zeros(n_outputs), 0.0
        xx, xy = np.zeros((n_columns, n_columns)), np.zeros((n_columns, n_outputs))
        for chunk in _chunks(starts, n_columns + n_outputs):
            x = windows_of(ref, chunk, window) - shift_x
            y = _after(ref, chunk) - shift_y
            weighted = x
            if (weights := ref.weights_of(chunk)) is not None:
                of_windows = weights.mean(axis=1)
                weighted, y_sum = x * of_windows[:, None], of_windows @ y
            sum_x += weighted.sum(axis=0)
            sum_y += y.sum(axis=0) if weights is None else y_sum
            xx += weighted.T @ x
            xy += weighted.T @ y
            total += len(chunk) if weights is None else of_windows.sum()
        xx -= np.outer(sum_x, sum_x) / total
        xy -= np.outer(sum_x, sum_y) / total
        self._plain = _Normal(window, {}, xx, xy, sum_x / total + shift_x, sum_y / total + shift_y)
        self._n_targets = ref.shape.targets

    def changed(self, last_off: bool) -> _Normal:
        """Return the normal equations, of windows less the target's last value or as they are.

        That is linear in the windows: the products follow without going through them again.
        """
        if not last_off or not self.levels:
            return self._plain
        plain, window = self._plain, self.window
        off, lasts = _places(self.levels, window)
        last_of = np.full(plain.xy.shape[1], -1)  # of each output, the place of its last value
        for target, column in self.levels.items():
            last_of[target :: self._n_targets] = column * window + window - 1
        known = last_of >= 0
        xx, xy = plain.xx.copy(), plain.xy.copy()
        mean_x, mean_y = plain.mean_x.copy(), plain.mean_y.copy()
        xy[:, known] -= plain.xx[:, last_of[known]]
        mean_y[known] -= plain.mean_x[last_of[known]]
        xy[off] -= xy[lasts]
        xx[:, off] -= plain.xx[:, lasts]
        xx[off] -= xx[lasts]
        mean_x[off] -= plain.mean_x[lasts]
        return _Normal(window, self.levels, xx, xy, mean_x, mean_y)


@dataclass(frozen=True, eq=False)
class _Normal:
    """Normal equations of a regression on windows."""

    window: int
    levels: dict[int, int]  # see `_own_columns`: of the targets whose last value is taken off
    xx: np.ndarray  # (columns, columns), centred
    xy: np.ndarray  # (columns, outputs), centred
    mean_x: np.ndarray
    mean_y: np.ndarray

    def solve(self, penalty: float) -> _Fitted:
        """Solve them with a penalty that is a share of a column's mean sum of squares."""
        from scipy.linalg import LinAlgError, cho_factor, cho_solve

        size = float(np.trace(self.xx)) / len(self.xx)
        coefficients = np.zeros_like(self.xy)  # where nothing varies, the mean is forecast
        if size > 0 and np.isfinite(size):
            penalized = self.xx.copy()
            penalized[np.diag_indices_from(penalized)] += penalty * size
            with contextlib.suppress(LinAlgError):
                factor = cho_factor(penalized, overwrite_a=True, check_finite=False)
                coefficients = cho_solve(factor, self.xy, check_finite=False)
        intercept = self.mean_y - self.mean_x @ coefficients
        return _Fitted(self.window, self.levels, coefficients, intercept)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Coefficients, and what is taken off a window before they are applied."""

    window: int
    levels: dict[int, int]
    coefficients: np.ndarray  # (columns, outputs)
    intercept: np.ndarray  # (outputs,)

    def predict(self, ref: SeriesRef, samples: np.ndarray) -> np.ndarray:
        """Return the forecasts in the data's units, (samples, horizon, targets)."""
        horizon, n_targets = ref.shape.horizon, ref.shape.targets
        outputs = np.empty((len(samples), horizon, n_targets))
        done = 0
        for chunk in _chunks(samples, len(self.coefficients) + horizon * n_targets):
            x = windows_of(ref, chunk, self.window)
            lasts = {k: x[:, (c + 1) * self.window - 1].copy() for k, c in self.levels.items()}
            for target, column in self.levels.items():
                place = column * self.window
                x[:, place : place + self.window] -= lasts[target][:, None]
            found = (x @ self.coefficients + self.intercept).reshape(-1, horizon, n_targets)
            for target, last in lasts.items():
                found[:, :, target] += last[:, None]
            outputs[done : done + len(chunk)] = found
            done += len(chunk)
        return ref.to_units(outputs, samples)


def windows_of(ref: SeriesRef, samples: np.ndarray, window: int) -> np.ndarray:
    """Return what models read, (samples, numbers), float64: a column after another.

    First the windows, then the rows to come of the columns that are known there. The numbers of
    categories, which have no order, are left out: 0.
    """
    inputs, shape = ref.load("inputs"), ref.shape
    views = np.lib.stride_tricks.sliding_window_view(inputs, window, axis=0)
    found = views[samples - window]  # (samples, features, window)
    of_categories = [column for column, _ in shape.categories]
    found[:, of_categories] = 0
    found = found.reshape(len(samples), -1)
    if shape.ahead:
        rows = samples[:, None] + np.arange(shape.ahead)
        coming = inputs[rows]
        coming[:, :, of_categories] = 0
        coming = coming[:, :, list(shape.known_columns)].swapaxes(1, 2)
        found = np.concatenate((found, coming.reshape(len(samples), -1)), axis=1)
    return np.asarray(found, np.float64)


def _n_columns(ref: SeriesRef, window: int) -> int:
    """Return how many numbers a forecast is made from."""
    shape = ref.shape
    return window * shape.features + shape.ahead * len(shape.known_columns)


def _after(ref: SeriesRef, samples: np.ndarray) -> np.ndarray:
    """Return what comes after the windows, as models see it: (samples, horizon * targets)."""
    rows = samples[:, None] + np.arange(ref.shape.horizon)
    return np.asarray(ref.load("targets")[rows].reshape(len(samples), -1), np.float64)


def _own_columns(ref: SeriesRef) -> dict[int, int]:
    """Return, by target, the input column that holds it; without those that no column holds."""
    return {target: c for target, c in enumerate(ref.shape.target_columns) if c >= 0}


def _places(levels: dict[int, int], window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places in a window that a last value is taken off, and those of that value."""
    columns = np.array(list(levels.values()))
    off = (columns[:, None] * window + np.arange(window)).ravel()
    return off, np.repeat(columns * window + window - 1, window)


def _chunks(samples: np.ndarray, width: int) -> Iterator[np.ndarray]:
    size = max(1, _CHUNK // width)
    for first in range(0, len(samples), size):
        yield samples[first : first + size]
