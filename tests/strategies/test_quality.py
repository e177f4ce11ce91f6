"""How well the swarms search, with bounds that leave room for chance but not for a mistake."""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler
from tuner.strategies.woa import move_whale

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


@pytest.mark.parametrize("n_seeds", N_SEEDS)
def test_whales_are_no_worse_than_chance_on_a_shifted_optimum(n_seeds):
    assert median(SWARMS["woa"], n_seeds) <= median(RandomSampler, n_seeds)


@pytest.mark.parametrize("n_seeds", N_SEEDS)
@pytest.mark.parametrize("name", SWARMS)
def test_a_search_of_which_a_third_is_pruned_ends_nearly_as_well(name, n_seeds):
    whole, pruned = (median(SWARMS[name], n_seeds, pruned=p) for p in (False, True))
    assert pruned <= 1.5 * whole


def sphere(x):
    return np.asarray((x**2).sum(axis=1))


def rastrigin(x):
    return np.asarray((x**2 - 10 * np.cos(2 * np.pi * x) + 10).sum(axis=1))


def ackley(x):
    a = np.exp(-0.2 * np.sqrt((x**2).mean(axis=1)))
    b = np.exp(np.cos(2 * np.pi * x).mean(axis=1))
    return np.asarray(-20 * a - b + 20 + math.e)


@pytest.mark.parametrize(
    ("function", "bound", "error"),
    [(sphere, 100, 1e-40), (rastrigin, 5.12, 1e-6), (ackley, 32, 1e-10)],
)
def test_the_whale_rule_matches_the_paper_on_unshifted_functions(function, bound, error):
    errors = []
    for run in range(30):
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
                move_whale(
                    x[i],
                    leader,
                    x[other[i]],
                    A=2 * a * r1[i] - a,
                    C=2 * r2[i],
                    p=p[i],
                    ell=ell[i],
                    b=1,
                )
                for i in range(30)
            ]
            x = np.clip(moved, -bound, bound)
        errors.append(least)
    assert np.mean(errors) < error
