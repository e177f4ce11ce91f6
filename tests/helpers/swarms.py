"""What the tests of swarms share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuner.strategies.population import PopulationSampler

SPACE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-1, 1),
    "y": FloatDistribution(0.01, 1, log=True),
    "n": IntDistribution(1, 9),
    "c": CategoricalDistribution(["a", "b", "c"]),
    "one": IntDistribution(4, 4),
}
N = 4

Make = Callable[..., PopulationSampler]


def value_of(params: dict[str, Any]) -> float:
    return float(abs(params["x"] - 0.3) + params["y"] + params["n"] / 9 + (params["c"] == "b"))


def search(
    study: optuna.Study, n_trials: int, value: Callable[[dict[str, Any]], float] = value_of
) -> list[dict[str, Any]]:
    while len(study.trials) < n_trials:
        trial = study.ask(SPACE)
        study.tell(trial, value(trial.params))
    return [t.params for t in study.trials]


def positions(study: optuna.Study, numbers: Sequence[int]) -> np.ndarray:
    return np.array([study.trials[k].system_attrs["swarm"]["position"] for k in numbers])
