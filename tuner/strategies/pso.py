"""Particle swarm optimization, on pyswarms, and its quantum-behaved variant.

Kennedy and Eberhart, Particle swarm optimization, ICNN 1995, doi 10.1109/ICNN.1995.488968; inertia
and pulls of Clerc and Kennedy, 2002, doi 10.1109/4235.985692; pyswarms: Miranda, Journal of
Open Source Software 3(21), 2018, doi 10.21105/joss.00433.

Sun, Fang, Wu, Palade and Xu, Quantum-Behaved Particle Swarm Optimization: Analysis of Individual
Particle Behavior and Parameter Selection, Evolutionary Computation 20(3), 2012, 349-393.
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import BaseDistribution

from tuner.strategies import rng as keys
from tuner.strategies.codec import FloatArray
from tuner.strategies.population import Past, Record, SwarmSampler
from tuner.strategies.rng import is_number, require, require_int, require_number

__all__ = ["ParticleSwarmSampler", "QuantumSwarmSampler", "move_particle"]

_LOCK = threading.RLock()

"""Held while the environment is not as others left it, and while a shared part is used."""


class ParticleSwarmSampler(SwarmSampler):
    """Particles keep part of their velocity and are pulled to their own and the swarm's best.

    The update is that of `pyswarms.single.GlobalBestPSO` (star) or `LocalBestPSO` (ring) with
    reflecting bounds. A particle that never had a value has no best of its own: only what the
    others know pulls it. What is scheduled runs linearly from its first value towards its last
    one over `n_generations` generations and then starts again (Shi and Eberhart, CEC 1999, doi
    10.1109/CEC.1999.785511); the first move takes the first value, as in pyswarms.

    Args:
        population_size: Particles; see `GenerationalSampler`.
        n_generations: Generations in which the schedules run; see `GenerationalSampler`.
        inertia: Share of the velocity that is kept (w), from 0 to below 1; by default the
            0.7298 of Clerc and Kennedy.
        inertia_end: What the inertia runs to, from 0 to below 1; None, the default, keeps it
            constant. Shi and Eberhart let it fall from 0.9 to 0.4.
        c1: Pull of a particle's own best, from 0 to 4; by default 1.49618 (Clerc and Kennedy).
        c1_end: What `c1` runs to, from 0 to 4; None, the default, keeps it constant.
        c2: Pull of the best of all (star) or of the neighbours (ring), from 0 to 4; by default
            1.49618 (Clerc and Kennedy).
        c2_end: What `c2` runs to, from 0 to 4; None, the default, keeps it constant.
        velocity_clamp: Largest step in one dimension as a share of its range, above 0 and at
            most 1; or the least and the largest, from -1 to 1, the first below the second; by
            default 0.5.
        topology: Whose best pulls a particle: "star", the default, all particles' (Kennedy and
            Eberhart); "ring", its nearest neighbours' (pyswarms' Ring: nearest in the space,
            found anew in every generation), which spreads good news more slowly.
        neighbors: Neighbours in the ring, the particle itself among them, from 1 to
            `population_size`; by default 3. A star takes no notice of it.
        seed: See `GenerationalSampler`.
        search_space: See `GenerationalSampler`.
    """

    def __init__(
        self,
        *,
        population_size: int = 10,
        n_generations: int = 20,
        inertia: float = 0.7298,
        inertia_end: float | None = None,
        c1: float = 1.49618,
        c1_end: float | None = None,
        c2: float = 1.49618,
        c2_end: float | None = None,
        velocity_clamp: float | tuple[float, float] = 0.5,
        topology: str = "star",
        neighbors: int = 3,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        super().__init__(
            population_size=population_size,
            n_generations=n_generations,
            seed=seed,
            search_space=search_space,
        )
        inertia_end = inertia if inertia_end is None else inertia_end
        c1_end = c1 if c1_end is None else c1_end
        c2_end = c2 if c2_end is None else c2_end
        for name, w in (("inertia", inertia), ("inertia_end", inertia_end)):
            require_number(lambda v: 0 <= v < 1, name, "from 0 to below 1", w)
        for name, c in (("c1", c1), ("c1_end", c1_end), ("c2", c2), ("c2_end", c2_end)):
            require_number(lambda v: 0 <= v <= 4, name, "from 0 to 4", c)
        known = isinstance(topology, str) and topology in ("star", "ring")
        require(known, "topology", "'star' or 'ring'", topology)
        most = population_size if topology == "ring" else math.inf
        rule = f"from 1 to population_size ({population_size})"
        require_int(lambda n: 1 <= n <= most, "neighbors", rule, neighbors, default=3)
        self.inertia = float(inertia)
        self.inertia_end = float(inertia_end)
        self.c1 = float(c1)
        self.c1_end = float(c1_end)
        self.c2 = float(c2)
        self.c2_end = float(c2_end)
        self.velocity_clamp = _clamp_of(velocity_clamp)
        self.topology = topology
        self.neighbors = int(neighbors)

    def spread(self, generation: int, n_columns: int) -> list[Record]:
        """Return a generation spread over the cube, with random velocities within the clamp."""
        rng = keys.generator(self.seed, "velocities", generation)
        velocities = rng.uniform(*self.velocity_clamp, (self.population_size, n_columns))
        return [
            Record(record.position, velocity)
            for record, velocity in zip(
                super().spread(generation, n_columns), velocities, strict=True
            )
        ]

    def move(self, past: Past, generation: int, individual: int) -> Record:
        """Return where the particle flies next, and how fast."""
        parts = _pyswarms()
        n_columns = len(past.leader)
        bounds = (np.zeros(n_columns), np.ones(n_columns))
        has_best = np.isfinite(past.best_costs)[:, np.newaxis]
        swarm = parts.backend.Swarm(
            position=past.positions,
            velocity=np.array([record.velocity for record in past.latest], dtype=np.float64),
            pbest_pos=np.where(has_best, past.best_positions, past.positions),
            pbest_cost=past.best_costs,
            best_pos=past.leader,
            best_cost=past.leader_cost,
        )
        swarm.options = parts.schedule(
            {"w": self.inertia, "c1": self.c1, "c2": self.c2},
            end_opts={"w": self.inertia_end, "c1": self.c1_end, "c2": self.c2_end},
            iternow=(generation - 1) % self.n_generations,
            itermax=self.n_generations,
        )
        if self.topology == "ring":
            with _LOCK:  # the topology keeps its neighbours in itself
                swarm.best_pos, _ = parts.ring.compute_gbest(swarm, p=2, k=self.neighbors)
        else:
            swarm.best_pos, _ = parts.star.compute_gbest(swarm)
        compute_velocity = _drawing_from(
            parts.backend.compute_velocity,
            np.random.RandomState(keys.seed32(self.seed, "pso", generation)),
        )
        swarm.velocity = compute_velocity(swarm, self.velocity_clamp, parts.unmodified, bounds)
        swarm.position = parts.backend.compute_position(swarm, bounds, parts.reflect)
        return Record(swarm.position[individual], swarm.velocity[individual])


def _clamp_of(velocity_clamp: float | Sequence[float]) -> tuple[float, float]:
    """Return the least and the largest velocity; raise ValueError where there are none."""
    name, both = "velocity_clamp", velocity_clamp
    if not isinstance(both, Sequence) or isinstance(both, str | bytes | bytearray):
        rule = "above 0 and at most 1, or (min, max)"
        require_number(lambda v: 0 < v <= 1, name, rule, both)
        return -float(both), float(both)
    holds = len(both) == 2 and all(map(is_number, both)) and -1 <= both[0] < both[1] <= 1
    require(holds, name, "a number, or (min, max) with -1 <= min < max <= 1", both)
    return float(both[0]), float(both[1])


class _Parts(NamedTuple):
    """What is used of pyswarms."""

    backend: Any
    star: Any
    ring: Any
    reflect: Any
    unmodified: Any
    schedule: Any


@functools.cache
def _pyswarms() -> _Parts:
    """Import pyswarms' backend and make its parts: topologies, boundary, velocity, schedule.

    On import, and in the constructor of each part, pyswarms configures logging: it replaces the
    root logger's handlers and opens `report.log` in the current folder, unless the environment
    variable LOG_CFG names a configuration; ours changes nothing.
    """
    with _LOCK, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "logging.yaml"
        config.write_text("{version: 1, incremental: true}")
        before = os.environ.get("LOG_CFG")
        os.environ["LOG_CFG"] = str(config)
        try:
            from pyswarms import backend
            from pyswarms.backend.topology import Ring, Star

            return _Parts(
                backend=backend,
                star=Star(),
                ring=Ring(static=False),
                reflect=backend.BoundaryHandler(strategy="reflective"),
                unmodified=backend.VelocityHandler(strategy="unmodified"),
                schedule=backend.OptionsHandler(
                    strategy=dict.fromkeys(("w", "c1", "c2"), "lin_variation")
                ),
            )
        finally:
            if before is None:
                del os.environ["LOG_CFG"]
            else:
                os.environ["LOG_CFG"] = before


class _Numpy:
    """The module numpy with another random generator."""

    def __init__(self, random: np.random.RandomState) -> None:
        self.random = random

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _drawing_from(function: Any, random: np.random.RandomState) -> Any:
    """Return a function of pyswarms that draws from `random`.

    Its own draws come from numpy's global generator, which an objective in another thread may
    use or seed at any moment; so it runs with a numpy of its own instead.
    """
    return FunctionType(
        function.__code__,
        function.__globals__ | {"np": _Numpy(random)},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


class QuantumSwarmSampler(SwarmSampler):
    """Particles jump around a point between their own and the swarm's best.

    There are no velocities: how far a particle jumps follows from its distance to the mean of
    all personal bests, so the swarm contracts by itself as the bests come together. What leaves
    the space is set on its edge. A particle that never had a value has no best of its own: it
    jumps around the swarm's, and does not count in the mean.

    Args:
        population_size: Particles; see `GenerationalSampler`.
        n_generations: Generations G in which alpha runs from `alpha_start` towards `alpha_end`,
            as alpha_start - (alpha_start - alpha_end) (g mod G) / G in generation g; then it
            starts again. Generation 0 is the spread. See `GenerationalSampler`.
        alpha_start: Where alpha, the contraction-expansion coefficient, starts: above 0 and at
            most 1.7, since from 1.781 (e to the power of Euler's constant) on particles
            diverge; by default the 1.0 of Sun et al.
        alpha_end: What alpha falls to without reaching it, above 0 and at most `alpha_start`;
            by default the 0.5 of Sun et al.
        seed: See `GenerationalSampler`.
        search_space: See `GenerationalSampler`.
    """

    def __init__(
        self,
        *,
        population_size: int = 10,
        n_generations: int = 20,
        alpha_start: float = 1.0,
        alpha_end: float = 0.5,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        super().__init__(
            population_size=population_size,
            n_generations=n_generations,
            seed=seed,
            search_space=search_space,
        )
        rule = "above 0 and at most 1.7"
        require_number(lambda v: 0 < v <= 1.7, "alpha_start", rule, alpha_start)
        rule = f"above 0 and at most alpha_start ({alpha_start})"
        require_number(lambda v: 0 < v <= alpha_start, "alpha_end", rule, alpha_end, default=0.5)
        self.alpha_start = float(alpha_start)
        self.alpha_end = float(alpha_end)

    def move(self, past: Past, generation: int, individual: int) -> Record:
        """Return where the particle jumps next."""
        rng = keys.generator(self.seed, "qpso", generation, individual)
        done = (generation % self.n_generations) / self.n_generations  # 0 <= done < 1
        has_best = np.isfinite(past.best_costs)  # (individuals,)
        own_best = past.best_positions[individual] if has_best[individual] else past.leader
        phi, u, coin = rng.random((3, len(past.leader)))
        x = move_particle(
            past.positions[individual],
            own_best,
            past.leader,
            past.best_positions[has_best].mean(axis=0),
            alpha=self.alpha_start - (self.alpha_start - self.alpha_end) * done,
            phi=phi,
            u=1 - u,
            sign=np.where(coin < 0.5, -1.0, 1.0),
        )
        return Record(np.clip(x, 0, 1))


def move_particle(
    x: FloatArray,
    own_best: FloatArray,
    leader: FloatArray,
    mean_best: FloatArray,
    *,
    alpha: float,
    phi: FloatArray,
    u: FloatArray,
    sign: FloatArray,
) -> FloatArray:
    """Return the next position of the particle at `x`, `(n_columns,)`, before it is clipped.

    Args:
        x: The particle, X_i.
        own_best: The best position that it has had, P_i.
        leader: The best position of all, G.
        mean_best: The mean of the personal bests, C, in each dimension.
        alpha: The contraction-expansion coefficient.
        phi: Uniform in [0, 1), for each dimension.
        u: Uniform in (0, 1], for each dimension.
        sign: -1 or 1 with equal probability, for each dimension.
    """
    attractor = phi * own_best + (1 - phi) * leader  # p_ij, with c1 = c2
    return attractor + sign * alpha * np.abs(mean_best - x) * np.log(1 / u)
