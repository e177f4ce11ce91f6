"""From what a model puts out back to the data's units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.data.transforms import NO_TRANSFORM, Transform

__all__ = ["to_units", "unscaled"]


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
        scale: likewise.
        transform: of the targets, with what is fitted.
        history: the truth before each sample; see `Transform.inverse`.

    Returns:
        The same shape, float64; infinite where a prediction is absurd.
    """
    return np.asarray(transform.inverse(unscaled(outputs, offset, scale), history))


def unscaled(
    outputs: np.ndarray,
    offset: Sequence[float] | np.ndarray,
    scale: Sequence[float] | np.ndarray,
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
