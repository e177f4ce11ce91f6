"""Samples of a split: inputs and targets, gathered into batches on the device."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import repeat
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tuner.data import DataRef, PairsRef, SequencesRef, SeriesRef
from tuner.data.reference import some_of
from tuner.data.vocabulary import UNKNOWN
from tuner.training.device import to_device

_AT_ONCE = 2**16  # samples whose weights are summed at a time
_NO_CLASS = -1  # at padded steps
_NUMBERS_AT_ONCE = 2**18  # of inputs that are gathered for several batches: 1 MiB


class Batch(NamedTuple):
    """Samples to train on; the fields are those of the methods of `Samples`."""

    inputs: Tensor
    lengths: Tensor | None
    prefix: Tensor | None
    targets: Tensor
    weights: Tensor | None
    losses: int
    """How many losses their mean is of: samples, real steps, or known tokens."""


class Samples(Protocol):
    """The prepared arrays of one split, on the device; batches are gathered on use."""

    longest: int  # steps of a sample, at most

    def index(self, samples: np.ndarray) -> Tensor:
        """Return samples as an index, (samples,); the other methods take any part of it."""

    def inputs(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gather the inputs, in the order of the index.

        Returns:
            (batch, steps, features), or tokens, (batch, steps), padded with 0; and the numbers of
            real steps, (batch,), on the CPU, or None if no step is padded.
        """

    def prefix(self, index: Tensor) -> Tensor | None:
        """Gather the tokens before each target token, (batch, steps); None without translations."""
        return None

    def targets(self, index: Tensor) -> Tensor:
        """Gather the targets, in the order of the index.

        Returns:
            Values, (batch, horizon, targets), float32, or classes, (batch,). Where every step has
            a target, (batch, steps, targets), padded with nan, or (batch, steps), padded with -1.
            Of translations the token after each of `prefix`, padded with -1.
        """

    def weights(self, index: Tensor) -> Tensor | None:
        """Gather the weights of targets, in the order of the index; None for equal weights.

        Returns:
            (batch, horizon), or (batch,) of classes. Where every step has a target, (batch,
            steps), padded with 0. The mean over all training samples is 1.
        """

    def losses(self, index: Tensor) -> int:
        """Return how many losses the mean loss of samples is of."""
        return len(index)

    def batches(self, index: Tensor, size: int) -> Iterator[Batch]:
        """Yield batches of `size` samples in the order of the index, the last one of the rest."""
        for part in split(index, size):
            x, lengths = self.inputs(part)
            others = self.prefix(part), self.targets(part), self.weights(part), self.losses(part)
            yield Batch(x, lengths, *others)


def open_samples(data: DataRef, device: torch.device) -> Samples:
    """Return the samples of prepared data."""
    if isinstance(data, SeriesRef):
        return Windows(data, device)
    if isinstance(data, PairsRef):
        return Pairs(data, device)
    assert isinstance(data, SequencesRef)
    return Sequences(data, device)


def unfold(rows: Tensor, length: int) -> Tensor:
    """View (rows, columns) as (rows - length + 1, length, columns); window i starts at row i."""
    return rows.unfold(0, length, 1).transpose(1, 2)


def split(index: Tensor, size: int) -> Iterator[Tensor]:
    """Yield parts of `size` samples of an index, the last one of the rest.

    `torch.split` makes all parts at once, which take more memory than the index.
    """
    for begin in range(0, len(index), size):
        yield index[begin : begin + size]


def some_samples(index: Tensor, most: int) -> Tensor:
    """Return at most `most` samples of an index, evenly spaced."""
    return index[torch.from_numpy(some_of(len(index), most)).to(index.device)]


def _narrow(index: np.ndarray, device: torch.device) -> Tensor:
    small = not len(index) or index.max() < 2**31
    return torch.from_numpy(index.astype(np.int32 if small else np.int64, copy=False)).to(device)


def _mean_weight(data: DataRef) -> float:
    """Return the mean weight of all targets of the training samples."""
    samples, total, n = data.train_samples(), 0.0, 0
    for first in range(0, len(samples), _AT_ONCE):
        weights = data.weights_of(samples[first : first + _AT_ONCE])
        assert weights is not None
        total, n = total + float(weights.sum()), n + weights.size
    return total / n


def _narrowed(weights: np.ndarray, device: torch.device) -> Tensor:
    with np.errstate(over="ignore"):  # in rows of no training sample
        return torch.from_numpy(weights.astype(np.float32)).to(device)


class Split:
    """A split as it is read on a device; trainings that read the same windows may share it.

    Args:
        data: the split, for models that read windows of its length.
        device: of the samples.
    """

    def __init__(self, data: DataRef, device: torch.device) -> None:
        self.data = data
        self.samples = open_samples(data, device)
        self.train_index = self.samples.index(data.train_samples())  # (train samples,)
        self.scored_index = self.samples.index(data.evaluate_samples())  # (evaluation samples,)
        self.scored = self.scored_index.cpu().numpy()
        self.truth = data.truth_of(self.scored)  # in units, or classes
        self.scored_weights = data.weights_of(self.scored)


class Windows(Samples):
    """Windows over the rows of series; a sample is its first target row, `t`.

    Inputs are rows [t - window, t), targets rows [t, t + horizon). Columns that are known ahead
    are inputs in the target rows too, the others are 0 there. Both are views: a window takes
    memory in its batch alone. A window past either end of the rows raises, as `index_select` takes
    no negative index.
    """

    def __init__(self, data: SeriesRef, device: torch.device) -> None:
        self.longest = data.window
        inputs = to_device(data.load("inputs"), device)  # (rows, features)
        of_classes = bool(data.shape.classes)
        targets = to_device(data.load("truth" if of_classes else "targets"), device)
        self._ahead = data.shape.ahead
        self._unknown = torch.tensor(data.shape.unknown_columns, dtype=torch.long, device=device)
        # (rows - window - ahead + 1, window + ahead, features)
        self._read = unfold(inputs, data.window + self._ahead)
        self._modes: Tensor | None = None  # (rows - window + 1, window, targets * modes)
        if data.shape.modes:
            self._modes = to_device(data.load(f"modes_{data.window}"), device)
        # (rows,) classes, or (rows - horizon + 1, horizon, targets)
        self._future = targets if of_classes else unfold(targets, data.shape.horizon)
        self._data = data

    def index(self, samples: np.ndarray) -> Tensor:
        return _narrow(samples, self._read.device)

    def inputs(self, index: Tensor) -> tuple[Tensor, None]:
        begins = index - self.longest
        x = self._read.index_select(0, begins)
        if self._ahead:
            x[:, self.longest :].index_fill_(2, self._unknown, 0)
        if self._modes is None:
            return x, None
        modes = functional.pad(self._modes.index_select(0, begins), (0, 0, 0, self._ahead))
        return torch.cat((x, modes), dim=2), None

    def targets(self, index: Tensor) -> Tensor:
        return self._future.index_select(0, index)

    def weights(self, index: Tensor) -> Tensor | None:
        if not self._data.has_weights:
            return None
        rows, steps = self._weighed
        if rows is None:
            assert steps is not None
            return steps.expand(len(index), -1)
        found = rows.index_select(0, index)
        return found if steps is None else found * steps

    def batches(self, index: Tensor, size: int) -> Iterator[Batch]:
        """Yield views of windows that are gathered for as many batches as fit `_NUMBERS_AT_ONCE`.

        The inputs of a small epoch are thus gathered in one operation.
        """
        numbers = size * self._read.shape[1] * self._read.shape[2]
        for part in split(index, size * max(1, _NUMBERS_AT_ONCE // numbers)):
            x, targets, weights = self.inputs(part)[0], self.targets(part), self.weights(part)
            of_batches = repeat(None) if weights is None else torch.split(weights, size)
            for each in zip(
                torch.split(x, size), torch.split(targets, size), of_batches, strict=False
            ):
                yield Batch(each[0], None, None, each[1], each[2], len(each[0]))

    @cached_property
    def _weighed(self) -> tuple[Tensor | None, Tensor | None]:
        """Weights of rows, (rows,) or (rows - horizon + 1, horizon), and of steps, (horizon,)."""
        data, device, unit = self._data, self._read.device, _mean_weight(self._data)
        steps = np.array(data.step_weights) if data.step_weights else None
        if not data.weighted:
            assert steps is not None
            return None, _narrowed(steps / unit, device)
        rows = _narrowed(data.load("weights") / unit, device)
        if not data.shape.classes:
            rows = rows.unfold(0, data.shape.horizon, 1)
        return rows, None if steps is None else _narrowed(steps, device)


class Sequences(Samples):
    """Independent sequences of different lengths; a batch is padded to its longest one."""

    def __init__(self, data: SequencesRef | PairsRef, device: torch.device) -> None:
        self._shape = data.shape
        self._rows = to_device(data.load("tokens" if data.shape.vocabulary else "inputs"), device)
        self._targets = to_device(data.load("truth" if data.shape.classes else "targets"), device)
        self._data = data
        # On the CPU, where the layers need the lengths: a GPU would have to synchronize.
        self._bounds = to_device(np.asarray(data.load("bounds"), np.int64), torch.device("cpu"))
        self.longest = int((self._bounds[:, 1] - self._bounds[:, 0]).max())

    def index(self, samples: np.ndarray) -> Tensor:
        return _narrow(samples, torch.device("cpu"))

    def inputs(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        first, end = self._bounds.index_select(0, index).unbind(1)
        lengths = end - first
        x = self._gather(self._rows, index, 0)
        return x, None if bool((lengths == lengths[0]).all()) else lengths

    def targets(self, index: Tensor) -> Tensor:
        if self._shape.each_step:
            padding = _NO_CLASS if self._shape.classes else torch.nan
            return self._gather(self._targets, index, padding)  # (batch, steps[, targets])
        targets = self._targets.index_select(0, self._there(index))
        return targets if self._shape.classes else targets.unsqueeze(1)

    def weights(self, index: Tensor) -> Tensor | None:
        if not self._data.has_weights:
            return None
        if self._shape.each_step:
            return self._gather(self._weights, index, 0)
        weights = self._weights.index_select(0, self._there(index))
        return weights if self._shape.classes else weights.unsqueeze(1)

    def losses(self, index: Tensor) -> int:
        if not self._shape.each_step:
            return len(index)
        first, end = self._bounds.index_select(0, index).unbind(1)
        return int((end - first).sum())

    @cached_property
    def _weights(self) -> Tensor:
        """Weights of sequences, (sequences,), or of their rows, (rows,)."""
        data = self._data
        return _narrowed(data.load("weights") / _mean_weight(data), self._rows.device)

    def _there(self, small: Tensor) -> Tensor:
        """Copy to the device of the rows; a GPU need not have finished what it was given before."""
        return small.to(self._rows.device, non_blocking=True)

    def _gather(self, rows: Tensor, index: Tensor, padding: float) -> Tensor:
        """Gather (rows, ...) of sequences as (batch, steps, ...)."""
        first, end = self._bounds.index_select(0, index).unsqueeze(2).unbind(1)  # (batch, 1)
        at = first + torch.arange(int((end - first).max()))  # (batch, steps)
        pads = at >= end
        at = torch.where(pads, first, at)  # any valid row: it is overwritten
        steps = rows.index_select(0, self._there(at.flatten())).view(*at.shape, *rows.shape[1:])
        if bool(pads.any()):  # on the CPU
            pads = self._there(pads.view(*at.shape, *[1] * (rows.ndim - 1)))
            steps = steps.masked_fill(pads, padding)
        return steps


class Pairs(Sequences):
    """Texts and their translations.

    The prefix is the begin token and the true tokens before each; targets are the tokens and the
    end token, -1 where they are unknown.
    """

    def __init__(self, data: PairsRef, device: torch.device) -> None:
        super().__init__(data, device)
        tokens = torch.from_numpy(np.array(data.load("truth")))
        # Numbers of target tokens, and of those that are known, with the end: on the CPU as bounds.
        self._lengths = (tokens != 0).sum(dim=1)
        self._known = 1 + ((tokens != 0) & (tokens != UNKNOWN)).sum(dim=1)

    def prefix(self, index: Tensor) -> Tensor:
        tokens, _ = self._target_tokens(index)
        return torch.cat((torch.full_like(tokens[:, :1], self._shape.classes - 2), tokens), dim=1)

    def targets(self, index: Tensor) -> Tensor:
        tokens, lengths = self._target_tokens(index)
        found = torch.cat((tokens, torch.zeros_like(tokens[:, :1])), dim=1)
        found = found.scatter(1, lengths, self._shape.classes - 1)
        return found.masked_fill((found == 0) | (found == UNKNOWN), _NO_CLASS)

    def losses(self, index: Tensor) -> int:
        return int(self._known.index_select(0, index).sum())

    def _target_tokens(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target tokens, (batch, longest), and their numbers, (batch, 1)."""
        tokens = self._targets.index_select(0, self._there(index))
        lengths = self._lengths.index_select(0, index)
        return tokens[:, : int(lengths.max())], self._there(lengths).unsqueeze(1)
