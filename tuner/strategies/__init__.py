"""Strategies: what decides which configuration is tried next; each one is an Optuna sampler.

A strategy keeps its state in the trials' records and nowhere else, so a search that was killed
goes on as if it had not been.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.strategies.registry import STRATEGIES, Rhythm, Strategy, make_sampler, rhythm_of

if TYPE_CHECKING:
    from tuner.strategies.pso import ParticleSwarmSampler
    from tuner.strategies.qpso import QuantumSwarmSampler
    from tuner.strategies.space import to_distributions
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


def __getattr__(name: str) -> Any:
    """Import what needs Optuna when it is first asked for: listing strategies stays quick."""
    if name == "ParticleSwarmSampler":
        from tuner.strategies.pso import ParticleSwarmSampler

        return ParticleSwarmSampler
    if name == "QuantumSwarmSampler":
        from tuner.strategies.qpso import QuantumSwarmSampler

        return QuantumSwarmSampler
    if name == "WhaleSampler":
        from tuner.strategies.woa import WhaleSampler

        return WhaleSampler
    if name == "to_distributions":
        from tuner.strategies.space import to_distributions

        return to_distributions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
