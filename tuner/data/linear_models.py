"""Linear baselines: ridge regression of windows, series and sequences."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np

from tuner.data.metrics import score
from tuner.data.reference import DataRef, SeriesRef, some_of
from tuner.metrics import METRICS

# That are tried, as shares of the mean sum of squares of a column; the strongest first.
PENALTIES = tuple(10.0**exponent for exponent in range(1, -9, -1))
# Share of the score by which windows as they are must be better than without the last value.
MARGIN = 0.02
_MOST_COLUMNS = 2_500  # numbers in a window: normal equations of so many take seconds
_MOST_WORK = 3e10  # multiplications for the normal equations; beyond, some windows are taken
_MOST_SCORED = 200_000  # numbers that a choice is scored on
_CHUNK = 2**22  # numbers of windows that are laid out at a time


@dataclass(frozen=True)
class WindowChoice:
    """What the validation rows decide; nothing of it is fitted."""

    window: int  # rows
    last_off: bool  # the target's last value is taken off the window, and added to the forecast
    penalty: float  # of `PENALTIES`


def choose_window(metric: str, ref: SeriesRef) -> WindowChoice:
    """Choose window, penalty and whether the last value is taken off, by the validation rows.

    Windows are the experiment's and the longest that is searched. The last value is taken off
    unless windows as they are score better by more than `MARGIN`: without the level, a model holds
    where the level moves. The first of equals is taken.
    """
    windows = sorted({ref.window, max(ref.window, ref.longest_window)})
    windows = [w for w in windows if _n_columns(ref, w) <= _MOST_COLUMNS] or windows[:1]
    samples = ref.evaluate_samples()
    each = ref.shape.horizon * ref.shape.targets
    samples = samples[some_of(len(samples), _MOST_SCORED // each)]
    best, best_cost = WindowChoice(windows[0], False, PENALTIES[0]), np.inf
    for window in windows:
        moments = _Moments(ref, window)
        for last_off in (False, True) if moments.levels else (False,):
            changed = moments.changed(last_off)
            for penalty in PENALTIES:
                cost = cost_of(metric, ref, samples, changed.solve(penalty).predict(samples))
                if moments.levels and not last_off:
                    cost += MARGIN * abs(cost)
                if cost < best_cost:
                    best, best_cost = WindowChoice(window, last_off, penalty), cost
    return best


class _Moments:
    """Means and centred products of the training windows and of what came after them."""

    def __init__(self, ref: SeriesRef, window: int) -> None:
        self.levels = _own_columns(ref)
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
            weights = ref.weights_of(chunk)
            each = np.ones(len(chunk)) if weights is None else weights.mean(axis=1)
            weighted = x if weights is None else x * each[:, None]
            sum_x += weighted.sum(axis=0)
            sum_y += y.sum(axis=0) if weights is None else each @ y
            xx += weighted.T @ x
            xy += weighted.T @ y
            total += each.sum()
        xx -= np.outer(sum_x, sum_x) / total
        xy -= np.outer(sum_x, sum_y) / total
        means = sum_x / total + shift_x, sum_y / total + shift_y
        self._plain = _Normal(ref, window, {}, xx, xy, *means)

    def changed(self, last_off: bool) -> _Normal:
        """Return the normal equations, of windows less the target's last value or as they are.

        The change is linear in the windows, so it follows from the products.
        """
        if not last_off or not self.levels:
            return self._plain
        plain, window, n_targets = self._plain, self._plain.window, self._plain.ref.shape.targets
        columns = np.array(list(self.levels.values())) * window
        off = (columns[:, None] + np.arange(window)).ravel()
        lasts = np.repeat(columns + window - 1, window)
        last_of = np.full(plain.xy.shape[1], -1)  # of each output, the place of its last value
        for target, column in self.levels.items():
            last_of[target::n_targets] = column * window + window - 1
        known = last_of >= 0
        xx, xy = plain.xx.copy(), plain.xy.copy()
        mean_x, mean_y = plain.mean_x.copy(), plain.mean_y.copy()
        xy[:, known] -= plain.xx[:, last_of[known]]
        mean_y[known] -= plain.mean_x[last_of[known]]
        xy[off] -= xy[lasts]
        xx[:, off] -= plain.xx[:, lasts]
        xx[off] -= xx[lasts]
        mean_x[off] -= plain.mean_x[lasts]
        return _Normal(plain.ref, window, self.levels, xx, xy, mean_x, mean_y)


@dataclass(frozen=True, eq=False)
class _Normal:
    """Normal equations of a regression on windows."""

    ref: SeriesRef
    window: int
    levels: dict[int, int]  # see `_own_columns`: of the targets whose last value is taken off
    xx: np.ndarray  # (columns, columns), centred
    xy: np.ndarray  # (columns, outputs), centred
    mean_x: np.ndarray
    mean_y: np.ndarray

    def solve(self, penalty: float) -> LinearForecast:
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
        return LinearForecast(self.ref, self.window, self.levels, coefficients, intercept)


@dataclass(frozen=True, eq=False)
class LinearForecast:
    """A linear map from the window to all steps and targets, in the units that models see.

    It reads the columns that a model reads, those that are known ahead also in the rows to come,
    and is fitted on the windows that a model is trained on, each with the mean weight of its
    targets; on a sample of very many. Its coefficients are those of scikit-learn's `Ridge` (an
    intercept, which is not penalized, and one penalty for all columns).
    """

    ref: SeriesRef
    window: int
    levels: dict[int, int]  # see `_own_columns`: of the targets whose last value is taken off
    coefficients: np.ndarray  # (columns, outputs)
    intercept: np.ndarray  # (outputs,)

    @classmethod
    def fit(cls, ref: SeriesRef, choice: WindowChoice) -> LinearForecast:
        """Fit on the training part of `ref`."""
        return _Moments(ref, choice.window).changed(choice.last_off).solve(choice.penalty)

    def predict(self, samples: np.ndarray, otherwise: np.ndarray | None = None) -> np.ndarray:
        """Return the forecasts in the data's units, (samples, horizon, targets)."""
        horizon, n_targets = self.ref.shape.horizon, self.ref.shape.targets
        outputs = np.empty((len(samples), horizon, n_targets))
        done = 0
        for chunk in _chunks(samples, len(self.coefficients) + horizon * n_targets):
            x = windows_of(self.ref, chunk, self.window)
            lasts = {k: x[:, (c + 1) * self.window - 1].copy() for k, c in self.levels.items()}
            for target, column in self.levels.items():
                x[:, column * self.window :][:, : self.window] -= lasts[target][:, None]
            found = (x @ self.coefficients + self.intercept).reshape(-1, horizon, n_targets)
            for target, last in lasts.items():
                found[:, :, target] += last[:, None]
            outputs[done : done + len(chunk)] = found
            done += len(chunk)
        return self.ref.to_units(outputs, samples)


def windows_of(ref: SeriesRef, samples: np.ndarray, window: int) -> np.ndarray:
    """Return the inputs of models, (samples, numbers), float64, column by column.

    First the windows, then the rows to come of the columns that are known there. Categories, whose
    numbers have no order, are 0.
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
    shape = ref.shape
    return window * shape.features + shape.ahead * len(shape.known_columns)


def _after(ref: SeriesRef, samples: np.ndarray) -> np.ndarray:
    rows = samples[:, None] + np.arange(ref.shape.horizon)
    return np.asarray(ref.load("targets")[rows].reshape(len(samples), -1), np.float64)


def _own_columns(ref: SeriesRef) -> dict[int, int]:
    return {target: c for target, c in enumerate(ref.shape.target_columns) if c >= 0}


def _chunks(samples: np.ndarray, width: int) -> Iterator[np.ndarray]:
    size = max(1, _CHUNK // width)
    for first in range(0, len(samples), size):
        yield samples[first : first + size]


Reading = Literal["summaries", "values", "counts", "steps"]
# That are tried, the strongest first.
SEQUENCE_PENALTIES = {
    "values": (1e4, 1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4),  # of scikit-learn's Ridge
    "classes": (1e3, 1e2, 1e1, 1.0, 1e-1),  # one over C, of its LogisticRegression
}
MOST_VALUES = 2_500  # numbers of a sequence that a linear model reads, where they are not counts
_MOST_TOKENS = 200_000  # of a vocabulary
_MOST_SEQUENCE_WORK = 1e7  # numbers times classes; beyond, some of the samples are fitted on
_MOST_ITERATIONS = 200
_FOLDS = 5
_MOST_WINDOWS = 10_000  # that are laid out at once


@dataclass(frozen=True)
class SequenceChoice:
    """What the validation sequences decide; nothing of it is fitted."""

    reads: Reading
    penalty: float
    length: int | None = None  # of all sequences, if their values are read


class LinearOfSequences:
    """A ridge regression of values, or a logistic one of classes, on a `Reading` of sequences.

    Where every step has its own target, each is read by itself. For the class of a coming row, a
    window of a series is read as a sequence.
    """

    def __init__(self, ref: DataRef, choice: SequenceChoice) -> None:
        """Fit on the training part of `ref`."""
        self._ref, self._choice = ref, choice
        trained = ref.train_samples()
        (self._fitted,) = _fit(ref, choice.reads, [choice.penalty], trained[self._fits(trained)])

    def predict(self, samples: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """Return values or the probabilities of classes, as `Baselines.predict` does.

        Args:
            samples: (samples,).
            otherwise: the predictions, of the same shape, of sequences that cannot be read: where
                all values are read, those of another length.
        """
        fits = self._fits(samples)
        if isinstance(self._ref, SeriesRef) and len(samples) > _MOST_WINDOWS:
            starts = range(0, len(samples), _MOST_WINDOWS)
            chunks = [samples[start : start + _MOST_WINDOWS] for start in starts]
            return np.concatenate([self.predict(chunk, otherwise) for chunk in chunks])
        if fits.all():
            return self._fitted.predict(self._ref, _read(self._ref, samples, self._choice.reads))
        found = np.array(otherwise)
        if fits.any():
            found[fits] = self.predict(samples[fits], otherwise[fits])
        return found

    def _fits(self, samples: np.ndarray) -> np.ndarray:
        if self._choice.reads != "values" or isinstance(self._ref, SeriesRef):
            return np.ones(len(samples), bool)
        return np.asarray(_lengths(self._ref)[samples] == self._choice.length)


def why_no_linear(ref: DataRef) -> str | None:
    """Return why there is no linear model; None where there is one."""
    if ref.shape.task == "translate":
        return "a linear model cannot predict texts"
    features, vocabulary = ref.shape.features, ref.shape.vocabulary
    if of_values(ref):
        if (n_columns := _n_columns(ref, ref.window)) <= _MOST_COLUMNS:
            return None
        text = f"its window of {ref.window:,} rows has {n_columns:,} numbers, and more than "
        return f"{text}{_MOST_COLUMNS:,} take too long"
    if vocabulary > _MOST_TOKENS:
        return f"{vocabulary:,} tokens are more than {_MOST_TOKENS:,}"
    if isinstance(ref, SeriesRef):
        if (numbers := ref.window * features) > MOST_VALUES:
            return f"{numbers:,} numbers in a window take too long"
    elif features * (1 if ref.shape.each_step else len(_SUMMARIES)) > MOST_VALUES:
        return f"{features:,} features take too long"
    if ref.shape.classes and len(np.unique(ref.truth_of(ref.train_samples()))) < 2:
        return "the training part has one class alone"
    return None


def choose_linear(metric: str, ref: DataRef) -> WindowChoice | SequenceChoice:
    """Choose what the linear model reads and its penalty, by the validation part of `ref`."""
    return choose_window(metric, ref) if of_values(ref) else choose_reading(metric, ref)


def fit_linear(
    ref: DataRef, choice: WindowChoice | SequenceChoice
) -> LinearForecast | LinearOfSequences:
    """Fit the linear model that was chosen on the training part of `ref`."""
    if isinstance(choice, WindowChoice):
        assert isinstance(ref, SeriesRef)
        return LinearForecast.fit(ref, choice)
    return LinearOfSequences(ref, choice)


def of_values(ref: DataRef) -> TypeGuard[SeriesRef]:
    """Return whether values of series are forecast, not classes."""
    return isinstance(ref, SeriesRef) and not ref.shape.classes


def of_quantiles(ref: DataRef, predicted: np.ndarray) -> np.ndarray:
    """Return a prediction once for every quantile, on a last axis, where quantiles are forecast."""
    n = len(ref.shape.quantiles)
    return np.repeat(predicted[..., None], n, axis=-1) if n else predicted


def cost_of(metric: str, ref: DataRef, samples: np.ndarray, predicted: np.ndarray) -> float:
    """Return the score of a prediction, lower is better; infinite where it is nan."""
    truth = ref.truth_of(samples)
    value = score(metric, truth, of_quantiles(ref, predicted), ref, samples)
    cost = METRICS[metric].sign * value
    return math.inf if math.isnan(cost) else cost


def choose_reading(metric: str, ref: DataRef) -> SequenceChoice:
    """Choose the reading and the penalty, by the validation sequences.

    Of equals the one with the smaller loss (cross entropy, or RMSE) is taken.
    """
    samples, trained = ref.evaluate_samples(), ref.train_samples()
    length = ref.window if isinstance(ref, SeriesRef) else int(_lengths(ref)[0])
    kind = "classes" if ref.shape.classes else "values"
    loss = "cross_entropy" if ref.shape.classes else "rmse"
    best, best_cost = None, tuple[float, ...]()
    for reads in _readings(ref):
        x = _read(ref, samples, reads)
        models = _fit(ref, reads, SEQUENCE_PENALTIES[kind], trained)
        for penalty, fitted in zip(SEQUENCE_PENALTIES[kind], models, strict=True):
            predicted = fitted.predict(ref, x)
            cost = tuple(cost_of(name, ref, samples, predicted) for name in (metric, loss))
            if best is None or cost < best_cost:
                of = length if reads == "values" else None
                best, best_cost = SequenceChoice(reads, penalty, of), cost
    assert best is not None
    return best


def values_say_more(ref: DataRef) -> bool:
    """Return whether a linear model is better on all values than on summaries of them.

    Judged on five folds of the training sequences, stratified by class, by cross entropy or RMSE,
    each reading with its best penalty. Never where sequences differ in length, or a fold lacks
    sequences or classes.
    """
    if "values" not in _readings(ref):
        return False
    trained = ref.train_samples()
    kind, loss = ("classes", "cross_entropy") if ref.shape.classes else ("values", "rmse")
    of_class = ref.truth_of(trained) if ref.shape.classes else np.zeros(len(trained))
    fold_of = deal_folds(of_class, _FOLDS)
    costs = {}
    for reads in _readings(ref):
        of_penalties = np.zeros(len(SEQUENCE_PENALTIES[kind]))
        for fold in range(_FOLDS):
            held = fold_of == fold
            rest = trained[~held]
            if not held.any() or (ref.shape.classes and len(np.unique(ref.truth_of(rest))) < 2):
                return False
            x, truth = _read(ref, trained[held], reads), ref.truth_of(trained[held])
            of_penalties += [
                score(loss, truth, model.predict(ref, x), ref, trained[held])
                for model in _fit(ref, reads, SEQUENCE_PENALTIES[kind], rest)
            ]
        costs[reads] = of_penalties.min()
    return bool(costs["values"] < costs["summaries"])


def deal_folds(classes: np.ndarray, n_folds: int) -> np.ndarray:
    """Return the fold of each row, (rows,), from 0 to `n_folds` - 1, dealt out class by class.

    Args:
        classes: of each row, (rows,).
    """
    folds = np.empty(len(classes), np.int64)
    folds[np.argsort(classes, kind="stable")] = np.arange(len(classes)) % n_folds
    return folds


def _readings(ref: DataRef) -> list[Reading]:
    if isinstance(ref, SeriesRef):
        return ["values"]
    if ref.shape.each_step:
        return ["steps"]
    if ref.shape.vocabulary:
        return ["counts"]
    lengths = _lengths(ref)  # of the search: sequences of the test part may have others
    one = lengths.min() == lengths.max()
    if one and lengths[0] > 1 and lengths[0] * ref.shape.features <= MOST_VALUES:
        return ["summaries", "values"]
    return ["summaries"]


def _lengths(ref: DataRef) -> np.ndarray:
    return np.asarray(np.diff(ref.load("bounds"))[:, 0])


@dataclass(frozen=True, eq=False)
class _FittedSequences:
    """A model of scikit-learn, and the scaling of its inputs."""

    model: Any
    offset: np.ndarray | None  # of dense columns
    scale: np.ndarray | None

    def predict(self, ref: DataRef, x: Any) -> np.ndarray:
        """Return values (n, 1, targets) in the data's units, or probabilities (n, classes)."""
        x = _scaled(x, self.offset, self.scale)
        if not ref.shape.classes:
            return np.asarray(self.model.predict(x)).reshape(x.shape[0], 1, -1)
        found = np.zeros((x.shape[0], ref.shape.classes))
        found[:, self.model.classes_] = self.model.predict_proba(x)  # others were never seen
        return found


def _fit(
    ref: DataRef, reads: Reading, penalties: Any, samples: np.ndarray
) -> Iterator[_FittedSequences]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    if isinstance(ref, SeriesRef):  # windows overlap: they take more memory than the series
        numbers = ref.window * ref.shape.features * ref.shape.classes
        samples = samples[
            some_of(len(samples), int(_MOST_SEQUENCE_WORK / numbers), ref.truth_of(samples))
        ]
    x, y, weights = _read(ref, samples, reads), ref.truth_of(samples), ref.weights_of(samples)
    dense = isinstance(x, np.ndarray)
    numbers = x.size if dense else x.nnz
    most = int(_MOST_SEQUENCE_WORK * len(y) / max(1, numbers * max(1, ref.shape.classes)))
    if len(few := some_of(len(y), most, y if ref.shape.classes else None)) < len(y):
        x, y, weights = x[few], y[few], None if weights is None else weights[few]
    offset = scale = None
    if dense:
        offset, scale = x.mean(axis=0), x.std(axis=0)
        scale = np.where(np.ptp(x, axis=0) == 0, 1.0, np.where(scale > 0, scale, 1.0))
    x = _scaled(x, offset, scale)
    for penalty in penalties:
        if ref.shape.classes:
            model = LogisticRegression(C=1 / penalty, max_iter=_MOST_ITERATIONS)
        else:
            model = Ridge(alpha=penalty)
            y = y.reshape(len(y), -1)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y, sample_weight=None if weights is None else weights / weights.mean())
        yield _FittedSequences(model, offset, scale)


def _scaled(x: Any, offset: np.ndarray | None, scale: np.ndarray | None) -> Any:
    return x if offset is None else (x - offset) / scale


def _read(ref: DataRef, samples: np.ndarray, reads: Reading) -> Any:
    """Return a reading of samples, (samples or steps, columns), dense or sparse."""
    if isinstance(ref, SeriesRef):
        rows = samples[:, None] + np.arange(-ref.window, 0)  # (samples, window)
        return np.asarray(ref.load("inputs")[rows], np.float64).reshape(len(samples), -1)
    bounds = ref.load("bounds")[samples]
    lengths = bounds[:, 1] - bounds[:, 0]
    firsts = np.cumsum(lengths) - lengths
    within = np.arange(lengths.sum()) - np.repeat(firsts, lengths)  # place in its sequence
    rows = np.repeat(bounds[:, 0], lengths) + within
    if ref.shape.vocabulary:
        from scipy import sparse

        tokens, each = np.asarray(ref.load("tokens")[rows]), reads == "steps"
        of = np.arange(len(rows)) if each else np.repeat(np.arange(len(bounds)), lengths)
        shape = (len(rows) if each else len(bounds), ref.shape.vocabulary)
        return sparse.csr_matrix((np.ones(len(rows)), (of, tokens)), shape=shape)
    steps = np.asarray(ref.load("inputs")[rows], np.float64)  # (rows, features)
    if reads == "steps":
        return steps
    if reads == "values":
        return steps.reshape(len(bounds), -1)
    return np.column_stack([*_summaries(steps, within, firsts, lengths), lengths])


_SUMMARIES = ("mean", "std", "min", "max", "first", "last", "slope")


def _summaries(
    steps: np.ndarray, within: np.ndarray, firsts: np.ndarray, lengths: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield what `_SUMMARIES` names of every feature, each (samples, features)."""
    n = lengths[:, None]
    mean = np.add.reduceat(steps, firsts) / n
    centred = steps - np.repeat(mean, lengths, axis=0)
    yield mean
    yield np.sqrt(np.add.reduceat(centred**2, firsts) / n)
    yield np.minimum.reduceat(steps, firsts)
    yield np.maximum.reduceat(steps, firsts)
    yield steps[firsts]
    yield steps[firsts + lengths - 1]
    place = (within - np.repeat((lengths - 1) / 2, lengths))[:, None]
    spread = np.add.reduceat(place**2, firsts)
    slopes = np.add.reduceat(place * centred, firsts) / np.where(spread > 0, spread, 1.0)
    yield slopes * n  # over the whole sequence
