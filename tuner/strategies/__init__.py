"""Strategies: each makes an Optuna sampler, which proposes configurations.

A strategy keeps its state in the trials' records alone, so a killed search resumes as if it had
not been killed. A new strategy is a file with a `Strategy`, and its class in the list here; other
packages offer theirs as entry points of the group `tuner.strategies`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from tuner.errors import ExperimentError, nearest, one_line
from tuner.strategies.base import (
    BatchStrategy,
    Past,
    PopulationStrategy,
    Record,
    Rhythm,
    Strategy,
    SwarmStrategy,
    Turn,
)
from tuner.strategies.cma import CmaEsStrategy
from tuner.strategies.grid import BruteForceStrategy, GridStrategy, QuasiRandomStrategy
from tuner.strategies.optuna_strategies import (
    GPStrategy,
    Nsga2Strategy,
    RandomStrategy,
    TPEStrategy,
)
from tuner.strategies.swarms import ParticleSwarmStrategy, QuantumSwarmStrategy, WhaleStrategy

if TYPE_CHECKING:
    from tuner.strategies.population import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler

__all__ = [
    "STRATEGIES",
    "BatchStrategy",
    "ParticleSwarmSampler",
    "Past",
    "PopulationStrategy",
    "QuantumSwarmSampler",
    "Record",
    "Rhythm",
    "Strategy",
    "SwarmStrategy",
    "Turn",
    "WhaleSampler",
]

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
"""Tuner's strategies by name, in the order of `tuner strategies`."""


def installed_names() -> list[str]:
    """Return the names of the strategies that installed packages offer."""
    return sorted({found.name for found in entry_points(group=GROUP)} - STRATEGIES.keys())


def installed(name: Any) -> type[Strategy] | None:
    """Return the strategy that an installed package offers under this name; None if none does.

    Raises:
        ExperimentError: it cannot be imported, or is no `Strategy` of this name.
    """
    if not isinstance(name, str) or name in STRATEGIES or name not in installed_names():
        return None  # the names of packages are looked up last, as that takes 10 ms
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


def every_strategy() -> tuple[dict[str, type[Strategy]], list[ExperimentError]]:
    """Return all strategies by name, and the errors of installed ones that cannot be loaded."""
    found, errors = dict(STRATEGIES), []
    for name in installed_names():
        try:
            if (strategy := installed(name)) is not None:
                found[name] = strategy
        except ExperimentError as error:
            errors.append(error)
    return found, errors


# They import Optuna, so they are imported when first used: listing strategies stays quick.
_SAMPLERS = ("ParticleSwarmSampler", "QuantumSwarmSampler", "WhaleSampler")


def __getattr__(name: str) -> Any:
    """Import a sampler, or suggest the nearest name."""
    if name in _SAMPLERS:
        return getattr(importlib.import_module("tuner.strategies.population"), name)
    hint = nearest(name, __all__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; {hint}")


def __dir__() -> list[str]:
    return list(__all__)
