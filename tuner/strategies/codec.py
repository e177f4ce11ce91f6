"""Configurations as points in the unit cube.

Swarms move in a continuous cube; a position is decoded for its trial. Discrete values get bins of
equal width, so that all are equally likely.
"""

from __future__ import annotations

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuner.errors import SpaceError
from tuner.strategies.base import FloatArray


class Codec:
    """Translates between parameters and positions in the unit cube.

    Columns stand in the order of the parameters' names. A parameter with a single value takes no
    column and is never decoded: Optuna fills it in. Raises ValueError for a float range whose
    width is no float.

    * float: linear, or in the logarithm for `log`;
    * int, float with `step`, and choices that are numbers in strictly rising or falling order:
      one bin of equal width each;
    * int with `log`: the logarithm over [low - 1/2, high + 1/2], rounded;
    * other choices: two bins for two of them, else one column each, of which the highest wins;
      bins for any number of them without `one_hot`.
    """

    def __init__(
        self, distributions: Mapping[str, BaseDistribution], *, one_hot: bool = True
    ) -> None:
        self.distributions = {
            name: distributions[name]
            for name in sorted(distributions)
            if not distributions[name].single()
        }
        self._scales: dict[str, tuple[_Scale, slice]] = {}
        self.n_columns = 0
        for name, distribution in self.distributions.items():
            scale = _scale_of(distribution, one_hot)
            if isinstance(scale, _Linear) and not math.isfinite(scale.high - scale.low):
                rule, key = "the range must fit in a float", f"search_space.{name}"
                remedy = "make it narrower"
                raise SpaceError(rule, key=key, got=distribution, remedy=remedy)
            columns = slice(self.n_columns, self.n_columns + scale.width)
            self._scales[name] = (scale, columns)
            self.n_columns += scale.width

    @functools.cached_property
    def digest(self) -> str:
        """Identifies this space; the same in every process."""
        return hashlib.sha256(repr(self.distributions).encode()).hexdigest()[:16]

    def decode(self, position: FloatArray) -> dict[str, Any]:
        """Return the parameters at a position, `(n_columns,)`, as values of their distributions."""
        z = position.tolist()
        return {name: scale.decode(z[columns]) for name, (scale, columns) in self._scales.items()}

    def encode(self, params: Mapping[str, Any]) -> FloatArray:
        """Return the position of parameters: of a bin, its centre; outside the space, its edge.

        Raises KeyError for a missing parameter and ValueError for an unknown choice.
        """
        z = [x for name, (scale, _) in self._scales.items() for x in scale.encode(params[name])]
        return np.clip(np.array(z, dtype=np.float64), 0.0, 1.0)

    def snap(self, positions: FloatArray) -> FloatArray:
        """Return each position's configuration as one position, `(n, n_columns)` as given.

        Where positions decode to the same discrete values they are equal afterwards: the centre
        of the bin, the column of the choice. What is continuous stays as it is.
        """
        parts = [scale.snap(positions[:, columns]) for scale, columns in self._scales.values()]
        return np.hstack(parts) if parts else positions


def count_of(distribution: BaseDistribution) -> int | None:
    """Return the number of values of a distribution; None for a continuum."""
    bins = _bins(distribution)
    return None if bins is None else bins.n


def values_of(distribution: BaseDistribution) -> list[Any] | None:
    """Return every value of a distribution, in order; None for a continuum."""
    bins = _bins(distribution)
    return None if bins is None else [bins.value(i) for i in range(bins.n)]


class _Scale(ABC):
    """How one parameter lies in its columns, each from 0 to 1."""

    width = 1

    @abstractmethod
    def decode(self, z: list[float]) -> Any: ...

    @abstractmethod
    def encode(self, value: Any) -> list[float]: ...

    def snap(self, z: FloatArray) -> FloatArray:
        """Return columns, `(n, width)`, that are equal where the decoded values are."""
        return z


@dataclass(frozen=True)
class _Linear(_Scale):
    low: float
    high: float

    def decode(self, z: list[float]) -> float:
        return min(max(self.low + z[0] * (self.high - self.low), self.low), self.high)

    def encode(self, value: float) -> list[float]:
        return [(value - self.low) / (self.high - self.low)]


@dataclass(frozen=True)
class _Log(_Scale):
    low: float
    high: float

    def decode(self, z: list[float]) -> float:
        start, end = math.log(self.low), math.log(self.high)
        return min(max(math.exp(start + z[0] * (end - start)), self.low), self.high)

    def encode(self, value: float) -> list[float]:
        if value <= 0:
            return [0.0]
        start, end = math.log(self.low), math.log(self.high)
        return [(math.log(value) - start) / (end - start) if start < end else 0.0]


@dataclass(frozen=True)
class _LogInt(_Log):
    """The logarithm between the half numbers outside the bounds."""

    def decode(self, z: list[float]) -> int:
        value = round(super().decode(z))
        return min(max(value, round(self.low + 0.5)), round(self.high - 0.5))

    def snap(self, z: FloatArray) -> FloatArray:
        start, end = math.log(self.low), math.log(self.high)
        values = np.rint(np.exp(start + z * (end - start)))
        values = np.clip(values, self.low + 0.5, self.high - 0.5)
        return (np.log(values) - start) / (end - start)


@dataclass(frozen=True)
class _Bins(_Scale):
    """`n` values in order, one bin of equal width each."""

    n: int
    value: Callable[[int], Any]
    index: Callable[[Any], float]

    def decode(self, z: list[float]) -> Any:
        return self.value(min(int(z[0] * self.n), self.n - 1))

    def encode(self, value: Any) -> list[float]:
        return [(self.index(value) + 0.5) / self.n]

    def snap(self, z: FloatArray) -> FloatArray:
        n = float(self.n)  # it may exceed numpy's integers
        return (np.clip(np.floor(z * n), 0, n - 1) + 0.5) / n


class _OneHot(_Scale):
    """One column a choice; the highest wins, of equals the first."""

    def __init__(self, choices: CategoricalDistribution) -> None:
        self.choices = choices
        self.width = len(choices.choices)

    def decode(self, z: list[float]) -> Any:
        return self.choices.choices[z.index(max(z))]

    def encode(self, value: Any) -> list[float]:
        chosen = int(self.choices.to_internal_repr(value))
        return [float(i == chosen) for i in range(self.width)]

    def snap(self, z: FloatArray) -> FloatArray:
        highest: FloatArray = np.zeros_like(z)
        highest[np.arange(len(z)), z.argmax(axis=1)] = 1.0
        return highest


def _scale_of(distribution: BaseDistribution, one_hot: bool) -> _Scale:
    match distribution:
        case IntDistribution(log=True):
            return _LogInt(distribution.low - 0.5, distribution.high + 0.5)
        case FloatDistribution(log=True):
            return _Log(distribution.low, distribution.high)
        case FloatDistribution(step=None):
            return _Linear(distribution.low, distribution.high)
        case CategoricalDistribution() if one_hot and not (
            len(distribution.choices) == 2 or _is_ordered(distribution)
        ):
            return _OneHot(distribution)
    bins = _bins(distribution)
    assert bins is not None
    return bins


def _bins(distribution: BaseDistribution) -> _Bins | None:
    """Return the values in order: the choices, or low, low + step, ...; None for a continuum."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return _Bins(len(choices), choices.__getitem__, distribution.to_internal_repr)
        case FloatDistribution(step=None, low=low):
            return _Bins(1, lambda i: low, lambda value: 0) if distribution.single() else None
        case IntDistribution() | FloatDistribution():
            kind = int if isinstance(distribution, IntDistribution) else float
            low, step = _exact(distribution.low), _exact(distribution.step)
            return _Bins(
                n=int((_exact(distribution.high) - low) // step) + 1,
                value=lambda i: kind(low + i * step),
                index=lambda value: round(Fraction(_exact(value) - low) / Fraction(step)),
            )
    raise TypeError(f"no columns for {distribution}")


def _exact(number: Any) -> Any:
    """Return an exact number, a float as the decimal written: 0.1 * 3 is 0.3."""
    return number if isinstance(number, int) else Decimal(str(number))


def _is_ordered(distribution: CategoricalDistribution) -> bool:
    """Return whether the choices are numbers in strictly rising or falling order."""
    numbers = [choice for choice in distribution.choices if type(choice) in (int, float)]
    if len(numbers) < len(distribution.choices):
        return False
    steps = np.diff(np.array(numbers, dtype=np.float64))
    return bool((steps > 0).all() or (steps < 0).all())
