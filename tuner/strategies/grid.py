"""Strategies with a list that is fixed in advance: grid, brute force, quasi-random.

Trial `number` gets entry `number`. Nothing is kept in the study, so a reopened study resumes where
it stopped. Optuna's own samplers count in the study's attributes, which fails for overlapping
trials, or their order is random.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tuner.errors import SpaceError
from tuner.strategies.base import BatchStrategy
from tuner.strategies.rng import generator

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from tuner.strategies.base import Distributions


_MOST = 1_000_000  # configurations of a grid; their order is kept in memory


class GridStrategy(BatchStrategy):
    """Grid search: all combinations of a few values of each parameter, in random order."""

    name: Literal["grid"] = "grid"
    points: Annotated[int, Field(ge=2, le=10_000, strict=True)] = 5
    """Most values of a number, spread evenly over its range."""

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        return _Grid(distributions, spaced_values(distributions, self.points), seed).sampler()


class BruteForceStrategy(BatchStrategy):
    """Brute force: every configuration of a finite space, in random order."""

    name: Literal["brute"] = "brute"

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        return _Grid(distributions, every_value(distributions), seed).sampler()


class _Grid:
    """All combinations of the values, in a random order.

    A configuration whose trial got other parameters (an enqueued one) comes last. After the last
    one, configurations are random.
    """

    def __init__(
        self, distributions: Distributions, values: Mapping[str, list[Any]], seed: int
    ) -> None:
        self._distributions, self._seed = distributions, seed
        self._values = {name: values[name] for name in sorted(values)}
        self._n = _require_few(len(v) for v in values.values())
        self._order = generator(seed, "grid").permutation(self._n)

    def sampler(self) -> BaseSampler:
        from tuner.strategies.samplers import SpaceSampler

        return SpaceSampler(self._distributions, self._propose, seed=self._seed)

    def _propose(self, study: Study, trial: FrozenTrial, space: Distributions) -> dict[str, Any]:
        from tuner.strategies.codec import Codec
        from tuner.strategies.samplers import all_trials

        if trial.number < self._n:
            return self._at(int(self._order[trial.number]))
        tried = {self._index(t.params) for t in all_trials(study) if t.number < trial.number}
        index = next((int(i) for i in self._order if int(i) not in tried), None)
        if index is not None:
            return self._at(index)
        codec = Codec(self._distributions, one_hot=False)
        rng = generator(self._seed, "after the grid", trial.number)
        return codec.decode(rng.random(codec.n_columns))

    def _at(self, index: int) -> dict[str, Any]:
        """Return the configuration with this index; the last parameter changes fastest."""
        shape = [len(v) for v in self._values.values()]
        digits = np.unravel_index(index, shape) if shape else ()
        return {name: v[int(i)] for (name, v), i in zip(self._values.items(), digits, strict=True)}

    def _index(self, params: Mapping[str, Any]) -> int | None:
        """Return the index of a configuration; None for one that is not on the grid."""
        index = 0
        for name, v in self._values.items():
            if name not in params or params[name] not in v:
                return None
            index = index * len(v) + v.index(params[name])
        return index


def every_value(distributions: Distributions) -> dict[str, list[Any]]:
    """Return all values of each parameter.

    Raises:
        SpaceError: A parameter has infinitely many, or there are over a million combinations.
    """
    from tuner.strategies.codec import count_of, values_of

    for name, distribution in distributions.items():
        if count_of(distribution) is None:
            rule, key = "must have finitely many values", f"search_space.{name}"
            raise SpaceError(rule, key=key, got=distribution, remedy="give it a step")
    _require_few(count_of(d) or 0 for d in distributions.values())
    return {name: values_of(d) or [] for name, d in distributions.items()}


def spaced_values(distributions: Distributions, points: int) -> dict[str, list[Any]]:
    """Return at most `points` values of each number, evenly spaced, and every other choice.

    Both ends of a range are among them; a logarithmic range is spaced in the logarithm.
    """
    from optuna.distributions import CategoricalDistribution

    from tuner.strategies.codec import Codec, count_of, values_of

    found: dict[str, list[Any]] = {}
    for name, distribution in distributions.items():
        n = count_of(distribution)
        if isinstance(distribution, CategoricalDistribution) or (n is not None and n <= points):
            found[name] = values_of(distribution) or []
            continue
        codec = Codec({name: distribution})
        spaced = [codec.decode(np.array([z]))[name] for z in np.linspace(0, 1, points)]
        found[name] = [value for value, _ in itertools.groupby(spaced)]
    return found


def _require_few(counts: Iterable[int]) -> int:
    n = math.prod(counts)
    if n > _MOST:
        rule = f"a grid must have at most {_MOST:,} configurations"
        remedy = "give fewer values, or another strategy"
        raise SpaceError(rule, key="search_space", got=f"{n:,}", remedy=remedy)
    return n


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
            points = engine(codec.n_columns, rng=generator(seed, "quasi-random"))
            if trial.number:
                points.fast_forward(trial.number)
            return codec.decode(points.random(1)[0])

        return SpaceSampler(distributions, propose, seed=seed)
