"""From what a model puts out back to the data's units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["to_units"]


def to_units(
    outputs: np.ndarray,
    offset: Sequence[float] | np.ndarray,
    scale: Sequence[float] | np.ndarray,
    *,
    transform: str = "none",
    last: np.ndarray | None = None,
) -> np.ndarray:
    """Undo the scaling of values or quantiles, and the transform of the targets.

    Args:
        outputs: (samples, horizon, targets), for quantiles with a last axis more.
        offset: (targets,), of the scaling: scaled = (transformed - offset) / scale.
        scale: (targets,).
        transform: none, log or difference.
        last: for difference the targets before the first step, (samples, targets).

    Returns:
        The same shape, float64; infinite where a prediction is absurd.
    """
    trailing = (1,) * (outputs.ndim - 3)  # quantiles
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(outputs, np.float64) * np.reshape(scale, (-1, *trailing))
        values += np.reshape(offset, (-1, *trailing))
        if transform == "log":
            np.exp(values, out=values)
        elif transform == "difference":
            assert last is not None
            values = last.reshape(len(last), 1, -1, *trailing) + values.cumsum(axis=1)
    return np.asarray(values)
