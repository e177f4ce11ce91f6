"""Whale optimization.

Mirjalili and Lewis, The Whale Optimization Algorithm, Advances in Engineering Software 95, 2016,
doi 10.1016/j.advengsoft.2016.01.008. Equation numbers are the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from optuna.distributions import BaseDistribution

from tuner.strategies import rng as keys
from tuner.strategies.codec import FloatArray
from tuner.strategies.population import Past, Record, SwarmSampler
from tuner.strategies.rng import require_number

__all__ = ["WhaleSampler", "move_whale"]


class WhaleSampler(SwarmSampler):
    """Whales encircle the best position so far, spiral towards it, or follow another whale.

    A and C are one number a whale, as in the authors' code; X_rand is one whale for all
    dimensions and l is uniform in [-1, 1], as in the paper. All whales move at once; what leaves
    the space is set on its edge; a whale always moves, also to a worse place.

    The algorithm is not shift-invariant: C pulls towards the origin of the coordinates (Deng and
    Liu, Expert Systems with Applications, 2024, doi 10.1016/j.eswa.2023.121544). The coordinates
    are [-1, 1], so the pull is to the middle of every range rather than to its lower bound.

    Args:
        population_size: Whales; see `GenerationalSampler`.
        n_generations: Generations G in which `a` falls from `a_start` towards `a_end`, as
            a_start - (a_start - a_end) (g mod G) / G in generation g; then it starts again.
            Generation 0 is the spread. See `GenerationalSampler`.
        b: Shape of the spiral, above 0 and at most 10; 1 in the authors' code.
        a_start: Where `a` starts, above 0 and at most 4; 2 in the paper. |A| reaches up to `a`,
            and whales follow one another only while it can reach 1.
        a_end: What `a` falls to without reaching it, from 0 to `a_start`; 0 in the paper.
        seed: See `GenerationalSampler`.
        search_space: See `GenerationalSampler`.
    """

    def __init__(
        self,
        *,
        population_size: int = 10,
        n_generations: int = 20,
        b: float = 1.0,
        a_start: float = 2.0,
        a_end: float = 0.0,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        super().__init__(
            population_size=population_size,
            n_generations=n_generations,
            seed=seed,
            search_space=search_space,
        )
        require_number(lambda v: 0 < v <= 10, "b", "above 0 and at most 10", b)
        require_number(lambda v: 0 < v <= 4, "a_start", "above 0 and at most 4", a_start)
        rule = f"from 0 to a_start ({a_start})"
        require_number(lambda v: 0 <= v <= a_start, "a_end", rule, a_end, default=0.0)
        self.b = float(b)
        self.a_start = float(a_start)
        self.a_end = float(a_end)

    def move(self, past: Past, generation: int, individual: int) -> Record:
        """Return where the whale swims next."""
        rng = keys.generator(self.seed, "woa", generation, individual)
        done = (generation % self.n_generations) / self.n_generations  # 0 <= done < 1
        a = self.a_start - (self.a_start - self.a_end) * done
        r1, r2, p = rng.random(3)
        A = 2 * a * r1 - a  # eq. 2.3
        C = 2 * r2  # eq. 2.4
        ell = rng.uniform(-1, 1)
        other = rng.integers(self.population_size)

        whales = 2 * past.positions - 1  # (individuals, n_columns), in [-1, 1]
        leader = 2 * past.leader - 1
        x = move_whale(whales[individual], leader, whales[other], A=A, C=C, p=p, ell=ell, b=self.b)
        return Record((np.clip(x, -1, 1) + 1) / 2)


def move_whale(
    x: FloatArray,
    leader: FloatArray,
    other: FloatArray,
    *,
    A: float,
    C: float,
    p: float,
    ell: float,
    b: float,
) -> FloatArray:
    """Return the next position of the whale at `x`, `(n_columns,)`, before it is clipped.

    Args:
        x: The whale.
        leader: The best position so far, X*.
        other: A random whale, X_rand.
        A: Step towards the leader or the other whale; from |A| = 1 on, the other.
        C: Weight of where the whale swims to; uniform in [0, 2].
        p: Uniform in [0, 1]: below a half encircle or search, else spiral.
        ell: Where on the spiral, uniform in [-1, 1]; l in the paper.
        b: Shape of the spiral.
    """
    if p >= 0.5:  # eq. 2.6
        distance = np.abs(leader - x)
        return distance * math.exp(b * ell) * math.cos(2 * math.pi * ell) + leader  # eq. 2.5
    prey = leader if abs(A) < 1 else other
    D = np.abs(C * prey - x)  # eq. 2.1, 2.7
    return prey - A * D  # eq. 2.2, 2.8
