"""Optuna's own conformance suite, run over the swarms and over a keyed sampler."""

import pytest
from optuna.samplers import TPESampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler
from tuner.strategies.optuna_samplers import KeyedSampler
from tuner.strategies.population import CmaSampler


class TestWhaleSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: WhaleSampler(population_size=2, seed=0)


class TestParticleSwarmSampler(
    BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
):
    @pytest.fixture
    def sampler(self):
        return lambda: ParticleSwarmSampler(population_size=2, seed=0)


class TestQuantumSwarmSampler(
    BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
):
    @pytest.fixture
    def sampler(self):
        return lambda: QuantumSwarmSampler(population_size=2, seed=0)


class TestCmaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: CmaSampler(population_size=4, seed=0)


class TestKeyedSampler(BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: KeyedSampler(lambda s: TPESampler(n_startup_trials=1, seed=s), seed=0)
