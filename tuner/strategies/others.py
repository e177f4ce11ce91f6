"""Strategies on samplers of Optuna, and those that know their trials beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tuner.strategies.base import BatchStrategy, GenerationalStrategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from tuner.strategies.base import Distributions

__all__ = [
    "BruteForceStrategy",
    "GPStrategy",
    "GridStrategy",
    "Nsga2Strategy",
    "QuasiRandomStrategy",
    "RandomStrategy",
    "TPEStrategy",
]

_Share = Annotated[float, Field(ge=0, le=1, strict=True)]


class RandomStrategy(BatchStrategy):
    """Random search: every configuration is drawn on its own. The yardstick for the others."""

    name: Literal["random"] = "random"

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        """Return the sampler; see `Strategy.sampler`."""
        from optuna.samplers import RandomSampler

        from tuner.strategies.optuna_samplers import KeyedSampler

        return KeyedSampler(RandomSampler, seed=seed)


class TPEStrategy(BatchStrategy):
    """Tree-structured Parzen estimator (Optuna): models good and bad trials, picks the ratio."""

    name: Literal["tpe"] = "tpe"
    n_startup_trials: Annotated[int, Field(ge=0, strict=True)] = 10
    """Random trials before the model is trusted."""

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        """Return the sampler; see `Strategy.sampler`."""
        from optuna.samplers import TPESampler

        from tuner.strategies.optuna_samplers import KeyedSampler

        def build(trial_seed: int) -> BaseSampler:
            return TPESampler(
                n_startup_trials=self.n_startup_trials,
                multivariate=True,
                constant_liar=True,
                seed=trial_seed,
            )

        return KeyedSampler(build, seed=seed)


class GPStrategy(BatchStrategy):
    """Gaussian process (Optuna): models the objective, picks by expected improvement."""

    name: Literal["gp"] = "gp"
    n_startup_trials: Annotated[int, Field(ge=0, strict=True)] = 10
    """Random trials before the model is trusted."""

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        """Return the sampler; see `Strategy.sampler`."""
        from tuner.strategies.optuna_samplers import KeyedSampler, RepeatableGPSampler

        def build(trial_seed: int) -> BaseSampler:
            return RepeatableGPSampler(
                n_startup_trials=self.n_startup_trials,
                warn_independent_sampling=False,
                seed=trial_seed,
            )

        return KeyedSampler(build, seed=seed)


class QuasiRandomStrategy(BatchStrategy):
    """Quasi-random search: a scrambled sequence that covers the space evenly."""

    name: Literal["qmc"] = "qmc"
    sequence: Literal["sobol", "halton"] = "sobol"
    """Which sequence; Sobol's is most even at powers of two."""

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        """Return the sampler; see `Strategy.sampler`."""
        from tuner.strategies.listed import QuasiRandomSampler

        return QuasiRandomSampler(distributions, sequence=self.sequence, seed=seed)


class GridStrategy(BatchStrategy):
    """Grid search: all combinations of a few values of each parameter, in random order."""

    name: Literal["grid"] = "grid"
    points: Annotated[int, Field(ge=2, le=10_000, strict=True)] = 5
    """Most values of a number, spread evenly over its range."""

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        """Return the sampler; see `Strategy.sampler`."""
        from tuner.strategies.listed import GridSampler, spaced_values

        return GridSampler(distributions, spaced_values(distributions, self.points), seed=seed)


class BruteForceStrategy(BatchStrategy):
    """Brute force: every configuration of a finite space, in random order."""

    name: Literal["brute"] = "brute"

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        """Return the sampler; see `Strategy.sampler`."""
        from tuner.strategies.listed import GridSampler, every_value

        return GridSampler(distributions, every_value(distributions), seed=seed)


class Nsga2Strategy(GenerationalStrategy):
    """NSGA-II (Optuna): a genetic algorithm; with two objectives it keeps the best trade-offs."""

    name: Literal["nsga2"] = "nsga2"
    crossover: _Share = 0.9
    """How likely a child has two parents."""
    mutation: _Share | None = None
    """How likely each value of a child is drawn anew; by default 1 over their number."""

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        """Return the sampler; see `Strategy.sampler`."""
        from tuner.strategies.optuna_samplers import Nsga2Sampler

        return Nsga2Sampler(
            distributions,
            population_size=self.population,
            crossover_prob=self.crossover,
            mutation_prob=self.mutation,
            seed=seed,
        )
