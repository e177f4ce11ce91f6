"""Quantum-behaved particle swarm.

Sun, Fang, Wu, Palade and Xu, Quantum-Behaved Particle Swarm Optimization: Analysis of Individual
Particle Behavior and Parameter Selection, Evolutionary Computation 20(3), 2012, 349-393.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from optuna.distributions import BaseDistribution

from tuner.strategies import keys
from tuner.strategies.checks import require_number
from tuner.strategies.codec import FloatArray
from tuner.strategies.records import Record
from tuner.strategies.swarm import Past, SwarmSampler

__all__ = ["QuantumSwarmSampler", "move_particle"]


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
