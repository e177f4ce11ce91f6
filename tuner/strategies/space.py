"""From an experiment's search space to Optuna's distributions."""

from __future__ import annotations

from decimal import Decimal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuner.experiment import Domain, FloatDomain, IntDomain, SearchSpace

__all__ = ["to_distributions"]


def to_distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions of a search space, in the order of the file.

    The order is for people: every strategy gives the same trials whatever the order. Where `high`
    is off the grid of a `step`, it becomes the grid's last value.
    """
    return {name: _to_distribution(domain) for name, domain in space.items()}


def _to_distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, IntDomain):
        high = domain.high - (domain.high - domain.low) % domain.step
        return IntDistribution(domain.low, high, log=domain.log, step=domain.step)
    if isinstance(domain, FloatDomain):
        high_on_grid = _last_on_grid(domain.low, domain.high, domain.step)
        return FloatDistribution(domain.low, high_on_grid, log=domain.log, step=domain.step)
    return CategoricalDistribution(domain.choices)


def _last_on_grid(low: float, high: float, step: float | None) -> float:
    """Return the last value of low, low + step, ... that is not above high, in decimals."""
    if step is None:
        return high
    reach = Decimal(str(high)) - Decimal(str(low))
    return float(Decimal(str(high)) - reach % Decimal(str(step)))
