"""Every strategy by its name: tuner's own, and those of installed packages.

A new one is a file with a `Strategy` and its class in the list here. A package elsewhere names its
class as an entry point of the group `tuner.strategies`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from tuner.errors import ExperimentError, one_line
from tuner.strategies.base import Strategy
from tuner.strategies.cma import CmaEsStrategy
from tuner.strategies.grid import BruteForceStrategy, GridStrategy
from tuner.strategies.model_based import GPStrategy, RandomStrategy, TPEStrategy
from tuner.strategies.nsga2 import Nsga2Strategy
from tuner.strategies.pso import ParticleSwarmStrategy, QuantumSwarmStrategy
from tuner.strategies.quasi_random import QuasiRandomStrategy
from tuner.strategies.woa import WhaleStrategy

GROUP = "tuner.strategies"
"""The entry points with which installed packages offer strategies."""

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.model_fields["name"].default: strategy
    for strategy in (
        RandomStrategy,
        TPEStrategy,
        CmaEsStrategy,
        GPStrategy,
        QuasiRandomStrategy,
        GridStrategy,
        BruteForceStrategy,
        ParticleSwarmStrategy,
        QuantumSwarmStrategy,
        WhaleStrategy,
        Nsga2Strategy,
    )
}
"""Tuner's strategies, in the order in which they are listed."""


def installed_names() -> list[str]:
    """Return the names of the strategies that installed packages offer."""
    return sorted({found.name for found in entry_points(group=GROUP)} - STRATEGIES.keys())


def every_strategy() -> dict[str, type[Strategy]]:
    """Return tuner's strategies, then those of installed packages, by name.

    Raises:
        ExperimentError: See `installed`.
    """
    found = {name: installed(name) for name in installed_names()}
    return STRATEGIES | {name: strategy for name, strategy in found.items() if strategy}


def installed(name: Any) -> type[Strategy] | None:
    """Return the strategy that an installed package offers under this name; None if none does.

    Raises:
        ExperimentError: It cannot be imported, or is no `Strategy` of this name.
    """
    if not isinstance(name, str) or name not in installed_names():
        return None
    found = next(iter(entry_points(group=GROUP, name=name)))
    try:
        strategy = found.load()
    except Exception as error:  # whatever the package does
        got = f"{name!r} of {found.value}: {one_line(error)}"
        raise ExperimentError("cannot be imported", got=got, remedy="correct the package") from None
    if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
        rule = "must be a tuner.strategies.Strategy"
        raise ExperimentError(rule, got=found.value, remedy="correct it")
    if (own := strategy.model_fields["name"].default) != name:
        rule = f"must have the name of its entry point, {name!r}"
        raise ExperimentError(rule, got=repr(own), remedy="rename it")
    return strategy
