"""Strategies that know their trials beforehand: trial `number` gets configuration `number`.

They learn nothing from the trials and keep nothing in the study, so a study that is opened again
goes on where it was. Optuna's own counterparts count in the study's attributes, or leave the
order to chance once trials overlap.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from tuner.strategies import rng as keys
from tuner.strategies.base import FloatArray
from tuner.strategies.codec import Codec, count_of, values_of
from tuner.strategies.population import all_trials
from tuner.strategies.rng import require, require_int, seed_of

__all__ = ["GridSampler", "QuasiRandomSampler", "every_value", "spaced_values"]

MOST = 1_000_000
"""Configurations that a grid may have: nobody trains more, and their order is kept in memory."""


class _ListedSampler(BaseSampler):
    """A sampler of a given space; what lies outside is random."""

    def __init__(self, search_space: Mapping[str, BaseDistribution], seed: int | None) -> None:
        self.search_space = {name: search_space[name] for name in sorted(search_space)}
        self.seed = seed_of(seed)

    @abstractmethod
    def configuration(self, study: Study, number: int) -> dict[str, Any]:
        """Return the configuration of trial `number`."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the search space given."""
        return dict(self.search_space)  # a wrapper may take parameters out of it

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return what the trial's configuration holds of the search space."""
        if not search_space:
            return {}
        configuration = self.configuration(study, trial.number)
        return {name: value for name, value in configuration.items() if name in search_space}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value for a parameter that the space lacks."""
        seed = keys.seed32(self.seed, "independent", trial.number, param_name)
        return RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)


class QuasiRandomSampler(_ListedSampler):
    """The points of a scrambled sequence that leaves no part of the space out for long.

    Owen, Journal of Complexity 14(4), 1998, doi 10.1006/jcom.1998.0487; Halton: Owen, 2017,
    arXiv:1706.02808.

    Args:
        search_space: The parameters; one dimension each.
        sequence: "sobol", the default, or "halton", which is as even at any number of trials
            where Sobol's is best at powers of two, but worse in many dimensions.
        seed: Seed of the scrambling; by default one is drawn.
    """

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        *,
        sequence: Literal["sobol", "halton"] = "sobol",
        seed: int | None = None,
    ) -> None:
        super().__init__(search_space, seed)
        holds = isinstance(sequence, str) and sequence in ("sobol", "halton")
        require(holds, "sequence", "'sobol' or 'halton'", sequence)
        self.sequence = sequence
        self._codec = Codec(search_space, one_hot=False)

    def configuration(self, study: Study, number: int) -> dict[str, Any]:
        """Return the configuration at the sequence's point `number`."""
        return self._codec.decode(self._point(number)) if self._codec.n_columns else {}

    def _point(self, number: int) -> FloatArray:
        from scipy.stats import qmc

        engine = qmc.Sobol if self.sequence == "sobol" else qmc.Halton
        points = engine(self._codec.n_columns, rng=keys.generator(self.seed, "quasi-random"))
        if number:
            points.fast_forward(number)
        point: FloatArray = points.random(1)[0]
        return point


class GridSampler(_ListedSampler):
    """All combinations of the values given, in a random order.

    A configuration whose trial got other parameters (an enqueued one) is tried at the end. When
    none is left, configurations are random.

    Args:
        search_space: The parameters.
        values: The values of each parameter.
        seed: Seed of the order; by default one is drawn.

    Raises ValueError where there are more than a million combinations.
    """

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution],
        values: Mapping[str, list[Any]],
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(search_space, seed)
        self.values = {name: values[name] for name in self.search_space}
        self.n_configurations = _require_few(len(v) for v in self.values.values())
        self._order = keys.generator(self.seed, "grid").permutation(self.n_configurations)

    def configuration(self, study: Study, number: int) -> dict[str, Any]:
        """Return configuration `number`, then one that is left, then a random one."""
        if number < self.n_configurations:
            return self._at(int(self._order[number]))
        tried = {self._index(t.params) for t in all_trials(study) if t.number < number}
        left = (int(i) for i in self._order if int(i) not in tried)
        index = next(left, None)
        if index is not None:
            return self._at(index)
        codec = Codec(self.search_space, one_hot=False)
        rng = keys.generator(self.seed, "after the grid", number)
        return codec.decode(rng.random(codec.n_columns))

    def _at(self, index: int) -> dict[str, Any]:
        """Return the configuration with this index, the last parameter running fastest."""
        shape = [len(v) for v in self.values.values()]
        digits = np.unravel_index(index, shape) if shape else ()
        return {name: v[int(i)] for (name, v), i in zip(self.values.items(), digits, strict=True)}

    def _index(self, params: Mapping[str, Any]) -> int | None:
        """Return the index of a configuration; None for one that is not on the grid."""
        index = 0
        for name, v in self.values.items():
            if name not in params or params[name] not in v:
                return None
            index = index * len(v) + v.index(params[name])
        return index


def every_value(search_space: Mapping[str, BaseDistribution]) -> dict[str, list[Any]]:
    """Return all values of each parameter.

    Raises ValueError, naming the parameter, where there are infinitely many, and where there are
    more than a million combinations.
    """
    for name, d in search_space.items():
        if count_of(d) is None:
            raise ValueError(
                f"search_space: {name}: must have finitely many values to try every one of them, "
                f"got {d}; give it a step"
            )
    _require_few(count_of(d) or 0 for d in search_space.values())
    return {name: values_of(d) or [] for name, d in search_space.items()}


def spaced_values(
    search_space: Mapping[str, BaseDistribution], points: int
) -> dict[str, list[Any]]:
    """Return at most `points` values of each number, spread evenly, and every other choice.

    Both ends of a range are among them; a logarithmic range is spread in the logarithm.
    """
    require_int(lambda n: n >= 2, "points", "from 2 on", points)
    return {name: _spaced(name, d, points) for name, d in search_space.items()}


def _spaced(name: str, distribution: BaseDistribution, points: int) -> list[Any]:
    n = count_of(distribution)
    if isinstance(distribution, CategoricalDistribution) or (n is not None and n <= points):
        return values_of(distribution) or []
    codec = Codec({name: distribution})
    spaced = [codec.decode(np.array([z]))[name] for z in np.linspace(0, 1, points)]
    return [value for value, _ in itertools.groupby(spaced)]


def _require_few(counts: Iterable[int]) -> int:
    """Return how many configurations a grid has; raise ValueError for more than a million."""
    n = math.prod(counts)
    if n > MOST:
        raise ValueError(
            f"search_space: a grid must have at most {MOST:,} configurations, "
            f"got {n:,}; give fewer values, or another strategy"
        )
    return n
