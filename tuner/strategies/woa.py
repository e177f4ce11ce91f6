"""Whale optimization.

Mirjalili and Lewis, The Whale Optimization Algorithm, Advances in Engineering Software 95, 2016,
doi 10.1016/j.advengsoft.2016.01.008. Equation numbers are the paper's.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from tuner.strategies.base import FloatArray, Past, Record, SwarmStrategy, Turn, check_order


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
        x = whales[turn.individual]
        x = move_whale(x, leader, whales[other], A=A, C=C, p=p, ell=ell, b=self.b)
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
