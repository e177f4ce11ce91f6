"""CMA-ES, on cmaes.

Hansen, The CMA Evolution Strategy: A Tutorial, 2016, arXiv:1604.00772; cmaes: Nomura and
Shibata, 2024, arXiv:2402.01373.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from tuner.strategies.base import FloatArray, PopulationStrategy, Record, Turn
from tuner.strategies.rng import seed32

if TYPE_CHECKING:
    import cmaes


class CmaEsStrategy(PopulationStrategy):
    """CMA-ES (cmaes): draws from a normal distribution that learns shape and place.

    Its mean and covariance follow the better half of a generation. The distribution is fitted to
    all generations again, from the trials' records. Once it has converged (the criteria are those
    of cmaes), the search begins anew. The mean begins in the middle; the tutorial takes a
    population of 4 + floor(3 ln n) for n dimensions, and a `sigma` of 0.3.
    """

    name: Literal["cmaes"] = "cmaes"
    population: Annotated[int, Field(ge=4, le=10_000, strict=True)] = 10
    """Trials in a generation; by default fewer for under 40 trials."""
    sigma: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.3
    """Standard deviation at the beginning, as a share of each range."""

    def least_population(self) -> int:
        return 4

    def learn(
        self, past: cmaes.CMA | None, generation: int, records: list[Record], costs: FloatArray
    ) -> cmaes.CMA | None:
        """Return the distribution after one more generation; None where it has converged."""
        finite = np.isfinite(costs)
        if past is not None and not finite.any():
            return past
        optimizer = self._begin(len(records[0].position)) if past is None else copy.deepcopy(past)
        ranked = np.where(finite, costs, math.nextafter(costs[finite].max(), math.inf))
        optimizer.tell([(r.position, float(c)) for r, c in zip(records, ranked, strict=True)])
        return None if optimizer.should_stop() else optimizer

    def move(self, past: cmaes.CMA, turn: Turn) -> Record:
        optimizer = copy.deepcopy(past)  # to draw from it changes it
        optimizer.reseed_rng(seed32(turn.seed, "cmaes", turn.generation, turn.individual))
        return Record(np.clip(optimizer.ask(), 0, 1))

    def _begin(self, n_columns: int) -> cmaes.CMA:
        import cmaes

        return cmaes.CMA(
            mean=np.full(n_columns, 0.5),
            sigma=self.sigma,
            bounds=np.array([[0.0, 1.0]] * n_columns),
            population_size=self.population,
            seed=0,  # never drawn from
        )
