"""CMA-ES, Optuna's own suite of tests, and the quality of all samplers."""

import math
from functools import partial

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import TrialState

from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler
from tuner.strategies.base import Record
from tuner.strategies.population import CmaSampler
from tuner.strategies.rng import seed32
from tuner.strategies.samplers import KeyedSampler
from tuner.strategies.swarms import WhaleStrategy


def test_the_distribution_matches_the_package_after_generations():
    import cmaes

    theirs = cmaes.CMA(
        np.full(3, 0.5), 0.3, bounds=np.array([[0.0, 1.0]] * 3), population_size=6, seed=1
    )
    sampler, past = CmaSampler(population_size=6, seed=4), None
    rng = np.random.default_rng(0)
    for generation in range(8):
        points = rng.random((6, 3))
        costs = ((points - 0.3) ** 2).sum(axis=1)
        past = sampler.options.learn(past, generation, [Record(x) for x in points], costs)
        theirs.tell(list(zip(points, costs.tolist(), strict=True)))
        assert past is not None
        assert past.mean == pytest.approx(theirs.mean, rel=1e-9)
        theirs.reseed_rng(seed32(4, "cmaes", generation + 1, 2))
        drawn = sampler.move(past, generation + 1, 2).position
        assert drawn == pytest.approx(theirs.ask(), rel=1e-6)


def test_a_draw_leaves_the_distribution_as_it_was():
    sampler = CmaSampler(population_size=4, seed=0)
    records = sampler.options.spread(sampler.seed, 0, 2)
    past = sampler.options.learn(None, 0, records, np.arange(4.0))
    draws = [sampler.move(past, 1, i).position.tolist() for i in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]


def test_a_generation_in_which_all_fail_teaches_nothing():
    sampler = CmaSampler(population_size=4, seed=0)
    records = sampler.options.spread(sampler.seed, 0, 2)
    past = sampler.options.learn(None, 0, records, np.array([1.0, math.inf, 0.5, math.inf]))
    assert sampler.options.learn(past, 1, records, np.full(4, math.inf)) is past


def test_the_largest_cost_leaves_room_for_a_failure():
    sampler = CmaSampler(population_size=4, seed=0)
    costs = np.array([1.0, math.inf, np.finfo(float).max, -np.finfo(float).max])
    records = sampler.options.spread(sampler.seed, 0, 2)
    past = sampler.options.learn(None, 0, records, costs)
    ranks = sampler.options.learn(None, 0, records, np.array([3.0, math.inf, 4.0, 2.0]))
    assert past is not None
    assert ranks is not None
    assert past.mean.tolist() == ranks.mean.tolist()


def test_a_search_that_has_converged_begins_anew():
    sampler = CmaSampler(population_size=4, seed=0)
    past, records = None, sampler.options.spread(sampler.seed, 0, 2)
    for generation in range(200):
        past = sampler.options.learn(past, generation, records, np.ones(4))
        if past is None:
            return
        records = [sampler.move(past, generation + 1, i) for i in range(4)]
    pytest.fail("a plateau was searched for 200 generations")


class TestPopulationSamplers(
    BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
):
    @pytest.fixture(params=[WhaleSampler, ParticleSwarmSampler, QuantumSwarmSampler, CmaSampler])
    def sampler(self, request):
        return lambda: request.param(population_size=4, seed=0)


class TestKeyedSampler(BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return lambda: KeyedSampler(partial(TPESampler, n_startup_trials=1), seed=0)


SPACE = {f"x{i}": FloatDistribution(-5, 5) for i in range(6)}

N_SEEDS = [15, pytest.param(100, marks=pytest.mark.slow)]


def best(sampler, seed, *, pruned=False):
    """The error after 200 trials on a sphere whose optimum the seed chooses.

    With `pruned`, every third trial ends with a value a tenth worse than it would have come to.
    """
    optimum = np.random.default_rng(seed).uniform(-4, 4, 6)
    study = optuna.create_study(sampler=sampler)
    found = math.inf
    for k in range(200):
        trial = study.ask(SPACE)
        x = np.array([trial.params[name] for name in SPACE])
        value = float((((x - optimum) / 10) ** 2).sum())
        if pruned and k % 3 == 2:
            trial.report(1.1 * value, 0)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)
            found = min(found, value)
    return found


def median(make, n_seeds, *, pruned=False):
    return float(np.median([best(make(seed), seed, pruned=pruned) for seed in range(n_seeds)]))


SWARMS = {
    "pso": lambda seed: ParticleSwarmSampler(seed=seed, search_space=SPACE),
    "qpso": lambda seed: QuantumSwarmSampler(seed=seed, search_space=SPACE),
    "woa": lambda seed: WhaleSampler(seed=seed, search_space=SPACE),
}


@pytest.mark.parametrize("n_seeds", N_SEEDS)
@pytest.mark.parametrize(("name", "error"), [("pso", 0.01), ("qpso", 0.005)])
def test_particles_find_a_shifted_optimum(name, error, n_seeds):
    assert median(SWARMS[name], n_seeds) <= error


@pytest.mark.slow
def test_whales_are_no_worse_than_chance_on_a_shifted_optimum():
    assert median(SWARMS["woa"], 100) <= median(RandomSampler, 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWARMS)
def test_a_search_of_which_a_third_is_pruned_ends_nearly_as_well(name):
    whole, pruned = (median(SWARMS[name], 100, pruned=p) for p in (False, True))
    assert pruned <= 1.5 * whole


def sphere(x):
    return np.asarray((x**2).sum(axis=1))


def rastrigin(x):
    return np.asarray((x**2 - 10 * np.cos(2 * np.pi * x) + 10).sum(axis=1))


def ackley(x):
    a = np.exp(-0.2 * np.sqrt((x**2).mean(axis=1)))
    b = np.exp(np.cos(2 * np.pi * x).mean(axis=1))
    return np.asarray(-20 * a - b + 20 + math.e)


@pytest.mark.parametrize("n_runs", [10, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("function", "bound", "error"),
    [(sphere, 100, 1e-40), (rastrigin, 5.12, 1e-6), (ackley, 32, 1e-10)],
)
def test_the_whale_rule_matches_the_paper_on_unshifted_functions(function, bound, error, n_runs):
    errors = []
    for run in range(n_runs):
        rng = np.random.default_rng(run)
        x = rng.uniform(-bound, bound, (30, 30))
        leader, least = x[0], math.inf
        for t in range(500):
            costs = function(x)
            if costs.min() < least:
                leader, least = x[costs.argmin()].copy(), float(costs.min())
            a = 2 - 2 * t / 500
            r1, r2, p = rng.random((3, 30))
            ell, other = rng.uniform(-1, 1, 30), rng.integers(30, size=30)
            moved = [
                WhaleStrategy().step(
                    x[i], leader, x[other[i]], A=2 * a * r1[i] - a, C=2 * r2[i], p=p[i], ell=ell[i]
                )
                for i in range(30)
            ]
            x = np.clip(moved, -bound, bound)
        errors.append(least)
    assert np.mean(errors) < error
