"""Quasi-random search, on SciPy: trial `number` gets point `number` of a sequence.

Optuna's own sampler counts in the study's attributes, which overlapping trials get wrong.

Owen, Journal of Complexity 14(4), 1998, doi 10.1006/jcom.1998.0487; Halton: Owen, 2017,
arXiv:1706.02808.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tuner.strategies import rng as keys
from tuner.strategies.base import BatchStrategy, FloatArray

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from tuner.strategies.base import Distributions

__all__ = ["QuasiRandomStrategy"]


class QuasiRandomStrategy(BatchStrategy):
    """Quasi-random search: a scrambled sequence that covers the space evenly."""

    name: Literal["qmc"] = "qmc"
    sequence: Literal["sobol", "halton"] = "sobol"
    """Which sequence; Sobol's is most even at powers of two."""

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        from tuner.strategies.codec import Codec
        from tuner.strategies.samplers import SpaceSampler

        codec = Codec(distributions, one_hot=False)

        def propose(study: Study, trial: FrozenTrial, space: Distributions) -> dict[str, Any]:
            return codec.decode(self._point(seed, trial.number, codec.n_columns))

        return SpaceSampler(distributions, propose, seed=seed)

    def _point(self, seed: int, number: int, n_columns: int) -> FloatArray:
        """Return point `number` of the sequence, `(n_columns,)`, in the unit cube."""
        from scipy.stats import qmc

        if not n_columns:
            return np.empty(0)
        engine = qmc.Sobol if self.sequence == "sobol" else qmc.Halton
        points = engine(n_columns, rng=keys.generator(seed, "quasi-random"))
        if number:
            points.fast_forward(number)
        point: FloatArray = points.random(1)[0]
        return point
