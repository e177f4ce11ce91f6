"""Particle swarm, on pyswarms' backend.

Kennedy and Eberhart, Particle swarm optimization, ICNN 1995, doi 10.1109/ICNN.1995.488968; inertia
and pulls of Clerc and Kennedy, 2002, doi 10.1109/4235.985692; pyswarms: Miranda, Journal of
Open Source Software 3(21), 2018, doi 10.21105/joss.00433.
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from tuner.strategies import keys
from tuner.strategies.records import Record
from tuner.strategies.swarm import Past, SwarmSampler, require

__all__ = ["ParticleSwarmSampler"]

_GLOBALS = threading.RLock()
"""Held while the environment or numpy's global generator is not as others left it."""


class ParticleSwarmSampler(SwarmSampler):
    """Particles keep part of their velocity and are pulled to their own and the swarm's best.

    The update is that of `pyswarms.single.GlobalBestPSO` with reflecting bounds. A particle that
    never had a value has no best of its own, and only the swarm's pulls it.

    Args:
        population_size: Particles; see `SwarmSampler`.
        n_generations: Taken for the sake of one interface; this swarm has no schedule.
        inertia: Share of the velocity that is kept (w), from 0 to below 1; by default the
            0.7298 of Clerc and Kennedy.
        c1: Pull of a particle's own best, from 0 to 4; by default 1.49618 (same source).
        c2: Pull of the swarm's best, from 0 to 4; by default 1.49618 (same source).
        velocity_clamp: Largest step in one dimension as a share of its range, above 0 and at
            most 1; by default 0.5.
        seed: See `SwarmSampler`.
        search_space: See `SwarmSampler`.
    """

    def __init__(
        self,
        *,
        population_size: int = 10,
        n_generations: int = 20,
        inertia: float = 0.7298,
        c1: float = 1.49618,
        c2: float = 1.49618,
        velocity_clamp: float = 0.5,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        super().__init__(
            population_size=population_size,
            n_generations=n_generations,
            seed=seed,
            search_space=search_space,
        )
        require(0 <= inertia < 1, "inertia", "from 0 to below 1", inertia)
        require(0 <= c1 <= 4, "c1", "from 0 to 4", c1)
        require(0 <= c2 <= 4, "c2", "from 0 to 4", c2)
        require(0 < velocity_clamp <= 1, "velocity_clamp", "above 0 and at most 1", velocity_clamp)
        self.inertia = inertia
        self.c1 = c1
        self.c2 = c2
        self.velocity_clamp = velocity_clamp

    def spread(self, generation: int, n_columns: int) -> list[Record]:
        """Return a generation spread over the cube, with random velocities within the clamp."""
        rng = keys.generator(self.seed, "velocities", generation)
        clamp = self.velocity_clamp
        velocities = rng.uniform(-clamp, clamp, (self.population_size, n_columns))
        return [
            Record(record.position, velocity)
            for record, velocity in zip(
                super().spread(generation, n_columns), velocities, strict=True
            )
        ]

    def move(self, past: Past, generation: int, individual: int) -> Record:
        """Return where the particle flies next, and how fast."""
        backend, star, reflect, unmodified = _pyswarms()
        n_columns = past.positions.shape[2]
        bounds = (np.zeros(n_columns), np.ones(n_columns))
        clamp = (-self.velocity_clamp, self.velocity_clamp)
        swarm = backend.Swarm(
            position=past.positions[0],
            velocity=np.array([record.velocity for record in past.last], dtype=np.float64),
            options={"w": self.inertia, "c1": self.c1, "c2": self.c2},
            pbest_cost=np.full(self.population_size, np.inf),
        )
        for positions, costs in zip(past.positions, past.costs, strict=True):
            swarm.position, swarm.current_cost = positions, costs
            swarm.pbest_pos, swarm.pbest_cost = backend.compute_pbest(swarm)
            swarm.best_pos, swarm.best_cost = star.compute_gbest(swarm)
        has_best = np.isfinite(swarm.pbest_cost)[:, np.newaxis]
        swarm.pbest_pos = np.where(has_best, swarm.pbest_pos, swarm.position)

        with _global_numpy_seeded(keys.seed32(self.seed, "pso", generation)):
            swarm.velocity = star.compute_velocity(swarm, clamp, unmodified, bounds)
            swarm.position = star.compute_position(swarm, bounds, reflect)
        return Record(swarm.position[individual], swarm.velocity[individual])


@functools.cache
def _pyswarms() -> tuple[Any, Any, Any, Any]:
    """Import pyswarms' backend and make its stateless parts: topology, boundary, velocity.

    On import, and in the constructor of each part, pyswarms configures logging: it replaces the
    root logger's handlers and opens `report.log` in the current folder, unless the environment
    variable LOG_CFG names a configuration; ours changes nothing.
    """
    with _GLOBALS, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "logging.yaml"
        config.write_text("{version: 1, incremental: true}")
        before = os.environ.get("LOG_CFG")
        os.environ["LOG_CFG"] = str(config)
        try:
            from pyswarms import backend
            from pyswarms.backend.topology import Star

            reflect = backend.BoundaryHandler(strategy="reflective")
            unmodified = backend.VelocityHandler(strategy="unmodified")
            return backend, Star(), reflect, unmodified
        finally:
            if before is None:
                del os.environ["LOG_CFG"]
            else:
                os.environ["LOG_CFG"] = before


@contextmanager
def _global_numpy_seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which pyswarms draws from, and put it back afterwards."""
    with _GLOBALS:
        before = np.random.get_state(legacy=False)  # noqa: NPY002
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
