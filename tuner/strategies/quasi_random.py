"""Quasi-random search, on SciPy: trial `number` gets point `number` of a sequence.

Optuna's own sampler counts in the study's attributes, which overlapping trials get wrong.

Owen, Journal of Complexity 14(4), 1998, doi 10.1006/jcom.1998.0487; Halton: Owen, 2017,
arXiv:1706.02808.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from tuner.strategies import rng as keys
from tuner.strategies.base import BatchStrategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from tuner.strategies.base import Distributions


class QuasiRandomStrategy(BatchStrategy):
    """Quasi-random search: a scrambled sequence that covers the space evenly."""

    name: Literal["qmc"] = "qmc"
    sequence: Literal["sobol", "halton"] = "sobol"
    """Which sequence; Sobol's is most even at powers of two."""

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        from scipy.stats import qmc

        from tuner.strategies.codec import Codec
        from tuner.strategies.samplers import SpaceSampler

        codec = Codec(distributions, one_hot=False)

        def propose(study: Study, trial: FrozenTrial, space: Distributions) -> dict[str, Any]:
            if not codec.n_columns:
                return {}
            engine = qmc.Sobol if self.sequence == "sobol" else qmc.Halton
            points = engine(codec.n_columns, rng=keys.generator(seed, "quasi-random"))
            if trial.number:
                points.fast_forward(trial.number)
            return codec.decode(points.random(1)[0])

        return SpaceSampler(distributions, propose, seed=seed)
