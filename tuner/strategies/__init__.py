"""Strategies: what decides which configuration is tried next; each one is an Optuna sampler.

A strategy keeps its state in the trials' records and nowhere else, so a search that was killed
resumes as if it had not been.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tuner.errors import nearest
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
from tuner.strategies.registry import STRATEGIES

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

# What needs Optuna is imported when it is first asked for: listing strategies stays quick.
_SAMPLERS = ("ParticleSwarmSampler", "QuantumSwarmSampler", "WhaleSampler")


def __getattr__(name: str) -> Any:
    """Return what is imported later, or offer the nearest name."""
    if name in _SAMPLERS:
        return getattr(importlib.import_module("tuner.strategies.population"), name)
    hint = nearest(name, __all__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; {hint}")


def __dir__() -> list[str]:
    return list(__all__)
