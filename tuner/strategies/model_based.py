"""Random search, and the samplers of Optuna that model the objective: TPE, Gaussian processes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tuner.strategies.base import BatchStrategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from tuner.strategies.base import Distributions


class RandomStrategy(BatchStrategy):
    """Random search: every configuration is drawn on its own. The yardstick for the others."""

    name: Literal["random"] = "random"

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        from tuner.strategies.samplers import KeyedSampler

        return KeyedSampler(seed=seed)


class _ModelStrategy(BatchStrategy):
    n_startup_trials: Annotated[int, Field(ge=0, strict=True)] = 10
    """Random trials before the model is trusted."""


class TPEStrategy(_ModelStrategy):
    """Tree-structured Parzen estimator (Optuna): models good and bad trials, picks the ratio."""

    name: Literal["tpe"] = "tpe"

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        from tuner.strategies.samplers import KeyedSampler

        n = self.n_startup_trials
        build = partial(TPESampler, n_startup_trials=n, multivariate=True, constant_liar=True)
        return KeyedSampler(build, seed=seed)


class GPStrategy(_ModelStrategy):
    """Gaussian process (Optuna): models the objective, picks by expected improvement."""

    name: Literal["gp"] = "gp"

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        from optuna.samplers import GPSampler

        from tuner.strategies.samplers import KeyedSampler

        n = self.n_startup_trials
        build = partial(GPSampler, n_startup_trials=n, warn_independent_sampling=False)
        return KeyedSampler(build, seed=seed, proposal_attr="gp:relative_params:0")
