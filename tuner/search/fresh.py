"""Configurations that a study has not trained, for when its strategy proposes only repeats."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Container, Iterator
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

__all__ = ["configuration_key", "fresh_configuration"]

_ROLE = 103  # keys this generator apart from the seeds of training
_LISTABLE = 100_000  # spaces up to this size are searched whole for what is left
_DRAWS = 1_000


def configuration_key(params: dict[str, Any]) -> str:
    """Return a text that is equal for equal configurations; 0.3 and 0.1 + 0.2 are equal."""
    rounded = {k: float(f"{v:.12g}") if isinstance(v, float) else v for k, v in params.items()}
    return json.dumps(rounded, sort_keys=True)


def fresh_configuration(
    distributions: dict[str, BaseDistribution], trained: Container[str], seed: int, number: int
) -> dict[str, Any]:
    """Return a random configuration whose key is not in `trained`; the same for the same arguments.

    In a huge space that is nearly used up, where a thousand draws find none, the last one drawn
    is returned although it repeats.
    """
    rng = np.random.default_rng([seed, _ROLE, number])
    names = list(distributions)
    sizes = [_size(d) for d in distributions.values()]
    if math.prod(sizes) <= _LISTABLE:
        grid = itertools.product(*(_values(d) for d in distributions.values()))
        left = [
            c for c in grid if configuration_key(dict(zip(names, c, strict=True))) not in trained
        ]
        if left:
            return dict(zip(names, left[rng.integers(len(left))], strict=True))
    for _ in range(_DRAWS):
        params = {name: _draw(d, rng) for name, d in distributions.items()}
        if configuration_key(params) not in trained:
            break
    return params


def _size(distribution: BaseDistribution) -> float:
    match distribution:
        case IntDistribution():
            return (distribution.high - distribution.low) // distribution.step + 1
        case CategoricalDistribution():
            return len(distribution.choices)
        case FloatDistribution(step=float(step)):
            return round((distribution.high - distribution.low) / step) + 1
        case FloatDistribution() if distribution.single():
            return 1
    return math.inf


def _values(distribution: BaseDistribution) -> Iterator[Any]:
    match distribution:
        case IntDistribution():
            yield from range(distribution.low, distribution.high + 1, distribution.step)
        case CategoricalDistribution():
            yield from distribution.choices
        case FloatDistribution(step=step):
            for i in range(int(_size(distribution))):
                yield distribution.low + i * (step or 0.0)


def _draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    if math.isfinite(size := _size(distribution)):
        return next(itertools.islice(_values(distribution), int(rng.integers(int(size))), None))
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(rng.uniform(low, high))
