"""The windows of a group of trainings: batches of all members, as the layers of each read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tuner.training.layers import split_future
from tuner.training.samples import split
from tuner.training.trainer import Fit

_BATCH = 1024  # windows that are prepared at a time
_KEPT = 2**24  # numbers in the windows of all kinds that are kept


@dataclass(frozen=True)
class Batch:
    """Windows of all members, the first member's first.

    What has no trained weights, from the window to the layers and around them, is known
    beforehand: the outputs of a model are those of its head times `spread`, plus `base`.
    """

    read: Tensor  # by the layers, (members * batch, steps, inputs)
    base: Tensor  # (members * batch, horizon, targets)
    spread: Tensor  # (members * batch, 1, targets)
    targets: Tensor  # (members * batch, horizon, targets)
    weights: Tensor | None  # of the targets, (members * batch, horizon); None if all count alike


class Windows:
    """The windows of one part of the data, as the layers of each kind of model read them.

    Members that normalize alike, and have a linear path or none, are of one kind. Of small data
    all windows of all kinds are kept; of large data each batch is made when it is needed.

    Args:
        fits: of the members; all read the same data.
        train: whether the windows are those to train on; else those that are scored.
    """

    def __init__(self, fits: Sequence[Fit], *, train: bool) -> None:
        first = fits[0]
        self.index = first.train_index if train else first.scored_index
        self.n = n = len(self.index)
        self._samples = first.samples
        self._relative: Tensor | None = None  # weights of the scored samples, their mean 1
        if not train and (weights := first.scored_weights) is not None:
            relative = np.asarray(weights / weights.mean(), np.float32)
            self._relative = torch.from_numpy(relative).to(first.device)
        kinds: dict[tuple[str, bool], Fit] = {}
        for fit in fits:
            kinds.setdefault(_kind(fit), fit)
        self._begins = {kind: at * n for at, kind in enumerate(kinds)}
        shape = first.model.shape
        numbers = shape.window * shape.inputs + 2 * shape.horizon * shape.targets
        self._kept: Batch | None = None
        if n * numbers * len(kinds) <= _KEPT:
            every = torch.arange(n, dtype=torch.int32)
            self._kept = self._make([(fit, every) for fit in kinds.values()])
        self.steps = len(self._make([(first, torch.zeros(1, dtype=torch.int32))]).read[0])
        """That the layers read of a window: rows, or segments."""
        self.narrow(fits)

    def narrow(self, fits: Sequence[Fit]) -> None:
        """Make batches for these members alone from now on."""
        self._fits = list(fits)
        begins = [[self._begins[_kind(fit)]] for fit in fits]
        device = "cpu" if self._kept is None else self._kept.read.device
        self._first = torch.tensor(begins, dtype=torch.int64, device=device)  # (members, 1)

    def batch(self, samples: Tensor) -> Batch:
        """Return windows of each member, (members, batch) numbers below `n`."""
        if self._kept is None:
            return self._make(list(zip(self._fits, samples, strict=True)))
        kept = self._kept
        at = (samples.to(self._first.device) + self._first).flatten()
        weights = None if kept.weights is None else kept.weights.index_select(0, at)
        read, base, spread, targets = (
            part.index_select(0, at) for part in (kept.read, kept.base, kept.spread, kept.targets)
        )
        return Batch(read, base, spread, targets, weights)

    def _make(self, parts: Sequence[tuple[Fit, Tensor]]) -> Batch:
        """Make windows from some of each model's samples, one after another."""
        made: list[tuple[Tensor, ...]] = []
        weights: list[Tensor] = []
        for fit, samples in parts:
            for some in split(samples, _BATCH):
                index = self.index.index_select(0, some.to(self.index.device))
                made.append((*_read(fit, index), self._samples.targets(index)))
                if self._relative is not None:
                    weights.append(self._relative.index_select(0, some.to(self._relative.device)))
                elif (own := self._samples.weights(index)) is not None:
                    weights.append(own)
        read, base, spread, targets = (torch.cat(tensors) for tensors in zip(*made, strict=True))
        return Batch(read, base, spread, targets, torch.cat(weights) if weights else None)


def _kind(fit: Fit) -> tuple[str, bool]:
    return fit.parameters.normalize, fit.parameters.linear_path


@torch.no_grad()
def _read(fit: Fit, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the layers of a model read of samples, and base and spread of its outputs."""
    model, shape = fit.model, fit.model.shape
    x, _ = split_future(fit.samples.inputs(index)[0], shape)
    base = x.new_zeros(len(x), shape.horizon, shape.targets)
    spread, level = x.new_ones(len(x), 1, shape.targets), None
    if model.normalization is not None:
        x, level = model.normalization(x)
    if model.linear_path is not None:
        base = model.linear_path(x)
    if level is not None:
        base = level.denormalize(base)
        spread = spread if level.spread is None else level.spread
    x = x if model.decomposition is None else model.decomposition(x)
    return x if model.segments is None else model.segments.join(x), base, spread
