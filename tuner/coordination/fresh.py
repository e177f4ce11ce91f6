"""Configurations that a study has not trained, for when its strategy proposes only repeats."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Container
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from tuner.strategies.codec import Codec, count_of, values_of

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
) -> dict[str, Any] | None:
    """Return a configuration whose key is not in `trained`; the same for the same arguments.

    Where every configuration of a finite space has been trained, return None. In a huge space
    that is nearly used up, where a thousand draws find none, return the last one drawn although
    it repeats.
    """
    rng = np.random.default_rng([seed, _ROLE, number])
    ordered = dict(sorted(distributions.items()))
    counts = [count_of(d) or math.inf for d in ordered.values()]
    if math.prod(counts) <= _LISTABLE:
        grid = itertools.product(*(values_of(d) or [] for d in ordered.values()))
        every = (dict(zip(ordered, values, strict=True)) for values in grid)
        left = [params for params in every if configuration_key(params) not in trained]
        return left[rng.integers(len(left))] if left else None
    from scipy.stats import qmc  # half a second, and seldom needed

    codec = Codec(distributions)
    points = qmc.Sobol(codec.n_columns, scramble=True, rng=rng)
    single = {name: (values_of(d) or [])[0] for name, d in ordered.items() if d.single()}
    for _ in range(_DRAWS):
        params = single | codec.decode(points.random()[0])
        if configuration_key(params) not in trained:
            break
    return params
