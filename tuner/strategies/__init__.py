"""Strategies: what decides which configuration is tried next; each one is an Optuna sampler.

A strategy keeps its state in the trials' records and nowhere else, so a search that was killed
goes on as if it had not been.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tuner.errors import nearest
from tuner.strategies.registry import STRATEGIES, Rhythm, Strategy, make_sampler, rhythm_of

if TYPE_CHECKING:
    from tuner.strategies.codec import to_distributions
    from tuner.strategies.pso import ParticleSwarmSampler, QuantumSwarmSampler
    from tuner.strategies.woa import WhaleSampler

__all__ = [
    "STRATEGIES",
    "ParticleSwarmSampler",
    "QuantumSwarmSampler",
    "Rhythm",
    "Strategy",
    "WhaleSampler",
    "make_sampler",
    "rhythm_of",
    "to_distributions",
]

# What needs Optuna is imported when it is first asked for: listing strategies stays quick.
_LATER = {
    "ParticleSwarmSampler": "tuner.strategies.pso",
    "QuantumSwarmSampler": "tuner.strategies.pso",
    "WhaleSampler": "tuner.strategies.woa",
    "to_distributions": "tuner.strategies.codec",
}


def __getattr__(name: str) -> Any:
    """Return what is imported later, or offer the nearest name."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{nearest(name, __all__)}")


def __dir__() -> list[str]:
    return list(__all__)
