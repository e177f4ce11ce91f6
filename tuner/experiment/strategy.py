"""The strategies' options, one model each; `tuner.strategies` builds samplers from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tuner.experiment.model import Section

__all__ = [
    "ParticleSwarmStrategy",
    "RandomStrategy",
    "Strategy",
    "TPEStrategy",
    "WhaleStrategy",
]

_Batch = Annotated[int, Field(ge=1, le=10_000, strict=True)]
_Population = Annotated[int, Field(ge=2, le=10_000, strict=True)]


class RandomStrategy(Section):
    """Random search: every configuration is drawn on its own. The yardstick for the others."""

    name: Literal["random"] = "random"
    batch: _Batch = 4
    """Trials asked for before the first of them is told."""


class TPEStrategy(Section):
    """Tree-structured Parzen estimator (Optuna): models good and bad trials, picks the ratio."""

    name: Literal["tpe"] = "tpe"
    batch: _Batch = 4
    """Trials asked for before the first of them is told."""
    n_startup_trials: Annotated[int, Field(ge=0, strict=True)] = 10
    """Random trials before the model is trusted."""


class ParticleSwarmStrategy(Section):
    """Particle swarm (pyswarms): particles fly towards their own and the swarm's best."""

    name: Literal["pso"] = "pso"
    population: _Population = 10
    """Particles, and with that trials in a generation."""
    inertia: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.7298
    """Share of the velocity that is kept (w)."""
    c1: Annotated[float, Field(ge=0, le=4, strict=True)] = 1.49618
    """Pull of a particle's own best."""
    c2: Annotated[float, Field(ge=0, le=4, strict=True)] = 1.49618
    """Pull of the swarm's best."""
    velocity_clamp: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.5
    """Largest step in one dimension, as a share of its range."""


class WhaleStrategy(Section):
    """Whale optimization: whales encircle the leader, spiral towards it, or follow another."""

    name: Literal["woa"] = "woa"
    population: _Population = 10
    """Whales, and with that trials in a generation."""
    b: Annotated[float, Field(gt=0, le=10, strict=True)] = 1.0
    """Shape of the spiral."""
    a_start: Annotated[float, Field(gt=0, le=4, strict=True)] = 2.0
    """Where `a` starts; above 1, whales also search around one another."""
    a_end: Annotated[float, Field(ge=0, le=4, strict=True)] = 0.0
    """What `a` falls to."""

    @model_validator(mode="after")
    def _check(self) -> WhaleStrategy:
        if self.a_end > self.a_start:
            raise ValueError(
                f"a_end: must not be above a_start, {self.a_start}, got {self.a_end}; swap them?"
            )
        return self


Strategy = Annotated[
    RandomStrategy | TPEStrategy | ParticleSwarmStrategy | WhaleStrategy,
    Field(discriminator="name"),
]
