"""Test functions in six dimensions, with the optimum where one puts it.

The strategies see a unit cube; a function of z, zero at the optimum, is z = width * (x - optimum).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

N_DIMENSIONS = 6


@dataclass(frozen=True)
class Function:
    """A function whose least value is 0, at 0."""

    formula: Callable[[np.ndarray], float]
    width: float  # of its box, in its own units


def sphere(z: np.ndarray) -> float:
    return float(np.sum(z**2))


def rosenbrock(z: np.ndarray) -> float:
    y = z + 1
    return float(np.sum(100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2))


def rastrigin(z: np.ndarray) -> float:
    return float(np.sum(z**2 - 10 * np.cos(2 * np.pi * z) + 10))


def ackley(z: np.ndarray) -> float:
    far = 20 - 20 * np.exp(-0.2 * np.sqrt(np.mean(z**2)))
    return float(far + np.e - np.exp(np.mean(np.cos(2 * np.pi * z))))


FUNCTIONS = {
    "sphere": Function(sphere, 1.0),
    "rosenbrock": Function(rosenbrock, 4.096),
    "rastrigin": Function(rastrigin, 10.24),
    "ackley": Function(ackley, 10.0),
}

_ROLE = 104  # keys this generator apart from those of the strategies


def optimum_at(place: str, seed: int) -> np.ndarray:
    """Return where the optimum lies in the unit cube: (N_DIMENSIONS,).

    Args:
        place: `anywhere` (uniform, one draw a seed), `centre`, `quarter` (each coordinate 1/4),
            `three quarters`, or `mirrored`: anywhere, in the space reflected low to high.
        seed: of the draw.
    """
    fixed = {"centre": 0.5, "quarter": 0.25, "three quarters": 0.75}
    if place in fixed:
        return np.full(N_DIMENSIONS, fixed[place])
    drawn = np.random.default_rng([seed, _ROLE]).random(N_DIMENSIONS)
    return 1 - drawn if place == "mirrored" else drawn
