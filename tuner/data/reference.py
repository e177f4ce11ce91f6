"""Data references: where prepared arrays are, and their meaning. Jobs carry these."""

from __future__ import annotations

import dataclasses
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tuner.data.preprocessing import NO_TRANSFORM, Transform, shifted
from tuner.pipeline_steps import differences_of

if TYPE_CHECKING:
    from tuner.data.preprocessing import Preparation
    from tuner.data.series_table import Series

SKIP = "skip"  # the `data.missing` that leaves windows out which cross a gap


def without_gaps(series: Series, data: Preparation) -> tuple[np.ndarray, np.ndarray]:
    """Return in which rows no input, and no target, depends on a missing value.

    Args:
        series: with even rows, nan where a value is missing.
        data: which columns are read; a lag or a difference depends on earlier rows too.

    Returns:
        (rows,), bool, of the inputs, and (rows, targets), bool.
    """
    lacking = {str(name): series.frame[name].isna().to_numpy() for name in series.frame}
    for name in series.targets:
        for rows in differences_of(data.transform):
            lacking[name] = lacking[name] | shifted(lacking[name], series.bounds, rows, False)
    read = [lacking[name] for name in {*series.features, *series.levels}]
    for name, lags in data.lags.items():
        read += [shifted(lacking[name], series.bounds, lag, False) for lag in lags]
    targets = np.column_stack([lacking[name] for name in series.targets])
    return ~np.logical_or.reduce(read), ~targets


def windows_without_gaps(whole: np.ndarray, starts: np.ndarray, window: int) -> np.ndarray:
    """Return which windows read only whole rows, (samples,), bool.

    Args:
        whole: (rows,), bool.
        starts: (samples,), the row after the last one that each reads.
    """
    broken = np.concatenate([[0], np.cumsum(~whole)])  # in the rows before
    return np.asarray(broken[starts] == broken[starts - window])


def weights_of_windows(
    rows: np.ndarray | None, steps: Sequence[float], starts: np.ndarray, horizon: int
) -> np.ndarray:
    """Return the weight of each target row of windows, (windows, horizon), float64.

    Args:
        rows: (rows,), or None where all count alike.
        steps: (horizon,), or empty where all count alike.
        starts: (windows,), the first target row of each.
    """
    of_steps = np.asarray(steps, np.float64) if len(steps) else np.ones(horizon)
    if rows is None:
        return np.tile(of_steps, (len(starts), 1))
    return np.asarray(rows[starts[:, None] + np.arange(horizon)] * of_steps)


def counting_windows(
    rows: np.ndarray, steps: Sequence[float], starts: np.ndarray, horizon: int
) -> np.ndarray:
    """Return which windows have a target of weight above 0, (windows,), bool."""
    if (rows > 0).all():
        return np.ones(len(starts), bool)
    found = np.zeros(len(starts), bool)
    for step in range(horizon):
        if not len(steps) or steps[step] > 0:
            found |= rows[starts + step] > 0
    return found


def to_units(
    outputs: np.ndarray,
    offset: Sequence[float] | np.ndarray,
    scale: Sequence[float] | np.ndarray,
    *,
    transform: Transform = NO_TRANSFORM,
    history: np.ndarray | None = None,
) -> np.ndarray:
    """Undo the scaling of values or quantiles, and the transform of the targets.

    Args:
        outputs: (samples, horizon, targets), for quantiles with a last axis more.
        offset: (targets,), or (samples, targets), of the scaling:
            scaled = (transformed - offset) / scale.
        history: the truth before each sample; see `Transform.inverse`.

    Returns:
        The same shape, float64; infinite where a prediction is absurd.
    """
    return np.asarray(transform.inverse(unscaled(outputs, offset, scale), history))


def unscaled(
    outputs: np.ndarray, offset: Sequence[float] | np.ndarray, scale: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Undo the scaling alone; see `to_units`."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(outputs, np.float64) * _along_targets(scale, outputs.ndim)
        values += _along_targets(offset, outputs.ndim)
    return np.asarray(values)


def _along_targets(numbers: Sequence[float] | np.ndarray, n_axes: int) -> np.ndarray:
    """Return (targets,) or (samples, targets) in a shape that goes with outputs."""
    array = np.asarray(numbers, np.float64)
    trailing = (1,) * (n_axes - 3)  # quantiles
    if array.ndim == 1:
        return array.reshape(-1, *trailing)
    return array.reshape(len(array), 1, -1, *trailing)


_SEED = 20_240_607


def some_of(n: int, most: int, classes: np.ndarray | None = None) -> np.ndarray:
    """Return a reproducible sample of at most `most` (at least 1) of the numbers below `n`.

    Args:
        classes: of each, (n,): every class keeps one, even if they are more than `most`.

    Returns:
        The numbers, rising, int64; all of them if `n` is at most `most`.
    """
    if n <= (most := max(1, most)):
        return np.arange(n)
    order = np.random.default_rng([_SEED, n]).permutation(n)
    if classes is None:
        return np.sort(order[:most])
    _, firsts = np.unique(classes[order], return_index=True)  # of each class, in the order
    return np.sort(order[np.union1d(np.arange(most), firsts)])


_held: dict[str, Mapping[str, np.ndarray]] = {}  # by folder and name
_mapping = threading.Lock()  # numpy parses headers by `ast`, which fails in two threads at a time


def hold_arrays(folders: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Let `DataRef.load` return these arrays, by folder and name, instead of reading files.

    A worker on another machine calls it, as it has no files; arrays of an earlier call are dropped.
    """
    _held.clear()
    _held.update(folders)


def read_arrays(folder: str) -> dict[str, np.ndarray]:
    """Return all arrays of a folder by name, mapped into memory, to send to such a worker."""
    files = sorted(Path(folder).glob("*.npy"))
    return {file.stem: np.asarray(_mapped(file)) for file in files}


def _mapped(file: Path) -> np.ndarray:
    with _mapping:
        array: np.ndarray = np.load(file, mmap_mode="r")
    return array


@dataclass(frozen=True)
class Shape:
    """The shape and kind of inputs and outputs of a model."""

    task: Literal["forecast", "coming_class", "regress", "classify", "label", "regress_steps",
                  "translate"]  # fmt: skip
    features: int  # numbers in a step; 0 where the steps are tokens
    vocabulary: int = 0  # tokens, of which 0 pads and 1 is unknown; 0 where the steps are numbers
    horizon: int = 1  # of a forecast; the most tokens of a translation
    targets: int = 1
    quantiles: tuple[float, ...] = ()  # rising; () where the values themselves are predicted
    classes: int = 0  # 0 where values are predicted; of a translation its vocabulary
    window: int = 0  # rows that a forecast reads; of sequences: steps, 0 if they differ
    target_columns: tuple[int, ...] = ()  # the input column of each target; -1 for none
    lag_columns: tuple[tuple[int, int], ...] = ()  # (input column, target): its earlier rows
    known_columns: tuple[int, ...] = ()  # input columns that are known in the rows to come
    categories: tuple[tuple[int, int], ...] = ()  # (input column, how many, with the unknown one)
    trend: int = 0  # rows of the moving average that splits targets in the window; 0 for none
    modes: int = 0  # intrinsic mode functions of each target in the window, read beside the rest

    @property
    def inputs(self) -> int:
        """Numbers in a step that a model reads: the features, then the modes of each target."""
        return self.features + self.modes * self.targets

    @property
    def of_series(self) -> bool:
        """Whether windows of series are read; else whole sequences are."""
        return self.task in ("forecast", "coming_class")

    @property
    def each_step(self) -> bool:
        """Whether every step of a sequence has its own target, not the whole sequence."""
        return self.task in ("label", "regress_steps")

    @property
    def ahead(self) -> int:
        """Rows after the window that are read, of the columns that are known there."""
        return self.horizon if self.known_columns else 0

    @property
    def unknown_columns(self) -> tuple[int, ...]:
        """The features that are not known in the rows to come."""
        return tuple(sorted(set(range(self.features)) - set(self.known_columns)))


@dataclass(frozen=True)
class DataRef(ABC):
    """Prepared arrays in a folder of .npy files: one split into training and evaluation.

    A *sample* is what a model is trained and scored on: a window of a series, known by its
    first target row, or a sequence, known by its number.
    """

    folder: str
    shape: Shape

    @abstractmethod
    def train_samples(self) -> np.ndarray:
        """Return the samples to train on, (n,), rising."""

    @abstractmethod
    def evaluate_samples(self) -> np.ndarray:
        """Return the samples to score, (n,), rising: validation, or test once it is open."""

    @abstractmethod
    def truth_of(self, samples: np.ndarray) -> np.ndarray:
        """Return the true targets of samples, in the data's units.

        (samples, horizon, targets) values, float64; (samples,) classes, int64. Where every step
        has its own those of all steps of the samples one after another: (steps, 1, targets)
        values, (steps,) classes.
        """

    @abstractmethod
    def to_units(self, outputs: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Return outputs of a model in the data's units; probabilities stay as they are.

        Args:
            outputs: (samples, horizon, targets), for quantiles with a last axis more; of
                classes the probabilities, (samples, classes). Where every step has its own
                (steps, 1, targets), or (steps, classes).
            samples: (samples,).

        Returns:
            The same shape, float64; infinite where a prediction is absurd.
        """

    @abstractmethod
    def naive_errors(self, samples: np.ndarray) -> np.ndarray:
        """Return the divisors of MASE, nan where there is none.

        (samples, targets), or (steps, targets) where every step has its own value.
        """

    @property
    def has_weights(self) -> bool:
        """Whether samples, or the steps of a horizon, count differently in loss and metric."""
        return False

    def weights_of(self, samples: np.ndarray) -> np.ndarray | None:
        """Return the weights of samples in loss and metric, 0 or more; None where all are alike.

        (samples, horizon) of values; (samples,) of sequences and of classes. Where every step has
        its own, those of all steps one after another, (steps,).
        """
        return None

    def with_window(self, window: int | None) -> DataRef:
        """Return the reference for models that read `window` rows; None leaves it as it is."""
        return self

    def count_of(self, samples: np.ndarray) -> int:
        """Return the number of rows, or sequences, that the samples predict."""
        return len(samples)

    def load(self, name: str) -> np.ndarray:
        """Return a prepared array, read-only and mapped into memory rather than read."""
        if self.folder in _held:
            return _held[self.folder][name]
        return _mapped(Path(self.folder) / f"{name}.npy")


@dataclass(frozen=True)
class SeriesRef(DataRef):
    """Rows of one series or of several, one after another, and windows over them.

    A window that forecasts from row t reads the input rows [t - window, t) and forecasts the
    target rows [t, t + horizon), all of one series. Of these rows it also reads the input columns
    that are known ahead, and no others. Arrays:

    * inputs: (rows, features), float32, scaled; of categories their numbers, 0 for an unknown one;
    * targets: (rows, targets), float32, transformed and scaled;
    * truth: (rows, targets), float64, in the data's units; where the class of row t is predicted
      (rows,), int64, and neither targets nor naive;
    * known: (rows,), bool: the targets were in the file, not imputed;
    * train, evaluate: (series, 2), the rows [start, end) of each series whose targets belong to
      the part; reach: (series, 2), the rows that windows may read;
    * whole: (rows,), bool: no input of the row was imputed; where windows that cross a gap are left
      out;
    * naive: (series, targets), the naive forecast's mean absolute error in the training rows;
    * offsets, scales: (series, targets), where each series has its own;
    * weights: (rows,), float64, where targets count differently;
    * modes_N: (rows - N + 1, N, targets * modes), float32, where the shape has modes: those of the
      window of N rows that begins at each row; nan where no sample reads it.
    """

    window: int = 1
    longest_window: int = 1  # of the search: whatever they read, all are scored on the same rows
    transform: Transform = NO_TRANSFORM  # of the target columns
    offset: tuple[float, ...] = ()  # of the target columns: scaled = (transformed - offset) / scale
    scale: tuple[float, ...] = ()
    own_scales: bool = False  # each series has its own: these are of all of them together
    skips_gaps: bool = False  # windows that read a row which is not whole are left out
    season: int = 1  # rows in a season; 1 without one, or where a training part is no longer
    weighted: bool = False  # rows have weights; windows whose targets all have 0 are left out
    step_weights: tuple[float, ...] = ()  # (horizon,), of its steps; () where all count alike

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", dataclasses.replace(self.shape, window=self.window))

    def train_samples(self) -> np.ndarray:
        return self._starts("train", self.window)

    def evaluate_samples(self) -> np.ndarray:
        return self._starts("evaluate", max(self.window, self.longest_window))

    def truth_of(self, samples: np.ndarray) -> np.ndarray:
        truth = self.load("truth")
        if self.shape.classes:
            return np.asarray(truth[samples])
        return np.asarray(truth[samples[:, None] + np.arange(self.shape.horizon)])

    def to_units(self, outputs: np.ndarray, samples: np.ndarray) -> np.ndarray:
        if self.shape.classes:
            return np.asarray(outputs, np.float64)
        offset, scale = self.scaling_of(samples)
        history = self.history_of(samples)
        return to_units(outputs, offset, scale, transform=self.transform, history=history)

    def scaling_of(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return offset and scale of the targets: (targets,), or (samples, targets) if they differ.

        scaled = (transformed - offset) / scale.
        """
        if not self.own_scales:
            return np.array(self.offset), np.array(self.scale)
        of = self.series_of(samples)
        return np.array(self.load("offsets")[of]), np.array(self.load("scales")[of])

    def history_of(self, samples: np.ndarray) -> np.ndarray | None:
        """Return the truth that the transform is undone from, (samples, lost_rows, targets)."""
        if not (lost := self.transform.lost_rows):
            return None
        return np.asarray(self.load("truth")[samples[:, None] + np.arange(-lost, 0)])

    def naive_errors(self, samples: np.ndarray) -> np.ndarray:
        return np.asarray(self.load("naive")[self.series_of(samples)])

    @property
    def has_weights(self) -> bool:
        return self.weighted or bool(self.step_weights)

    def weights_of(self, samples: np.ndarray) -> np.ndarray | None:
        if not self.has_weights:
            return None
        rows = self.load("weights") if self.weighted else None
        if self.shape.classes:
            return None if rows is None else np.asarray(rows[samples])
        return weights_of_windows(rows, self.step_weights, samples, self.shape.horizon)

    def fitted_samples(self) -> np.ndarray:
        """Return the training samples for a regression.

        They are those with no target of weight 0, if there are any.
        """
        samples = self.train_samples()
        if not self.weighted or self.shape.classes:
            return samples
        zero = np.concatenate([[0], np.cumsum(self.load("weights") == 0)])  # in the rows before
        whole = samples[zero[samples + self.shape.horizon] == zero[samples]]
        return whole if len(whole) else samples

    def count_of(self, samples: np.ndarray) -> int:
        horizon = self.shape.horizon
        return int(np.minimum(np.diff(samples), horizon).sum()) + min(len(samples), 1) * horizon

    def series_of(self, samples: np.ndarray) -> np.ndarray:
        """Return the number of the series that each window is of, (samples,)."""
        firsts = self.load("reach")[:, 0]  # rising, as series stand one after another
        return np.asarray(np.searchsorted(firsts, samples, side="right") - 1)

    def with_window(self, window: int | None) -> SeriesRef:
        return self if window is None else dataclasses.replace(self, window=window)

    def _starts(self, part: str, window: int) -> np.ndarray:
        """Return the first target row of every window whose targets all lie in the part.

        Inputs may look back over the part's beginning. Windows are left out if a target was not in
        the file, if they cross a gap and these are skipped, or if all targets have weight 0.
        """
        horizon = self.shape.horizon
        ranges = [
            np.arange(max(begin, first + window), max(begin, end - horizon + 1))
            for (begin, end), (first, _) in zip(self.load(part), self.load("reach"), strict=True)
        ]
        some = [of for of in ranges if len(of)]
        starts: np.ndarray = np.concatenate(some or [np.empty(0, np.int64)])
        unknown = np.concatenate([[0], np.cumsum(~self.load("known"))])  # in the rows before
        all_known = unknown[starts + horizon] == unknown[starts]
        if self.skips_gaps:
            all_known &= windows_without_gaps(self.load("whole"), starts, window)
        starts = np.asarray(starts[all_known])
        if not self.weighted:
            return starts
        weights = self.load("weights")
        return np.asarray(starts[counting_windows(weights, self.step_weights, starts, horizon)])


@dataclass(frozen=True)
class SequencesRef(DataRef):
    """Independent sequences of different lengths, one after another. Arrays:

    * inputs: (rows, features), float32, scaled; or tokens: (rows,), int64;
    * bounds: (sequences, 2), the rows [start, end) of each;
    * targets: (sequences, targets), float32, scaled, and truth: the same, float64, in the data's
      units; of classes only truth, int64, (sequences,); with rows in place of sequences where
      every step has its own;
    * train, evaluate: (n,), int64, the sequences of each part;
    * weights: (sequences,), float64, where they count differently; likewise (rows,).
    """

    offset: tuple[float, ...] = ()  # of the targets: scaled = (value - offset) / scale
    scale: tuple[float, ...] = ()
    mean_errors: tuple[float, ...] = ()  # mean absolute ones of the training part's mean
    weighted: bool = False  # there are weights; sequences whose weights are all 0 are left out

    def train_samples(self) -> np.ndarray:
        return self._counting(np.array(self.load("train")))

    def evaluate_samples(self) -> np.ndarray:
        return self._counting(np.array(self.load("evaluate")))

    def truth_of(self, samples: np.ndarray) -> np.ndarray:
        truth = self.load("truth")
        found = self._said_of(truth, samples)
        return found[:, None] if truth.ndim == 2 else found

    @property
    def has_weights(self) -> bool:
        return self.weighted

    def weights_of(self, samples: np.ndarray) -> np.ndarray | None:
        return self._said_of(self.load("weights"), samples) if self.weighted else None

    def _said_of(self, array: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Return the entries of the samples, or of all their steps one after another."""
        if not self.shape.each_step:
            return np.asarray(array[samples])
        bounds = self.load("bounds")[samples]
        return np.asarray(np.concatenate([array[first:end] for first, end in bounds]))

    def _counting(self, samples: np.ndarray) -> np.ndarray:
        if not self.weighted:
            return samples
        counts = np.asarray(self.load("weights") > 0)
        if self.shape.each_step:
            bounds = self.load("bounds")
            before = np.concatenate([[0], np.cumsum(counts)])  # that count, in the rows before
            counts = before[bounds[:, 1]] > before[bounds[:, 0]]
        return np.asarray(samples[counts[samples]])

    def to_units(self, outputs: np.ndarray, samples: np.ndarray) -> np.ndarray:
        if self.shape.classes:
            return np.asarray(outputs, np.float64)
        return to_units(outputs, self.offset, self.scale)

    def naive_errors(self, samples: np.ndarray) -> np.ndarray:
        n = len(samples)
        if self.shape.each_step:
            n = int(np.diff(self.load("bounds")[samples])[:, 0].sum())
        return np.tile(self.mean_errors, (n, 1))


@dataclass(frozen=True)
class PairsRef(DataRef):
    """Pairs of texts, as numbers of tokens; see `beam_search`. Arrays:

    * tokens: (rows,), int64, of all texts, and bounds: (texts, 2), the rows [start, end) of each;
    * truth: (texts, longest), int64, padded with 0: the second text of each pair;
    * copied: (texts, longest text), likewise: each text itself; most_frequent: (longest,);
    * train, evaluate: (n,), int64, the texts of each part.
    """

    def train_samples(self) -> np.ndarray:
        return np.array(self.load("train"))

    def evaluate_samples(self) -> np.ndarray:
        return np.array(self.load("evaluate"))

    def truth_of(self, samples: np.ndarray) -> np.ndarray:
        return np.asarray(self.load("truth")[samples])

    def to_units(self, outputs: np.ndarray, samples: np.ndarray) -> np.ndarray:
        return outputs

    def naive_errors(self, samples: np.ndarray) -> np.ndarray:
        return np.full((len(samples), 1), np.nan)
