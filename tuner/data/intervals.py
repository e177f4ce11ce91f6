"""Prediction intervals by split conformal prediction.

How far a model lay off where it did not learn says how far it will lie off (Vovk, Gammerman and
Shafer 2005, *Algorithmic Learning in a Random World*; Lei et al. 2018, Distribution-free
predictive inference for regression, doi 10.1080/01621459.2017.1307116, algorithm 2). Of n
residuals |y - f(x)| the one of rank ceil((n + 1) * level) is the radius: if what comes is
exchangeable with what the residuals are of, f(x) +- radius covers it with a probability of at
least `level`, and of at most level + 1 / (n + 1) where no two residuals are alike. No model and
no distribution is assumed, but that the rows had no say in which model it is. Validation rows do:
they chose trial, finalists and epoch, so that their residuals are a little too small, and somewhat
less than `level` may be covered.

Each step of the horizon and each target has a radius of its own. It is one of the level space of
the transform, where the residuals are more alike: of log a factor, of the values around it. Where
each series has its own scale, it is in units of the scale that the series had at calibration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tuner.data.preprocessing import Transform
from tuner.data.reference import SeriesRef


@dataclass(frozen=True, eq=False)
class Intervals:
    """How far on both sides of a forecast the truth lies, with what probability."""

    levels: tuple[float, ...]  # rising
    radii: np.ndarray  # (levels, horizon, targets), in level space; rising along the first axis
    scales: np.ndarray | None = None  # (series, targets), of which the radii are multiples

    def scale_of(self, ref: SeriesRef, samples: np.ndarray) -> np.ndarray | float:
        """Return what the radii of samples are multiplied with, (samples, targets), or 1.

        It is the scale by which the residuals of the sample's series were divided, whatever a
        model that has learned other rows of the same series is scaled by.
        """
        return 1.0 if self.scales is None else self.scales[ref.series_of(samples)]

    def around(
        self, points: np.ndarray, transform: Transform, scale: np.ndarray | float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the intervals.

        Args:
            points: forecasts in the data's units, (samples, horizon, targets).
            scale: what the radii are multiplied with: of each sample's series, (samples, targets).

        Returns:
            Lower and upper ends in the data's units, (samples, horizon, targets, levels).
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            centre = transform.to_level(points)[..., None]
            radii = np.moveaxis(self.radii, 0, -1)[None] * _along(scale)[..., None]
            return transform.from_level(centre - radii), transform.from_level(centre + radii)

    def coverage(
        self,
        points: np.ndarray,
        truth: np.ndarray,
        transform: Transform,
        scale: np.ndarray | float = 1.0,
    ) -> list[dict[str, float | None]]:
        """Return for each level the share of the truth that lies within, and the mean width.

        Both are over all samples, steps and targets; a width is None where it is not finite.
        """
        lower, upper = self.around(points, transform, scale)
        with np.errstate(over="ignore", invalid="ignore"):
            inside = (lower <= truth[..., None]) & (truth[..., None] <= upper)
            widths = (upper - lower).mean(axis=(0, 1, 2))
        return [
            {
                "level": level,
                "coverage": float(inside[..., i].mean()),
                "width": float(widths[i]) if math.isfinite(widths[i]) else None,
            }
            for i, level in enumerate(self.levels)
        ]


def calibrated(levels: Sequence[float], ref: SeriesRef, points: np.ndarray) -> Intervals:
    """Return the intervals that the residuals of the evaluated windows give.

    Args:
        levels: rising; for each there are `fewest_residuals` windows at least.
        points: what the model says of it, in the data's units, (samples, horizon, targets).
    """
    samples = ref.evaluate_samples()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        level = ref.transform.to_level
        off = level(ref.truth_of(samples)) - level(points)
    scales = np.array(ref.load("scales")) if ref.own_scales else None
    scale = 1.0 if scales is None else scales[ref.series_of(samples)]
    return Intervals(tuple(levels), radii_of(np.abs(off) / _along(scale), levels), scales)


def radii_of(residuals: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Return of each level the residual of rank ceil((n + 1) * level), (levels, ...).

    Args:
        residuals: absolute ones, (n, ...); each place of the other axes is ranked by itself.
        levels: in (0, 1).

    Raises:
        ValueError: n is below `fewest_residuals`.
    """
    ranked = np.sort(residuals, axis=0)
    ranks = [_rank(level, len(ranked)) for level in levels]
    if ranks and max(ranks) > len(ranked):
        raise ValueError(f"{len(ranked)} residuals are too few for {max(levels)}")
    return np.stack([ranked[rank - 1] for rank in ranks])


def fewest_residuals(level: float) -> int:
    """Return the least n with ceil((n + 1) * level) <= n, which is level / (1 - level) or more."""
    exact = Fraction(str(level))
    return math.ceil(exact / (1 - exact))


def _rank(level: float, n: int) -> int:
    return math.ceil(Fraction(str(level)) * (n + 1))  # as it is written: 0.55 * 20 is 11


def _along(scale: np.ndarray | float) -> np.ndarray:
    scale = np.asarray(scale)
    return scale[:, None, :] if scale.ndim == 2 else scale.reshape(1, 1, 1)
