"""Swarms: particle swarm optimization (on pyswarms), its quantum variant, whale optimization.

PSO: Kennedy and Eberhart, Particle swarm optimization, ICNN 1995, doi 10.1109/ICNN.1995.488968;
inertia and pulls of Clerc and Kennedy, 2002, doi 10.1109/4235.985692; pyswarms: Miranda, Journal
of Open Source Software 3(21), 2018, doi 10.21105/joss.00433.

QPSO: Sun, Fang, Wu, Palade and Xu, Quantum-Behaved Particle Swarm Optimization: Analysis of
Individual Particle Behavior and Parameter Selection, Evolutionary Computation 20(3), 2012, 349-393.

Whales: Mirjalili and Lewis, The Whale Optimization Algorithm, Advances in Engineering Software 95,
2016, doi 10.1016/j.advengsoft.2016.01.008. Equation numbers are the paper's.
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
import threading
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from tuner.errors import ExperimentError
from tuner.strategies.base import FloatArray, Past, Record, SwarmStrategy, Turn, check_order
from tuner.strategies.rng import generator, seed32

_Inertia = Annotated[float, Field(ge=0, lt=1, strict=True)]
_Pull = Annotated[float, Field(ge=0, le=4, strict=True)]
_Step = Annotated[float, Field(ge=-1, le=1, strict=True)]
_LOCK = threading.RLock()  # held while the environment is changed, or a shared part is used


class ParticleSwarmStrategy(SwarmStrategy):
    """Particle swarm (pyswarms): particles fly towards their own and the swarm's best.

    The update is that of `pyswarms.single.GlobalBestPSO` (star) or `LocalBestPSO` (ring) with
    reflecting bounds. A particle that never had a value has no best of its own: only what the
    others know pulls it. What is scheduled runs linearly from its first value towards its last
    one over the generations and then starts again (Shi and Eberhart, CEC 1999, doi
    10.1109/CEC.1999.785511; they let the inertia fall from 0.9 to 0.4); the first move takes the
    first value, as in pyswarms. The neighbours in a ring are pyswarms' Ring: the nearest in the
    space, found anew in every generation, which spreads good news more slowly.
    """

    name: Literal["pso"] = "pso"
    topology: Literal["star", "ring"] = "star"
    """Whose best pulls a particle: all particles', or its nearest neighbours'."""
    neighbors: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 3
    """Neighbours in the ring, the particle itself among them."""
    inertia: _Inertia = 0.7298
    """Share of the velocity that is kept (w)."""
    inertia_end: _Inertia | None = None
    """What the inertia runs to over the generations; constant without."""
    c1: _Pull = 1.49618
    """Pull of a particle's own best."""
    c1_end: _Pull | None = None
    """What `c1` runs to; constant without."""
    c2: _Pull = 1.49618
    """Pull of the swarm's best."""
    c2_end: _Pull | None = None
    """What `c2` runs to; constant without."""
    velocity_clamp: Annotated[float, Field(gt=0, le=1, strict=True)] | tuple[_Step, _Step] = 0.5
    """Largest step in one dimension, as a share of its range; or the least and the largest."""

    @model_validator(mode="after")
    def _check(self) -> ParticleSwarmStrategy:
        if self.topology == "ring":
            check_order(self, "neighbors", "population")
        match self.velocity_clamp:
            case (low, high) if low >= high:
                rule, got = "must be the least and then the largest", [low, high]
                raise ExperimentError(rule, key="velocity_clamp", got=got, remedy="swap them?")
        return self

    def least_population(self) -> int:
        return max(2, self.neighbors) if self.topology == "ring" else 2

    @property
    def clamp(self) -> tuple[float, float]:
        """The least and the largest velocity."""
        both = self.velocity_clamp
        return both if isinstance(both, tuple) else (-both, both)

    def spread(self, seed: int, generation: int, n_columns: int) -> list[Record]:
        """Return a generation spread over the cube, with random velocities within the clamp."""
        rng = generator(seed, "velocities", generation)
        velocities = rng.uniform(*self.clamp, (self.population, n_columns))
        places = super().spread(seed, generation, n_columns)
        return [Record(place.position, v) for place, v in zip(places, velocities, strict=True)]

    def move(self, past: Past, turn: Turn) -> Record:
        return self.move_all(past, turn)[turn.individual]

    def move_all(self, past: Past, turn: Turn) -> list[Record]:
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
        first = {"w": self.inertia, "c1": self.c1, "c2": self.c2}
        last = {"w": self.inertia_end, "c1": self.c1_end, "c2": self.c2_end}
        swarm.options = parts.schedule(
            first,
            end_opts={k: first[k] if end is None else end for k, end in last.items()},
            iternow=(turn.generation - 1) % turn.n_generations,
            itermax=turn.n_generations,
        )
        if self.topology == "ring":
            with _LOCK:  # the topology keeps its neighbours in itself
                swarm.best_pos, _ = parts.ring.compute_gbest(swarm, p=2, k=self.neighbors)
        else:
            swarm.best_pos, _ = parts.star.compute_gbest(swarm)
        key = (turn.generation, turn.candidate) if turn.candidate else (turn.generation,)
        compute_velocity = _drawing_from(
            parts.backend.compute_velocity,
            np.random.RandomState(seed32(turn.seed, "pso", *key)),
        )
        swarm.velocity = compute_velocity(swarm, self.clamp, parts.unmodified, bounds)
        swarm.position = parts.backend.compute_position(swarm, bounds, parts.reflect)
        return [Record(x, v) for x, v in zip(swarm.position, swarm.velocity, strict=True)]


@functools.cache
def _pyswarms() -> SimpleNamespace:
    """Import pyswarms' backend and make its parts: topologies, boundary, velocity, schedule.

    On import, and in the constructor of each part, pyswarms configures logging: it replaces the
    root logger's handlers and opens `report.log` in the current folder, unless LOG_CFG in the
    environment names a configuration; ours changes nothing.
    """
    with _LOCK, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "logging.yaml"
        config.write_text("{version: 1, incremental: true}")
        before = os.environ.get("LOG_CFG")
        os.environ["LOG_CFG"] = str(config)
        try:
            from pyswarms import backend
            from pyswarms.backend.topology import Ring, Star

            return SimpleNamespace(
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


def _drawing_from(function: Any, random: np.random.RandomState) -> Any:
    """Return a function of pyswarms that draws from `random`.

    By itself it draws from numpy's global generator, which an objective in another thread may
    use or seed at any moment. So it gets a numpy of its own.
    """
    return FunctionType(
        function.__code__,
        function.__globals__ | {"np": SimpleNamespace(**{**vars(np), "random": random})},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


class QuantumSwarmStrategy(SwarmStrategy):
    """Quantum particle swarm: particles jump around a point between their bests and the leader.

    There are no velocities: how far a particle jumps follows from its distance to the mean of
    all personal bests, so the swarm contracts by itself as the bests come together. What leaves
    the space is set on its edge. A particle that never had a value has no best of its own: it
    jumps around the swarm's, and does not count in the mean.

    Alpha, the contraction-expansion coefficient, falls over the generations G, as alpha_start -
    (alpha_start - alpha_end) (g mod G) / G in generation g; then it starts again. The defaults are
    those of Sun et al.; from 1.781 (e to the power of Euler's constant) on particles diverge.
    """

    name: Literal["qpso"] = "qpso"
    alpha_start: Annotated[float, Field(gt=0, le=1.7, strict=True)] = 1.0
    """Where alpha, how far particles jump, starts."""
    alpha_end: Annotated[float, Field(gt=0, le=1.7, strict=True)] = 0.5
    """What alpha falls to."""

    @model_validator(mode="after")
    def _check(self) -> QuantumSwarmStrategy:
        check_order(self, "alpha_end", "alpha_start")
        return self

    def move(self, past: Past, turn: Turn) -> Record:
        i, has_best = turn.individual, np.isfinite(past.best_costs)  # (individuals,)
        phi, u, coin = turn.rng("qpso").random((3, len(past.leader)))
        x = move_particle(
            past.positions[i],
            past.best_positions[i] if has_best[i] else past.leader,
            past.leader,
            past.best_positions[has_best].mean(axis=0),
            alpha=self.alpha_start - (self.alpha_start - self.alpha_end) * turn.done,
            phi=phi,
            jump=np.where(coin < 0.5, -1.0, 1.0) * np.log(1 / (1 - u)),
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
    jump: FloatArray,
) -> FloatArray:
    """Return the next position of the particle at `x`, `(n_columns,)`, before it is clipped.

    Args:
        x: X_i, the particle.
        own_best: P_i, its best position so far.
        leader: G, the best position of all.
        mean_best: C, the mean of all personal bests, in each dimension.
        alpha: the contraction-expansion coefficient.
        phi: uniform in [0, 1), for each dimension.
        jump: +-ln(1 / u) with u uniform in (0, 1] and a random sign, for each dimension.
    """
    attractor = phi * own_best + (1 - phi) * leader  # p_ij, with c1 = c2
    return attractor + alpha * np.abs(mean_best - x) * jump


class WhaleStrategy(SwarmStrategy):
    """Whale optimization: whales encircle the leader, spiral towards it, or follow another.

    A and C are one number a whale, as in the authors' code; X_rand is one whale for all
    dimensions and l is uniform in [-1, 1], as in the paper. All whales move at once; what leaves
    the space is set on its edge; a whale always moves, also to a worse place. `a` falls linearly
    over the generations G, as a_start - (a_start - a_end) (g mod G) / G in generation g; then it
    starts again. |A| reaches up to `a`, and whales follow one another only while it can reach 1.

    The algorithm is not shift-invariant: C pulls towards the origin of the coordinates (Deng and
    Liu, Expert Systems with Applications, 2024, doi 10.1016/j.eswa.2023.121544). The coordinates
    are [-1, 1], so the pull is to the middle of every range rather than to its lower bound.
    """

    name: Literal["woa"] = "woa"
    b: Annotated[float, Field(gt=0, le=10, strict=True)] = 1.0
    """Shape of the spiral."""
    a_start: Annotated[float, Field(gt=0, le=4, strict=True)] = 2.0
    """Where `a` starts; above 1, whales also search around one another."""
    a_end: Annotated[float, Field(ge=0, le=4, strict=True)] = 0.0
    """What `a` falls to."""

    @model_validator(mode="after")
    def _check(self) -> WhaleStrategy:
        check_order(self, "a_end", "a_start")
        return self

    def move(self, past: Past, turn: Turn) -> Record:
        rng = turn.rng("woa")
        a = self.a_start - (self.a_start - self.a_end) * turn.done
        r1, r2, p = rng.random(3)
        A = 2 * a * r1 - a  # eq. 2.3
        C = 2 * r2  # eq. 2.4
        ell = rng.uniform(-1, 1)
        other = rng.integers(self.population)

        whales = 2 * past.positions - 1  # (individuals, n_columns), in [-1, 1]
        leader = 2 * past.leader - 1
        x = self.step(whales[turn.individual], leader, whales[other], A=A, C=C, p=p, ell=ell)
        return Record((np.clip(x, -1, 1) + 1) / 2)

    def step(
        self,
        x: FloatArray,
        leader: FloatArray,
        other: FloatArray,
        *,
        A: float,
        C: float,
        p: float,
        ell: float,
    ) -> FloatArray:
        """Return the next position of the whale at `x`, `(n_columns,)`, before it is clipped.

        Args:
            x: the whale.
            leader: X*, the best position so far.
            other: X_rand, a random whale.
            A: step towards the leader or the other whale; from |A| = 1 on, the other.
            C: weight of the position that the whale swims to; uniform in [0, 2].
            p: uniform in [0, 1]: below a half encircle or search, else spiral.
            ell: l, the place on the spiral, uniform in [-1, 1].
        """
        if p >= 0.5:  # eq. 2.6, 2.5
            distance = np.abs(leader - x)
            return distance * math.exp(self.b * ell) * math.cos(2 * math.pi * ell) + leader
        prey = leader if abs(A) < 1 else other
        D = np.abs(C * prey - x)  # eq. 2.1, 2.7
        return prey - A * D  # eq. 2.2, 2.8
