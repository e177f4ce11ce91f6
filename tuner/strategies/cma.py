"""CMA-ES, on the package cmaes.

Hansen, The CMA Evolution Strategy: A Tutorial, 2016, arXiv:1604.00772; cmaes: Nomura and
Shibata, 2024, arXiv:2402.01373.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import cmaes
import numpy as np
from optuna.distributions import BaseDistribution

from tuner.strategies import keys
from tuner.strategies.checks import require_int, require_number
from tuner.strategies.codec import FloatArray
from tuner.strategies.generations import GenerationalSampler
from tuner.strategies.records import Record

__all__ = ["CmaSampler"]


class CmaSampler(GenerationalSampler[cmaes.CMA]):
    """A normal distribution whose mean and covariance follow the better half of a generation.

    The distribution is told every generation again, from the trials' records. Once it has
    converged (the criteria are those of cmaes), the search begins anew.

    Args:
        population_size: Trials in a generation, at least 4; see `GenerationalSampler`. The
            tutorial takes 4 + floor(3 ln n) for n dimensions.
        n_generations: Taken for the sake of one interface; there is no schedule.
        sigma: Standard deviation at the beginning as a share of each range, above 0 and at most
            1; by default the 0.3 of the tutorial. The mean begins in the middle.
        seed: See `GenerationalSampler`.
        search_space: See `GenerationalSampler`.
    """

    def __init__(
        self,
        *,
        population_size: int = 10,
        n_generations: int = 20,
        sigma: float = 0.3,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        require_int(lambda n: n >= 4, "population_size", "from 4 on", population_size)
        super().__init__(
            population_size=population_size,
            n_generations=n_generations,
            seed=seed,
            search_space=search_space,
        )
        require_number(lambda s: 0 < s <= 1, "sigma", "above 0 and at most 1", sigma)
        self.sigma = float(sigma)

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

    def move(self, past: cmaes.CMA, generation: int, individual: int) -> Record:
        """Return a draw from the distribution."""
        optimizer = copy.deepcopy(past)  # to draw from it changes it
        optimizer.reseed_rng(keys.seed32(self.seed, "cmaes", generation, individual))
        return Record(np.clip(optimizer.ask(), 0, 1))

    def _begin(self, n_columns: int) -> cmaes.CMA:
        return cmaes.CMA(
            mean=np.full(n_columns, 0.5),
            sigma=self.sigma,
            bounds=np.array([[0.0, 1.0]] * n_columns),
            population_size=self.population_size,
            seed=0,  # never drawn from
        )
