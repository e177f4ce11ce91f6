"""Linear models of independent sequences: on simple summaries, on all values, on token counts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tuner.data.metrics import score
from tuner.data.reference import DataRef, SeriesRef
from tuner.data.thinning import some_of
from tuner.experiment.metrics import METRICS

__all__ = [
    "MOST_VALUES",
    "LinearOfSequences",
    "SequenceChoice",
    "choose_reading",
    "deal_folds",
    "too_many_numbers",
    "values_say_more",
]

Reading = Literal["summaries", "values", "counts", "steps"]

PENALTIES = {
    "values": (1e4, 1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3, 1e-4),  # of scikit-learn's Ridge
    "classes": (1e3, 1e2, 1e1, 1.0, 1e-1),  # one over C, of its LogisticRegression
}
"""That are tried, the strongest first."""

MOST_VALUES = 2_500
"""Numbers of a sequence that a linear model reads, where they are not counts."""

_MOST_TOKENS = 200_000  # of a vocabulary
_MOST_WORK = 1e7  # numbers times classes; beyond, some of the samples are fitted on
_MOST_ITERATIONS = 200
_FOLDS = 5
_MOST_WINDOWS = 10_000  # that are laid out at once


@dataclass(frozen=True)
class SequenceChoice:
    """What the validation sequences have decided: nothing that is fitted."""

    reads: Reading
    penalty: float
    length: int | None = None  # of the sequences whose values are read, all of which it was of


class LinearOfSequences:
    """A ridge regression of values, a logistic one of classes, on what is `read` of sequences.

    Where something is said of every step, each is read by itself. A window of a series, of whose
    coming row it is the class, is read as a sequence of one length is.
    """

    def __init__(self, ref: DataRef, choice: SequenceChoice) -> None:
        """Fit on the training part of `ref`.

        Raises:
            ValueError: the training part has one class alone.
        """
        self._ref, self._choice = ref, choice
        trained = ref.train_samples()
        (self._fitted,) = _fit(ref, choice.reads, [choice.penalty], trained[self._fits(trained)])

    def predict(self, samples: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """Return what `plain_predictions` does: values, or the probabilities of classes.

        Args:
            samples: (samples,).
            otherwise: what is predicted of sequences that cannot be read, of the same shape:
                where all values are read, those of another length.
        """
        fits = self._fits(samples)
        if isinstance(self._ref, SeriesRef) and len(samples) > _MOST_WINDOWS:
            parts = range(0, len(samples), _MOST_WINDOWS)
            return np.concatenate(
                [self.predict(samples[i : i + _MOST_WINDOWS], otherwise) for i in parts]
            )
        if fits.all():
            return self._fitted.predict(self._ref, _read(self._ref, samples, self._choice.reads))
        found = np.array(otherwise)
        if fits.any():
            found[fits] = self.predict(samples[fits], otherwise[fits])
        return found

    def _fits(self, samples: np.ndarray) -> np.ndarray:
        """Return whether each sample can be read, (samples,)."""
        if self._choice.reads != "values" or isinstance(self._ref, SeriesRef):
            return np.ones(len(samples), bool)
        return np.asarray(_lengths(self._ref)[samples] == self._choice.length)


def too_many_numbers(ref: DataRef) -> str | None:
    """Say why there is no linear model; None where there is one."""
    if ref.shape.task == "translate":
        return "a linear model says no texts"
    features, vocabulary = ref.shape.features, ref.shape.vocabulary
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


def choose_reading(metric: str, ref: DataRef) -> SequenceChoice:
    """Choose what is read and the penalty, by the validation sequences.

    Args:
        metric: decides; of equals the one with the smaller loss is taken.
        ref: of the search, which evaluates the validation part.
    """
    samples, trained = ref.evaluate_samples(), ref.train_samples()
    truth, sign = ref.truth_of(samples), METRICS[metric].sign
    length = ref.window if isinstance(ref, SeriesRef) else int(_lengths(ref)[0])
    kind = "classes" if ref.shape.classes else "values"
    loss = "cross_entropy" if ref.shape.classes else "rmse"
    best, best_cost = None, (np.inf, np.inf)
    for reads in _readings(ref):
        x = _read(ref, samples, reads)
        models = _fit(ref, reads, PENALTIES[kind], trained)
        for penalty, fitted in zip(PENALTIES[kind], models, strict=True):
            predicted = fitted.predict(ref, x)
            costs = sign * score(metric, truth, predicted, ref), score(loss, truth, predicted, ref)
            first, second = (math.inf if math.isnan(c) else c for c in costs)
            cost = (first, second)
            if best is None or cost < best_cost:
                of = length if reads == "values" else None
                best, best_cost = SequenceChoice(reads, penalty, of), cost
    assert best is not None
    return best


def values_say_more(ref: DataRef) -> bool:
    """Return whether all values tell a linear model more than summaries of them.

    Judged on five folds of the training sequences, each with its share of every class, by cross
    entropy or RMSE, each reading with its best penalty. Never where sequences differ in length,
    or a fold lacks what is needed.
    """
    if "values" not in _readings(ref):
        return False
    trained = ref.train_samples()
    kind, loss = ("classes", "cross_entropy") if ref.shape.classes else ("values", "rmse")
    of_class = ref.truth_of(trained) if ref.shape.classes else np.zeros(len(trained))
    fold_of = deal_folds(of_class, _FOLDS)
    costs = {}
    readings: tuple[Reading, ...] = ("summaries", "values")
    for reads in readings:
        of_penalties = np.zeros(len(PENALTIES[kind]))
        for fold in range(_FOLDS):
            held = fold_of == fold
            rest = trained[~held]
            if not held.any() or (ref.shape.classes and len(np.unique(ref.truth_of(rest))) < 2):
                return False
            x, truth = _read(ref, trained[held], reads), ref.truth_of(trained[held])
            of_penalties += [
                score(loss, truth, model.predict(ref, x), ref, trained[held])
                for model in _fit(ref, reads, PENALTIES[kind], rest)
            ]
        costs[reads] = of_penalties.min()
    return bool(costs["values"] < costs["summaries"])


def deal_folds(classes: np.ndarray, n_folds: int) -> np.ndarray:
    """Return the fold of each row, (rows,): those of a class go around, and so do the classes.

    Args:
        classes: of each row, (rows,).
        n_folds: from 0 to `n_folds` - 1.
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
    lengths = _lengths(ref)  # of the search's: one of the test part may be another
    one_length = lengths.min() == lengths.max()
    if one_length and lengths[0] > 1 and lengths[0] * ref.shape.features <= MOST_VALUES:
        return ["summaries", "values"]
    return ["summaries"]


def _lengths(ref: DataRef) -> np.ndarray:
    return np.asarray(np.diff(ref.load("bounds"))[:, 0])


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A model of scikit-learn's, and what is done to numbers before it sees them."""

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


def _fit(ref: DataRef, reads: Reading, penalties: Any, samples: np.ndarray) -> Iterator[_Fitted]:
    """Yield the model for each penalty, fitted on samples of the training part."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    if isinstance(ref, SeriesRef):  # windows overlap: they take more memory than the series
        numbers = ref.window * ref.shape.features * ref.shape.classes
        samples = samples[some_of(len(samples), int(_MOST_WORK / numbers), ref.truth_of(samples))]
    x, y, weights = _read(ref, samples, reads), ref.truth_of(samples), ref.weights_of(samples)
    dense = isinstance(x, np.ndarray)
    numbers = x.size if dense else x.nnz
    most = int(_MOST_WORK * len(y) / max(1, numbers * max(1, ref.shape.classes)))
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
        yield _Fitted(model, offset, scale)


def _scaled(x: Any, offset: np.ndarray | None, scale: np.ndarray | None) -> Any:
    return x if offset is None else (x - offset) / scale


def _read(ref: DataRef, samples: np.ndarray, reads: Reading) -> Any:
    """Return what a linear model sees: (samples or steps, columns), dense or sparse."""
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

        tokens = np.asarray(ref.load("tokens")[rows])
        of = (
            np.arange(len(rows)) if reads == "steps" else np.repeat(np.arange(len(bounds)), lengths)
        )
        shape = (len(rows) if reads == "steps" else len(bounds), ref.shape.vocabulary)
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
