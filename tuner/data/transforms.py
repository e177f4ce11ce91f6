"""What is done to the target columns before scaling, and how it is undone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.transform_steps import POINTWISE, Step, differences_of, steps_of

__all__ = ["LAMBDAS", "NO_TRANSFORM", "Transform"]

LAMBDAS = (-1.0, 2.0)
"""Of the power of Box and Cox: beyond, next to nothing is left of the digits of values."""

_LEAST = 3  # distinct values that tell of a lambda


@dataclass(frozen=True)
class Transform:
    """A pointwise function of the values, then differences of what comes of it, in order.

    With f the function (the identity, the logarithm, or Box and Cox's power, 1964, eq. 1), L the
    lag operator and s_1, ..., s_k the rows that the differences reach back:
    z = (1 - L^s_k) ... (1 - L^s_1) f(y). `to_level` is f alone, which is monotone; `inverse` needs
    the s_1 + ... + s_k values of y before the first z that it is given.

    Arrays have the targets as their second axis, (rows, targets), or as their third one,
    (samples, horizon, targets), for quantiles with a last axis more.
    """

    pointwise: str = "none"  # none, log or box_cox
    differences: tuple[int, ...] = ()  # rows that each reaches back, in the order of their making
    lambdas: tuple[float, ...] = ()  # of box_cox: of each target, or () before they are fitted

    @classmethod
    def of(cls, value: Step | list[Step], lambdas: Sequence[float] = ()) -> Transform:
        """Return the transform that `data.transform` says; of box_cox with known lambdas."""
        pointwise = [s for s in steps_of(value) if isinstance(s, str) and s in POINTWISE]
        return cls("".join(pointwise) or "none", tuple(differences_of(value)), tuple(lambdas))

    @property
    def lost_rows(self) -> int:
        """How many of a series' first rows have no transformed value."""
        return sum(self.differences)

    @property
    def is_positive(self) -> bool:
        """Whether it takes values above 0 alone."""
        return self.pointwise != "none"

    def fitted(self, rows: np.ndarray) -> Transform:
        """Return the transform with what is fitted to the training rows, (rows, targets).

        Box-Cox's lambda is that of the largest likelihood, from -1 to 2: beyond, rounding eats the
        values. It is 1, which leaves a column's shape, where there are too few distinct values.
        """
        if self.pointwise != "box_cox":
            return self
        return replace(self, lambdas=tuple(_fit_lambda(column) for column in rows.T))

    def forward(self, values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Transform series that stand one after another.

        Each row depends on itself and earlier rows of its series alone. The first `lost_rows` of a
        series are nan.

        Args:
            values: (rows, targets); above 0 where `is_positive`.
            bounds: (series, 2), the rows [start, end) of each series.
        """
        found = self.to_level(values)
        for rows in self.differences:
            found = _difference(found, bounds, rows)
        return found

    def inverse(self, outputs: np.ndarray, history: np.ndarray | None = None) -> np.ndarray:
        """Undo the transform over a horizon.

        Args:
            outputs: (samples, horizon, targets[, quantiles]), transformed.
            history: the true values of the `lost_rows` rows before each sample's first, in the
                data's units, (samples, lost_rows, targets); not needed without differences.

        Returns:
            The same shape, in the data's units; infinite where an output is absurd.
        """
        return self.from_level(self.without_differences(outputs, history))

    def without_differences(
        self, outputs: np.ndarray, history: np.ndarray | None = None
    ) -> np.ndarray:
        """Undo the differences alone, as `inverse` does: what is left is in level space."""
        if not self.differences:
            return outputs
        assert history is not None
        assert history.shape[1] == self.lost_rows
        known = self.to_level(history)  # rows before the first step, of what was last differenced
        before: list[np.ndarray] = []
        for rows in self.differences:
            before.append(known[:, -rows:])
            known = known[:, rows:] - known[:, :-rows]
        found = outputs
        for rows, last in zip(self.differences[::-1], before[::-1], strict=True):
            found = _undo_difference(found, last, rows)
        return found

    def to_level(self, values: np.ndarray) -> np.ndarray:
        """Return the pointwise function of values: monotone, each by itself."""
        if self.pointwise == "log":
            return np.asarray(np.log(values))
        if self.pointwise == "none":
            return values
        of = self._lambdas(values)
        powers = np.where(of == 0, 1.0, of)
        logs = np.log(values)
        return np.asarray(np.where(of == 0, logs, np.expm1(powers * logs) / powers))

    def from_level(self, values: np.ndarray) -> np.ndarray:
        """Undo `to_level`. What no value comes to is 0 or infinite, at the end that is nearer."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self.pointwise == "log":
                return np.asarray(np.exp(values))
            if self.pointwise == "none":
                return values
            of = self._lambdas(values)
            powers = np.where(of == 0, 1.0, of)
            logs = np.log1p(np.maximum(powers * values, -1.0)) / powers
            return np.asarray(np.exp(np.where(of == 0, values, logs)))

    def _lambdas(self, values: np.ndarray) -> np.ndarray:
        """Return the lambdas in a shape that goes with values; 1 before they are fitted."""
        axis = 1 if values.ndim == 2 else 2
        of = self.lambdas or (1.0,) * values.shape[axis]
        return np.reshape(of, (-1, *(1,) * (values.ndim - 1 - axis)))


NO_TRANSFORM = Transform()


def _difference(values: np.ndarray, bounds: np.ndarray, rows: int) -> np.ndarray:
    """Return values less those so many rows before in their series, nan where there are none."""
    found = np.full(values.shape, np.nan)
    found[rows:] = values[rows:] - values[:-rows]
    for start, end in bounds:
        found[start : min(start + rows, end)] = np.nan
    return found


def _undo_difference(outputs: np.ndarray, last: np.ndarray, rows: int) -> np.ndarray:
    """Add differences up over the horizon, each phase of the season by itself.

    Args:
        outputs: (samples, horizon, targets[, quantiles]).
        last: (samples, rows, targets), what comes before.
        rows: that the difference reaches back.
    """
    found = np.empty(outputs.shape)
    trailing = (1,) * (outputs.ndim - 3)  # quantiles
    with np.errstate(over="ignore", invalid="ignore"):
        for phase in range(min(rows, outputs.shape[1])):
            begin = last[:, phase].reshape(len(last), 1, -1, *trailing)
            found[:, phase::rows] = begin + outputs[:, phase::rows].cumsum(axis=1)
    return found


def _fit_lambda(column: np.ndarray) -> float:
    from scipy.stats import boxcox  # half a second, and seldom needed

    # The likelihood's maximum does not depend on the unit; around 1 nothing overflows.
    logs = np.log(column)
    scaled = np.exp(logs - logs.mean())
    if len(np.unique(scaled)) < _LEAST:
        return 1.0
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a likelihood that is flat
        _, fitted = boxcox(scaled)
    return float(np.clip(fitted, *LAMBDAS)) if np.isfinite(fitted) else 1.0
