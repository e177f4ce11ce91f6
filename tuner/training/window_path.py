"""The weights of a linear path over windows: a ridge regression of the training windows."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tuner.data import SeriesRef, Shape
from tuner.training.decoder import InSegments, Recursive
from tuner.training.known_future import part
from tuner.training.linear_path import LinearPath
from tuner.training.model import Model
from tuner.training.ridge import Moments, Ridge, Rows
from tuner.training.samples import Samples, some_samples, split

__all__ = ["fit_path", "prior"]

_BATCH = 1024
_LONGEST = 2048  # inputs of a regression; of longer windows the older rows get no weight
_PRODUCTS = 4e10  # in the moments; of more windows some are taken
_RESIDUALS = 2**22
_OTHERS = (0.0, 0.1, 0.3, 1.0)  # spreads of the inputs that are not the target's own
_MARGIN = 0.04  # share of the squared error that they must take off
_NARROWEST = 1e-3  # between first quantiles, in scaled units


def prior(window: int, season: int, horizon: int) -> np.ndarray:
    """Return how far the weight of each row of a window is expected to be from 0, (window,).

    Up to a factor that the penalty is: one over the distance of the row from what is forecast, the
    harmonic decay of Litterman (1986), "Forecasting with Bayesian Vector Autoregressions". The
    same phase m seasons before is as near as m rows, for a season repeats itself as a level does;
    and a row is as near as it is to any step of the horizon.

    Args:
        window: rows.
        season: rows in a season; 1 without one.
        horizon: steps.
    """
    before = np.arange(window, 0, -1)[:, None] + np.arange(horizon)  # rows, of each step
    if season == 1:
        return np.asarray(1.0 / before.min(axis=1))
    seasons = np.stack([before // season, -(-before // season)])
    distances = np.abs(before - season * seasons) + seasons
    return np.asarray(1.0 / np.minimum(distances.min(axis=0), before).min(axis=1))


@torch.no_grad()
def fit_path(model: Model, samples: Samples, index: Tensor, data: SeriesRef) -> None:
    """Give the linear path of a forecast the weights of a ridge regression.

    It is fitted in the space in which the path works, scaled and normalized. A window weighs by
    the square of its spread there, as its error does in a loss that is taken after the inverse,
    and by the mean of its targets' weights; all targets count alike. Rows are penalized by how far
    away they are (`prior`): a long window does no harm where there are few of them; what is known
    of rows to come counts as the last row does. Columns beside the target's own count as much as
    is best for the last quarter of each series' training windows (`_regression`). The quantiles of
    a model that forecasts them begin as those of the regression's errors.

    Args:
        model: with a linear path.
        samples: the training split.
        index: the training windows.
        data: the split.
    """
    path, shape = model.linear_path, model.shape
    assert isinstance(path, LinearPath)
    n_inputs = min(len(path.own_inputs), _LONGEST)
    most = int(_PRODUCTS / (shape.targets * n_inputs**2))

    def rows(index: Tensor) -> Iterator[Rows]:
        for batch in split(index, _BATCH):
            x, _ = samples.inputs(batch)
            x, coming = part(x.double(), shape)
            y = samples.targets(batch).double()
            weights = torch.ones_like(y[:, :1])  # (batch, 1, targets)
            if model.normalization is not None:
                x, level = model.normalization(x)
                y = level.take_off(y)
                if level.spread is not None:
                    weights = level.spread.square()
            if (of_targets := samples.weights(batch)) is not None:
                weights = weights * of_targets.double().mean(dim=1)[:, None, None]
            windows = path.windows(x, coming)[:, :, -n_inputs:]  # (batch, targets, inputs)
            yield windows.flatten(0, 1), y.transpose(1, 2).flatten(0, 1), weights.flatten()

    def moments(index: Tensor) -> Moments:
        return Moments.of(lambda: rows(index))

    few = some_samples(index, most)
    near = prior(shape.window, data.season, shape.horizon)
    columns = (len(path.own_inputs) - path.n_coming) // shape.window
    near = np.append(np.tile(near, columns), np.ones(path.n_coming))[-n_inputs:]
    scale = torch.from_numpy(near).to(index.device)
    own = path.own_inputs[-n_inputs:].to(index.device)
    if own.all():
        found = moments(few).scaled(scale).ridge()
    else:
        parts = [moments(part) if len(part) else None for part in _in_time(few, data)]
        found, scale = _regression(parts, own, scale)
    weight = found.weight * scale
    path.linear.weight.zero_()
    path.linear.weight[:, -n_inputs:] = weight
    path.linear.bias.copy_(found.bias)
    if shape.quantiles:
        few = some_samples(index, _RESIDUALS // (shape.horizon * shape.targets))
        errors = [y - x @ weight.T - found.bias for x, y, _ in rows(few)]
        ahead = torch.cat(errors).cpu().numpy().reshape(-1, shape.targets, shape.horizon)
        bias = _quantile_bias(model.head, ahead.transpose(0, 2, 1), shape)
        model.last_layer.bias.copy_(torch.from_numpy(bias))


def _in_time(index: Tensor, data: SeriesRef) -> tuple[Tensor, Tensor, Tensor]:
    """Return, of each series, the last quarter of its windows, those before it, and between both.

    What is between are windows whose targets overlap the quarter's.
    """
    starts = index.cpu().numpy()
    _, first, of = np.unique(data.series_of(starts), return_index=True, return_inverse=True)
    ends = np.append(first[1:], len(starts))
    begin = starts[ends - np.maximum((ends - first) // 4, 1)][of]  # of the quarter, for each window
    late, early = starts >= begin, starts + data.shape.horizon <= begin

    def at(which: np.ndarray) -> Tensor:
        return index[torch.from_numpy(which).to(index.device)]

    return at(late), at(early), at(~late & ~early)


def _regression(
    parts: Sequence[Moments | None], own: Tensor, scale: Tensor
) -> tuple[Ridge, Tensor]:
    """Fit a regression whose other columns count as much as is best for later windows.

    What other columns say changes more often than how a series follows itself, which generalized
    cross-validation, whose rows are exchangeable, cannot see. So each share is fitted on early
    windows and judged on late ones; then all are fitted. A share of 1 is the target's own spread.

    Args:
        parts: moments of late windows, of early ones and of those between; None for no windows.
        own: which inputs are the target's own, (inputs,).
        scale: what these are multiplied by before they are penalized alike, (inputs,).

    Returns:
        The regression of scaled inputs, and what inputs are multiplied by.
    """
    late, early, _ = parts
    best = torch.where(own, scale, 0.0)
    if late is not None and early is not None:
        spread = early.xx.diagonal().sqrt()
        common = torch.where(spread > 0, spread[own].mean() / spread, 0.0)
        least = math.inf
        for share in _OTHERS:
            tried = torch.where(own, scale, share * common * scale)
            error = late.scaled(tried).error(early.scaled(tried).ridge())
            if error < least:
                best, least = tried, error
            if share == 0:
                least = error * (1 - _MARGIN)
    total = functools.reduce(operator.add, (part for part in parts if part is not None))
    return total.scaled(best).ridge(), best


def _quantile_bias(head: nn.Module, errors: np.ndarray, shape: Shape) -> np.ndarray:
    """Return the bias with which a head that puts out nothing else says the errors' quantiles.

    Args:
        head: of the model: it says all steps of the horizon, or so many at a time.
        errors: (windows, horizon, targets).
        shape: of the data.
    """
    at_once = shape.horizon
    if isinstance(head, Recursive):
        at_once = 1
    elif isinstance(head, InSegments):
        at_once = head.steps
    steps = np.arange(shape.horizon) % at_once
    numbers = np.empty((at_once, shape.targets, len(shape.quantiles)))
    for step in range(at_once):
        here = errors[:, steps == step] if step in steps else errors
        found = np.quantile(here, shape.quantiles, axis=(0, 1)).T  # (targets, quantiles)
        ups = np.diff(found, axis=1).clip(min=_NARROWEST)
        numbers[step] = np.concatenate((found[:, :1], ups + np.log(-np.expm1(-ups))), axis=1)
    return numbers.reshape(-1)
