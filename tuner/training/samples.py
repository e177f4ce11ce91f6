"""Samples: what a model reads and what it should say, gathered into batches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tuner.data import DataRef, PairsRef, SequencesRef, SeriesRef
from tuner.data.reference import some_of
from tuner.data.vocabulary import UNKNOWN
from tuner.training.device import to_device

__all__ = [
    "Pairs",
    "Samples",
    "Sequences",
    "Windows",
    "open_samples",
    "some_samples",
    "split",
    "unfold",
]

_AT_ONCE = 2**16  # samples whose weights are added up
_NO_CLASS = -1  # of a step that pads


class Samples(Protocol):
    """The prepared arrays of one split, on the device; a sample is gathered when it is used."""

    longest: int
    """The most steps that a sample has."""

    def index(self, samples: np.ndarray) -> Tensor:
        """Return samples as an index, (samples,), parts of which `inputs` and `targets` take."""

    def inputs(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gather what is read, in the order of the index.

        Returns:
            (batch, steps, features), or tokens, (batch, steps), padded with 0; and how many
            steps of each are real, (batch,), on the CPU; None where all are.
        """

    def prefix(self, index: Tensor) -> Tensor | None:
        """Gather what is said before each token, (batch, steps); None where none are said."""

    def targets(self, index: Tensor) -> Tensor:
        """Gather what should be said, in the order of the index.

        Returns:
            (batch, horizon, targets) values, float32; (batch,) classes. Where every step has
            its own (batch, steps, targets), padded with nan; (batch, steps), padded with -1.
            Of texts the token after each that `prefix` gives, likewise.
        """

    def weights(self, index: Tensor) -> Tensor | None:
        """Gather what targets count, in the order of the index; None where all count alike.

        Returns:
            (batch, horizon), or (batch,) of classes. Where every step has its own (batch, steps),
            padded with 0. Their mean over all that is trained on is 1.
        """


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
    """Yield the parts of an index, each of `size` samples, the last one of the rest.

    `torch.split` makes all parts at once: of a million windows they take more memory than the
    index.
    """
    for begin in range(0, len(index), size):
        yield index[begin : begin + size]


def some_samples(index: Tensor, most: int) -> Tensor:
    """Return an index, or some of it where it has more than so many."""
    return index[torch.from_numpy(some_of(len(index), most)).to(index.device)]


def _narrow(index: np.ndarray, device: torch.device) -> Tensor:
    """Return an index in the fewest bytes that torch takes: one of all rows is no small thing."""
    small = not len(index) or index.max() < 2**31
    return torch.from_numpy(index.astype(np.int32 if small else np.int64, copy=False)).to(device)


def _mean_weight(data: DataRef) -> float:
    """Return the mean weight of all targets that are trained on, and of no others."""
    samples, total, n = data.train_samples(), 0.0, 0
    for first in range(0, len(samples), _AT_ONCE):
        weights = data.weights_of(samples[first : first + _AT_ONCE])
        assert weights is not None
        total, n = total + float(weights.sum()), n + weights.size
    return total / n


def _narrowed(weights: np.ndarray, device: torch.device) -> Tensor:
    with np.errstate(over="ignore"):  # of rows that are not trained on
        return torch.from_numpy(weights.astype(np.float32)).to(device)


class _Unforced:
    """Samples of which nothing is said token by token."""

    def prefix(self, index: Tensor) -> None:
        """Return None."""


class Windows(_Unforced):
    """Windows over the rows of series, known by their first target row, `t`.

    Rows [t - window, t) are read and rows [t, t + horizon) are forecast. Of these the columns
    that are known ahead are read as well, 0 standing in all others. Both are views: a
    window takes memory only while its batch is in use. A window that would reach past either
    end of the rows raises (`index_select` takes no negative index).
    """

    def __init__(self, data: SeriesRef, device: torch.device) -> None:
        self.longest = data.window
        inputs = to_device(data.load("inputs"), device)  # (rows, features)
        of_classes = bool(data.shape.classes)
        targets = to_device(data.load("truth" if of_classes else "targets"), device)
        self._ahead = data.shape.ahead
        self._unknown = list(data.shape.unknown_columns)
        # (rows - window - ahead + 1, window + ahead, features)
        self._read = unfold(inputs, data.window + self._ahead)
        self._modes: Tensor | None = None  # (rows - window + 1, window, targets * modes)
        if data.shape.modes:
            self._modes = to_device(data.load(f"modes_{data.window}"), device)
        # (rows,) classes, or (rows - horizon + 1, horizon, targets)
        self._future = targets if of_classes else unfold(targets, data.shape.horizon)
        self._data = data

    def index(self, samples: np.ndarray) -> Tensor:
        """Return first target rows as an index."""
        return _narrow(samples, self._read.device)

    def inputs(self, index: Tensor) -> tuple[Tensor, None]:
        """Gather the rows before, and what is known of those to come; beside them their modes.

        (batch, window + ahead, inputs).
        """
        begins = index - self.longest
        x = self._read.index_select(0, begins)
        if self._ahead:
            x[:, self.longest :, self._unknown] = 0
        if self._modes is None:
            return x, None
        modes = functional.pad(self._modes.index_select(0, begins), (0, 0, 0, self._ahead))
        return torch.cat((x, modes), dim=2), None

    def targets(self, index: Tensor) -> Tensor:
        """Gather the rows from there on, (batch, horizon, targets); of classes, (batch,)."""
        return self._future.index_select(0, index)

    def weights(self, index: Tensor) -> Tensor | None:
        """Gather what the rows from there on count, times what the steps do."""
        if not self._data.has_weights:
            return None
        rows, steps = self._weighed
        if rows is None:
            assert steps is not None
            return steps.expand(len(index), -1)
        found = rows.index_select(0, index)
        return found if steps is None else found * steps

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


class Sequences(_Unforced):
    """Independent sequences of different lengths; a batch is padded to its longest."""

    def __init__(self, data: SequencesRef | PairsRef, device: torch.device) -> None:
        self._shape = data.shape
        self._rows = to_device(data.load("tokens" if data.shape.vocabulary else "inputs"), device)
        self._targets = to_device(data.load("truth" if data.shape.classes else "targets"), device)
        self._data = data
        # On the CPU, where the layers want lengths to be: a GPU would be waited for every batch.
        self._bounds = to_device(np.asarray(data.load("bounds"), np.int64), torch.device("cpu"))
        self.longest = int((self._bounds[:, 1] - self._bounds[:, 0]).max())

    def index(self, samples: np.ndarray) -> Tensor:
        """Return the numbers of sequences as an index, on the CPU."""
        return _narrow(samples, torch.device("cpu"))

    def inputs(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gather steps, (batch, steps, features), or tokens, (batch, steps), padded with 0."""
        first, end = self._bounds.index_select(0, index).unbind(1)
        lengths = end - first
        x = self._gather(self._rows, index, 0)
        return x, None if bool((lengths == lengths[0]).all()) else lengths

    def targets(self, index: Tensor) -> Tensor:
        """Gather values, (batch, 1, targets), classes, (batch,), or those of all steps."""
        if self._shape.each_step:
            padding = _NO_CLASS if self._shape.classes else torch.nan
            return self._gather(self._targets, index, padding)  # (batch, steps[, targets])
        targets = self._targets.index_select(0, index.to(self._targets.device))
        return targets if self._shape.classes else targets.unsqueeze(1)

    def weights(self, index: Tensor) -> Tensor | None:
        """Gather what sequences, or all their steps, count."""
        if not self._data.has_weights:
            return None
        if self._shape.each_step:
            return self._gather(self._weights, index, 0)
        weights = self._weights.index_select(0, index.to(self._weights.device))
        return weights if self._shape.classes else weights.unsqueeze(1)

    @cached_property
    def _weights(self) -> Tensor:
        """What sequences, or all rows, count: (sequences,) or (rows,)."""
        data = self._data
        return _narrowed(data.load("weights") / _mean_weight(data), self._rows.device)

    def _gather(self, rows: Tensor, index: Tensor, padding: float) -> Tensor:
        """Gather (rows, ...) of sequences as (batch, steps, ...)."""
        first, end = self._bounds.index_select(0, index).unsqueeze(2).unbind(1)  # (batch, 1)
        at = first + torch.arange(int((end - first).max()))  # (batch, steps)
        pads = at >= end
        at = torch.where(pads, first, at)  # any row of its own: it is overwritten
        steps = rows.index_select(0, at.flatten().to(rows.device)).view(*at.shape, *rows.shape[1:])
        if bool(pads.any()):
            pads = pads.view(*at.shape, *[1] * (rows.ndim - 1)).to(rows.device)
            steps = steps.masked_fill(pads, padding)
        return steps


class Pairs(Sequences):
    """Texts, and what is to be said of each: the truth so far is read (teacher forcing)."""

    def prefix(self, index: Tensor) -> Tensor:  # type: ignore[override]
        """Gather the begin and the tokens to be said, (batch, steps), padded with 0."""
        said, _ = self._said(index)
        return torch.cat((torch.full_like(said[:, :1], self._shape.classes - 2), said), dim=1)

    def targets(self, index: Tensor) -> Tensor:
        """Gather the tokens to be said and the end, (batch, steps); -1 pads, and is unknown."""
        said, lengths = self._said(index)
        found = torch.cat((said, torch.zeros_like(said[:, :1])), dim=1)
        found = found.scatter(1, lengths, self._shape.classes - 1)
        return found.masked_fill((found == 0) | (found == UNKNOWN), _NO_CLASS)

    def _said(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens, (batch, longest), and how many there are of each, (batch, 1)."""
        said = self._targets.index_select(0, index.to(self._targets.device))
        lengths = (said != 0).sum(dim=1, keepdim=True)
        return said[:, : int(lengths.max())], lengths
