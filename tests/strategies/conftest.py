import pytest
from helpers.swarms import SPACE, N

from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler


@pytest.fixture(autouse=True)
def _quiet(quiet_optuna):
    pass


@pytest.fixture(params=[WhaleSampler, ParticleSwarmSampler, QuantumSwarmSampler])
def make(request):
    def made(**options):
        defaults = {"population_size": N, "n_generations": 5, "seed": 3, "search_space": SPACE}
        sampler = request.param(**(defaults | options))
        return sampler

    return made
