from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from helpers.swarms import SPACE, Make, N

from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler
from tuner.strategies.population import SwarmSampler


@pytest.fixture(autouse=True)
def quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture(params=[WhaleSampler, ParticleSwarmSampler, QuantumSwarmSampler])
def make(request: pytest.FixtureRequest) -> Make:
    def made(**options: Any) -> SwarmSampler:
        defaults = {"population_size": N, "n_generations": 5, "seed": 3, "search_space": SPACE}
        sampler: SwarmSampler = request.param(**(defaults | options))
        return sampler

    return made
