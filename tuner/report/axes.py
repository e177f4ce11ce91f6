"""How a hyperparameter's domain lies along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.coordination.records import StudyRecord, TrialRecord
from tuner.experiment import CategoricalDomain, Domain

__all__ = ["DomainAxis", "axes_of", "complete_trials", "has_all"]

_FEWEST_TICKS, _MOST_TICKS = 3, 6
_DECADE_PARTS = ((1,), (1, 3), (1, 2, 5))


@dataclass(frozen=True)
class DomainAxis:
    """A searched hyperparameter as an axis."""

    name: str
    domain: Domain

    @property
    def choices(self) -> list[Any] | None:
        """The values of a categorical one, in order."""
        return self.domain.choices if isinstance(self.domain, CategoricalDomain) else None

    @property
    def log(self) -> bool:
        """Whether its axis is logarithmic."""
        return not isinstance(self.domain, CategoricalDomain) and self.domain.log

    def number(self, value: Any) -> float:
        """Return where a value lies on the axis: itself, or the number of the choice."""
        if self.choices is None:
            return float(value)
        # 1, 1.0 and True are three choices.
        return float([(type(c), c) for c in self.choices].index((type(value), value)))

    def place(self, value: Any) -> float:
        """Return where a value lies between the ends of its domain, from 0 to 1."""
        return self._place(self.number(value))

    def ticks(self) -> list[tuple[float, str]]:
        """Return round values with their places from 0 to 1."""
        low, high = self._ends()
        if self.choices is not None:
            return [(self._place(i), str(choice)) for i, choice in enumerate(self.choices)]
        values = _round_logs(low, high) if self.log else _round_steps(low, high)
        return [(self._place(v), f"{v:.10g}" if 1e-3 <= v < 1e5 or not v else f"{v:g}")
                for v in values]  # fmt: skip

    def _ends(self) -> tuple[float, float]:
        if isinstance(self.domain, CategoricalDomain):
            return (0.0, len(self.domain.choices) - 1.0)
        return (float(self.domain.low), float(self.domain.high))

    def _place(self, number: float) -> float:
        low, high = self._ends()
        if self.log:
            low, high, number = math.log(low), math.log(high), math.log(number)
        return (number - low) / (high - low)


def axes_of(record: StudyRecord) -> list[DomainAxis]:
    """Return the axes of what was searched, in the order of the file."""
    space = record.experiment.search_space
    return [DomainAxis(name, domain) for name, domain in space.items() if domain.size() != 1]


def complete_trials(record: StudyRecord, axes: Sequence[DomainAxis]) -> list[TrialRecord]:
    """Return the trials with a place on every axis and a finite objective, best first."""
    ranked = record.ranked()
    return [
        t for t in ranked if has_all(t, axes) and t.value is not None and math.isfinite(t.value)
    ]


def has_all(trial: TrialRecord, axes: Sequence[DomainAxis]) -> bool:
    """Return whether a trial has a value on every axis; one that was lost may lack some."""
    return all(axis.name in trial.params for axis in axes)


def _round_steps(low: float, high: float) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten within the ends."""
    rough = (high - low) / (_MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))
    if float(low).is_integer() and float(high).is_integer() and high - low >= 1:
        step = max(1.0, step)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def _round_logs(low: float, high: float) -> list[float]:
    """Return powers of ten within the ends; where they are few, values between them too."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = [
        [float(f"{part}e{power}") for power in powers for part in parts] for parts in _DECADE_PARTS
    ]
    if high / low < 100:  # within two decades people read powers of two, of widths say
        exponents = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
        if low >= 1:
            candidates = [[2.0**e for e in exponents]]
    within = [[v for v in values if low <= v <= high] for values in candidates]
    few = [values for values in within if len(values) <= _MOST_TICKS + 1]
    if few and len(few[-1]) < _FEWEST_TICKS:
        return _round_steps(low, high)
    return few[-1] if few else within[0][:: math.ceil(len(within[0]) / _MOST_TICKS)]
